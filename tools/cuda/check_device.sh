#!/usr/bin/env bash
# On a machine with a GPU: everything that waits for one, with the CUDA wheel.
# usage: check_device.sh DIST PYTHON CHECKPOINT OUT    PYTHON: of an environment with PyTorch; OUT: takes the reports
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
wheel=$(realpath "$(ls -t "${1:?usage: check_device.sh DIST PYTHON CHECKPOINT OUT}"/chatterbox_turbo_rs-*.whl | head -1)")
python=$(realpath -s "$2") model=$(realpath "$3") out=$(realpath -m "$4")
mkdir -p "$out"
"$python" -m pip install -q --disable-pip-version-check --no-deps --upgrade --target "$out/package" "$wheel"
cd "$root/tests"
export PYTHONPATH=$out/package CHATTERBOX_CACHE=off
reason=$("$python" -W ignore -c "from chatterbox_turbo_rs.devices import reasons; print(reasons()['cuda'])")
if [ "$reason" != None ]; then
  echo "error: device cuda: expected one that can be used, found: $reason" >&2
  exit 1
fi
"$python" -m pip install -q --disable-pip-version-check pytest "tomli>=2"
command() { "$python" -W ignore -m chatterbox_turbo_rs "$@"; }
command info | grep '^device'
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
"$python" -m pytest -q -W ignore -rs -m cuda .
command parity --model "$model" --parties python,rust --against python --device cuda \
  --json "$out/parity.json" --markdown "$out/parity.md" --html "$out/parity.html"
for device in cpu cuda; do command bench --model "$model" --device "$device" --threads 2 --json "$out/bench-$device.json"; done
echo "reports in $out"
