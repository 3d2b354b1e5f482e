#!/usr/bin/env bash
# Checks the CUDA wheel on a machine without a driver: nothing of CUDA is needed to import it, the CPU works, and CUDA is refused in one line.
# usage: check_wheel.sh DIST
set -euo pipefail
wheel=$(realpath "$(ls -t "${1:?usage: check_wheel.sh DIST}"/chatterbox_turbo_rs-*.whl | head -1)")
tools=$(cd "$(dirname "$0")" && pwd)
fail() { echo "error: $(basename "$wheel"): $*" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
size=$(stat -c %s "$wheel")
[ "$size" -le 40000000 ] || fail "expected at most 40 MB, found $size bytes"
"${PYTHON:-python3}" -m venv "$work/venv"
bin=$work/venv/bin
"$bin/pip" install -q --disable-pip-version-check "$wheel"
cd "$work"
module=$("$bin/python" -c "from chatterbox_turbo_rs import _core; assert 'cuda' in _core.build_info()['features'], 'no CUDA code'; print(_core.__file__)")
needed=$(readelf -d "$module" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | tr '\n' ' ')
case " $needed" in *\ libcu* | *\ libnv*) fail "expected no CUDA library among those it needs, found $needed" ;; esac
"$bin/chatterbox-turbo" demo
"$bin/chatterbox-turbo" info | grep '^device'
reason() { "$bin/python" -c "from chatterbox_turbo_rs.engine.devices import reasons; print(reasons()['cuda'])"; }
[ "$(reason)" != None ] || { echo "a CUDA device is here: what is refused without one was not checked"; exit 0; }
if "$bin/chatterbox-turbo" say --model demo --device cuda "Hello." 2>error.txt; then fail "device cuda was accepted"; else code=$?; fi
cat error.txt
[ "$code" -eq 1 ] && [ "$(wc -l <error.txt)" -eq 1 ] || fail "expected exit code 1 and one line, got $code and $(wc -l <error.txt)"
grep -qF "device: cuda: $(reason)" error.txt || fail "expected the reason that info gives"
expect() { # TEXT NUMBERS: what is said of a driver that tells these numbers
  found=$(FAKE_CUDA=$2 LD_LIBRARY_PATH=$work/driver reason 2>driver.err) || fail "the driver '$2' ended the process: $(cat driver.err)"
  echo "driver '$2': $found"
  [[ $found == *"$1"* ]] || fail "expected '$1'"
}
mkdir driver
"${CC:-cc}" -shared -fPIC -o driver/libcuda.so.1 "$tools/fake_driver.c"
expect "expected a driver for CUDA 13.0 or newer (580 or newer), found one for CUDA 12.4" "12040 0 9 0"
expect "the driver says: no CUDA-capable device is detected" "13000 100 9 0"
expect "expected compute capability 8.0 or newer, found 7.5 (Fake card)" "13000 0 7 5"
expect "libcublasLt.so.13: cannot open shared object file: No such file or directory; pip install 'chatterbox-turbo-rs[cuda]' brings it" "13000 0 8 0"
# libraries that hold nothing, where the wheels of [cuda] put theirs: found there, and what they lack is an error, not the end
libraries=$("$bin/python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")/nvidia/cu13/lib
mkdir -p "$libraries"
for name in libcublasLt.so.13 libcublas.so.13 libcurand.so.10; do echo | "${CC:-cc}" -shared -fPIC -x c -o "$libraries/$name" -; done
expect "" "13000 0 8 0"
[[ $found != *"cannot open"* && $found != None ]] || fail "expected the libraries of the package nvidia to be found and refused"
"$bin/python" - <<'PYTHON'
from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.errors import DeviceError

try:
    ChatterboxTurbo.from_pretrained("demo", device="cuda")
except DeviceError as error:
    print(f"DeviceError: {error}")
else:
    raise SystemExit("error: device cuda was accepted")
PYTHON
echo "wheel $(basename "$wheel"): $size bytes, needs $needed"
