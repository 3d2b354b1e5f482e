#!/usr/bin/env bash
# Installs the newest wheel of a folder into an empty environment, without torch, librosa or transformers, and uses it.
# usage: check_wheel.sh DIST
set -euo pipefail
wheel=$(ls -t "${1:?usage: check_wheel.sh DIST}"/chatterbox_turbo_rs-*.whl | head -1)
wheel=$(realpath "$wheel")
tools=$(cd "$(dirname "$0")" && pwd)
fail() { echo "error: $(basename "$wheel"): $*" >&2; exit 1; }
size=$(wc -c <"$wheel")
[ "$size" -le 40000000 ] || fail "expected at most 40 MB, found $size bytes"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
bin=$work/venv/bin
"$bin/pip" install -q --disable-pip-version-check "$wheel"
cd "$work"
for banned in torch librosa transformers; do
  if "$bin/python" -c "import $banned" 2>/dev/null; then echo "error: the wheel brought $banned" >&2; exit 1; fi
done
"$bin/python" -c "import chatterbox_turbo_rs, sys; assert 'torch' not in sys.modules"
embedded=$("$bin/python" -c "from chatterbox_turbo_rs.checkpoint.locate import embedded; print(embedded())")
diff -r "$embedded" "$tools/../python/chatterbox_turbo_rs/assets/demo" || fail "expected the embedded model's files, card and all"
"$bin/chatterbox-turbo" info
"$bin/chatterbox-turbo" demo
"$bin/chatterbox-turbo" watermark detect demo.wav
# a directory with upstream's files and a reference clip, as a user would have them
"$bin/python" "$tools/make_checkpoint.py" --size tiny --seed 1 model
clip=$(ls "$tools"/../tests/data/clips/*.flac | head -1)
"$bin/chatterbox-turbo" say --model model --voice "$clip" --seed 1 "Hello [laugh] there." --max-tokens 120 -o a.wav
"$bin/chatterbox-turbo" voice prepare --model model "$clip" -o voice.safetensors
"$bin/chatterbox-turbo" say --model model --voice voice.safetensors --seed 1 "Hello [laugh] there." --max-tokens 120 -o b.wav
cmp a.wav b.wav
"$bin/chatterbox-turbo" voice show voice.safetensors
# without PyTorch the stages without a network are compared, and the report says what was not
"$bin/chatterbox-turbo" parity --allow-missing --html parity.html >parity.txt 2>parity.err
grep -q "pip install 'chatterbox-turbo-rs\[torch\]'" parity.txt && [ "$(wc -c <parity.html)" -gt 50000 ]
"$bin/chatterbox-turbo" say --model demo --backends python "Hello." 2>error.txt && { echo "error: PyTorch was not missed" >&2; exit 1; }
grep -q "pip install 'chatterbox-turbo-rs\[torch\]'" error.txt
if "$bin/chatterbox-turbo" say --model nowhere "Hello." 2>error.txt; then echo "error: a missing model was accepted" >&2; exit 1; fi
[ "$(wc -l <error.txt)" -eq 1 ] || { echo "error: expected one line" >&2; cat error.txt >&2; exit 1; }
echo "wheel $(basename "$wheel") ($size bytes) works in an empty environment"
