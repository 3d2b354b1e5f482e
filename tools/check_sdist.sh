#!/usr/bin/env bash
# Looks into the newest source distribution of a folder, builds it as pip does for whoever has no wheel, and speaks with what comes of it.
# usage: [PYTHON=python3.11] [CARGO_TARGET_DIR=target] check_sdist.sh DIST
set -euo pipefail
sdist=$(realpath "$(ls -t "${1:?usage: check_sdist.sh DIST}"/chatterbox_turbo_rs-*.tar.gz | head -1)")
fail() { echo "error: $(basename "$sdist"): $*" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
size=$(tar -tvzf "$sdist" | awk '!/\/assets\// { bytes += $3 } END { print bytes }')
[ "$size" -lt 4000000 ] || fail "expected less than 4 MB besides the embedded model, found $size bytes"
tar -tzf "$sdist" | cut -d/ -f2- >"$work/files"
for file in Cargo.lock Cargo.toml LICENSE PKG-INFO README.md pyproject.toml python/chatterbox_turbo_rs/{py.typed,_core.pyi} rust/core/Cargo.toml; do
  grep -qx "$file" "$work/files" || fail "expected $file in it"
done
if grep -E '^(tests|tools|benches|docs|target|build)/|\.(so|pyd|pyc|npz|wav)$' "$work/files"; then fail "expected none of these in it"; fi
"${PYTHON:-python3}" -m venv "$work/venv"
bin=$work/venv/bin
"$bin/pip" install -q --disable-pip-version-check "$sdist"
cd "$work"
"$bin/chatterbox-turbo" demo
"$bin/chatterbox-turbo" watermark detect demo.wav
echo "source distribution $(basename "$sdist"): $(wc -c <"$sdist") bytes, $(wc -l <files) files, builds and speaks"
