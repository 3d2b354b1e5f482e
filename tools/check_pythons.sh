#!/usr/bin/env bash
# Installs the newest wheel of a folder into an empty environment of each Python, and speaks there.
# usage: [UV=uv] check_pythons.sh DIST WORK VERSION…     WORK: takes the environments and uv's cache
# A version that is not on this machine is named; with UV_PYTHON_DOWNLOADS=automatic uv brings it, and not to have it is an error.
set -euo pipefail
wheel=$(ls -t "${1:?usage: check_pythons.sh DIST WORK VERSION…}"/chatterbox_turbo_rs-*.whl | head -1)
mkdir -p "$2"
work=$(cd "$2" && pwd) uv=${UV:-uv}
shift 2
export UV_CACHE_DIR=${UV_CACHE_DIR:-$work/uv} UV_PYTHON_DOWNLOADS=${UV_PYTHON_DOWNLOADS:-never}
# pyenv's commands python3.N find their versions when all are switched on.
if command -v pyenv >/dev/null; then PYENV_VERSION=$(pyenv versions --bare | paste -sd: -); export PYENV_VERSION; fi
"$uv" --version
spoke=0 missing=""
for version in "$@"; do
  if [ "$UV_PYTHON_DOWNLOADS" = never ] && ! "$uv" python find -q --system "$version" >/dev/null 2>&1; then
    missing="$missing $version"
    continue
  fi
  environment=$work/python-$version
  "$uv" venv -q --clear -p "$version" "$environment"
  bin=$environment/bin
  [ -d "$bin" ] || bin=$environment/Scripts
  "$uv" pip install -q -p "$bin/python" "$wheel"
  "$bin/chatterbox-turbo" demo -o "$environment/a.wav" >"$environment/out.txt"
  "$bin/chatterbox-turbo" watermark detect "$environment/a.wav" >>"$environment/out.txt"
  grep -q "a.wav: watermarked" "$environment/out.txt" || { cat "$environment/out.txt" >&2; exit 1; }
  "$bin/python" -c "import platform; print('spoke with Python', platform.python_version())"
  spoke=$((spoke + 1))
  rm -rf "$environment"
done
[ "$spoke" -gt 0 ] || { echo "error: none of Python $* is on this machine" >&2; exit 1; }
[ -z "$missing" ] || echo "not on this machine: Python$missing"
