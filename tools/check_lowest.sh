#!/usr/bin/env bash
# Tests the newest wheel of a folder with the oldest packages that pyproject.toml allows, on one Python.
# usage: [UV=uv] [TESTS=tests] check_lowest.sh DIST WORK VERSION     WORK: takes the environment and uv's cache
set -euo pipefail
dist=${1:?usage: check_lowest.sh DIST WORK VERSION} environment=$2/lowest uv=${UV:-uv}
"$uv" --version
# What uses soundfile, soxr, pyloudnorm, tokenizers, safetensors, huggingface_hub and resemble-perth; then starlette, uvicorn, python-multipart,
# prometheus_client, and PyAV for AAC.
tests=${TESTS:-tests/test_files.py tests/test_hub.py tests/test_torch_archive.py tests/test_voice.py tests/stages/test_reference_load.py
  tests/stages/test_reference_loudness.py tests/stages/test_reference_resample.py tests/stages/test_text_tokenize.py tests/stages/test_watermark.py
  tests/serve/test_speech.py tests/serve/test_voices.py tests/serve/test_sound.py}
export UV_CACHE_DIR=${UV_CACHE_DIR:-$2/uv} UV_PYTHON_DOWNLOADS=${UV_PYTHON_DOWNLOADS:-never}
if command -v pyenv >/dev/null; then PYENV_VERSION=$(pyenv versions --bare | paste -sd: -); export PYENV_VERSION; fi
if [ "$UV_PYTHON_DOWNLOADS" = never ] && ! "$uv" python find -q --system "$3" >/dev/null 2>&1; then
  echo "not checked with the oldest packages: Python $3 is not on this machine"
  exit
fi
"$uv" venv -q --clear -p "$3" "$environment"
"$uv" pip install -q -p "$environment/bin/python" --resolution lowest-direct -r pyproject.toml --extra server --extra book \
  "pytest>=8" "httpx>=0.28" "openai>=1.99"
"$uv" pip install -q -p "$environment/bin/python" --no-deps "$(ls -t "$dist"/chatterbox_turbo_rs-*.whl | head -1)"
"$uv" pip list -q -p "$environment/bin/python"
"$environment/bin/chatterbox-turbo" demo "Hello there." -o "$environment/a.wav"
# Going on with a broken transfer within one call is what newer releases of huggingface_hub do; with older ones the next call goes on.
# shellcheck disable=SC2086
"$environment/bin/python" -m pytest -q $tests -k "not a_broken_transfer_is_resumed and not system_refuses_the_cache"
