// A stand-in for libcuda.so.1 that says what FAKE_CUDA tells it, "version error major minor": check_wheel.sh has the package meet
// drivers and cards that no machine at hand has.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int told(int which) {
  int values[4] = {13000, 0, 9, 0};
  const char *text = getenv("FAKE_CUDA");
  if (text) sscanf(text, "%d %d %d %d", &values[0], &values[1], &values[2], &values[3]);
  return values[which];
}

int cuDriverGetVersion(int *version) { *version = told(0); return 0; }
int cuInit(unsigned flags) { (void)flags; return told(1); }
int cuGetErrorString(int code, const char **text) { (void)code; *text = "no CUDA-capable device is detected"; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int number) { *device = number; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { (void)device; *value = told(attribute == 75 ? 2 : 3); return 0; }
int cuDeviceGetName(char *name, int size, int device) { (void)device; strncpy(name, "Fake card", size); return 0; }
