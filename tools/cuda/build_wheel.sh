#!/usr/bin/env bash
# Builds the Linux x86-64 wheel with CUDA code that imports where no CUDA is.
# usage: build_wheel.sh TOOLKIT MATURIN OUT [MATURIN OPTIONS]    TOOLKIT: a folder that toolkit.sh filled
set -euo pipefail
tools=$(cd "$(dirname "$0")" && pwd)
toolkit=$(realpath "${1:?usage: build_wheel.sh TOOLKIT MATURIN OUT}") maturin=$2 out=$3
shift 3
for name in RUSTFLAGS CARGO_ENCODED_RUSTFLAGS; do
  if [ -n "${!name:-}" ]; then # it would take the place of the flags below, and the module would need the CUDA libraries to be imported
    echo "error: $name: expected it unset for the CUDA wheel, got '${!name}'" >&2
    exit 2
  fi
  unset "$name"
done
if [ "$(uname -sm)" != "Linux x86_64" ]; then
  echo "error: the CUDA wheel: expected Linux on x86-64, found $(uname -sm)" >&2
  exit 2
fi
export CUDA_HOME=$toolkit/nvidia/cu13 NVCC=$tools/nvcc CUDAFORGE_THREADS=${CUDAFORGE_THREADS:-$(nproc)}
export CUDARC_CUDA_VERSION=13000
# PTX for compute capability 8.0, which the driver compiles for 8.0 and everything newer; 90 would become sm_90a, which Hopper alone takes.
export CUDA_COMPUTE_CAP=80
# cudarc opens its libraries when they are first used. Its build script refuses this feature: with --target, flags reach no build script.
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS='--cfg feature="dynamic-loading"'
exec "$maturin" build --release --target x86_64-unknown-linux-gnu --features pyo3/extension-module,cuda --out "$out" "$@"
