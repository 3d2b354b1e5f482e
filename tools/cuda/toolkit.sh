#!/usr/bin/env bash
# Installs what compiles Candle's CUDA kernels, from PyPI, into a folder: 105 MB to fetch, 271 MB on disk. Neither a driver nor root is needed.
# usage: [PYTHON=python3.11] toolkit.sh DIR
set -euo pipefail
dir=$(realpath -m "${1:?usage: toolkit.sh DIR}")
root=$dir/nvidia/cu13
"${PYTHON:-python3}" -m pip install -q --disable-pip-version-check --no-deps --upgrade --target "$dir" \
  nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-cccl==13.0.85 nvidia-cuda-runtime==13.0.96
# The linker is given empty archives: the libraries are opened when a GPU is asked for. (An empty linker script would do for lld alone.)
mkdir -p "$root/lib/stubs"
for name in cuda nvrtc curand cublas cublasLt; do
  rm -f "$root/lib/stubs/lib$name".*
  ar rc "$root/lib/stubs/lib$name.a"
done
# One archive of candle-kernels calls the run-time library: the static one, which looks for the driver by itself.
ln -sf ../libcudart_static.a "$root/lib/stubs/libcudart.a"
"$root/bin/nvcc" --version | tail -1
