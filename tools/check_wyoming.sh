#!/usr/bin/env bash
# Speaks through wyoming-openai, in an environment of its own, which needs Python 3.12 or newer.
# usage: [UV=uv] check_wyoming.sh CHATTERBOX_TURBO WORK     WORK: takes the environment
set -euo pipefail
command=${1:?usage: check_wyoming.sh CHATTERBOX_TURBO WORK} environment=$2/wyoming uv=${UV:-uv}
export UV_PYTHON_DOWNLOADS=${UV_PYTHON_DOWNLOADS:-never}
if command -v pyenv >/dev/null; then PYENV_VERSION=$(pyenv versions --bare | paste -sd: -); export PYENV_VERSION; fi
if ! "$uv" python find -q --system ">=3.12" >/dev/null 2>&1; then
  echo "not checked with wyoming-openai: Python 3.12 or newer is not on this machine"
  exit
fi
"$uv" venv -q --clear -p "$("$uv" python find -q --system ">=3.12")" "$environment"
"$uv" pip install -q -p "$environment/bin/python" "wyoming-openai>=0.8" "wyoming>=1.8"
"$environment/bin/python" "$(dirname "$0")/check_wyoming.py" "$command"
