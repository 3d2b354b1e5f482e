#!/usr/bin/env bash
# Builds WORK/env, the virtual environment that trains the demo model: CPU PyTorch, the teacher (hibari-tts), the listener (Whisper, DNSMOS).
# usage: [PYTHON=python3.11] environment.sh WORK      then: WORK/env/bin/python tools/demo_model/texts.py --work WORK
# Debian's fortunes, WordNet and dictionaries are unpacked into WORK/debian; nothing is installed.
set -euo pipefail
work=${1:?usage: environment.sh WORK}
mkdir -p "$work/logs" "$work/debian"
[ -x "$work/env/bin/python" ] || "${PYTHON:-python3}" -m venv "$work/env"
pip="$work/env/bin/pip install -q --disable-pip-version-check"
$pip "torch==2.13.0" "hibari-tts==0.2.1" onnx onnxruntime -r "$(dirname "$0")/requirements-listener.txt" soundfile soxr scipy pyloudnorm huggingface_hub tokenizers safetensors numpy "setuptools<81"
$pip --no-deps "resemble-perth==1.0.1"
if [ ! -e "$work/debian/usr/share/dictd/gcide.dict.dz" ]; then
  (cd "$work/debian" && apt-get download fortunes fortunes-min wordnet-base dict-jargon dict-foldoc dict-gcide && for package in ./*.deb; do dpkg -x "$package" .; done && rm ./*.deb)
fi
"$work/env/bin/python" -c 'import torch, hibari, onnxruntime, faster_whisper; print("environment ready: torch", torch.__version__)'
