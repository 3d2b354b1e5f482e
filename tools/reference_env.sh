#!/usr/bin/env bash
# Builds a virtual environment that holds the official PyTorch Chatterbox (chatterbox-tts), CPU only.
# usage: [PYTHON=python3.11] reference_env.sh DIR      then: DIR/bin/python -c 'from chatterbox.tts_turbo import ChatterboxTurboTTS'
# Its own pins (torch 2.6, gradio, numpy<2, ...) are replaced by what runs on a CPU-only machine:
#  - numpy < 2: with numpy >= 2 the loudness gain promotes the reference clip to float64 and the tokenizer stops
#  - setuptools < 81: resemble-perth 1.0.1 imports pkg_resources and otherwise hides its watermarker
#  - s3tokenizer 0.3.0: the attention LayerNorm epsilon differs between releases
#  - torchaudio's compiled libraries need a CUDA torch; only its Python parts are used, so they are removed
set -euo pipefail
dir=${1:?usage: reference_env.sh DIR}
"${PYTHON:-python3}" -m venv "$dir"
# uv takes a third of pip's time for these 5 GB: it unpacks in parallel and compiles no byte code that nothing imports.
"$dir/bin/pip" install -q --disable-pip-version-check "uv>=0.9"
pip="$dir/bin/uv pip install -q --python $dir/bin/python"
$pip "torch==2.13.0"
$pip "numpy==1.26.4" "setuptools<81" "librosa==0.11.0" soundfile "transformers==5.2.0" "safetensors>=0.5.3" einops scipy \
     huggingface_hub tqdm omegaconf "pyloudnorm==0.2.0" onnx importlib_metadata pillow requests regex filelock
$pip --no-deps "chatterbox-tts==0.1.7" "resemble-perth==1.0.1" "s3tokenizer==0.3.0" "conformer==0.3.2" "diffusers==0.29.0" "torchaudio==2.11.0"
find "$dir"/lib/python3*/site-packages/torchaudio/lib -name '*.so' -delete
"$dir/bin/python" -c 'from chatterbox.tts_turbo import ChatterboxTurboTTS; import perth; assert perth.PerthImplicitWatermarker; print("official Chatterbox Turbo imports")'
