"""A loaded model does not depend on its files: cut off, overwritten, replaced or deleted, they change nothing that was loaded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.errors import CheckpointError

CHANGE = """
import os
def change(path, how):
    if how == "truncate":
        os.truncate(path, path.stat().st_size // 3)
    elif how == "empty":
        os.truncate(path, 0)
    elif how == "overwrite":
        with open(path, "r+b") as file:  # the header stays
            file.seek(path.stat().st_size // 4)
            file.write(os.urandom(path.stat().st_size * 3 // 4))
    elif how == "zeros":
        size = path.stat().st_size
        os.truncate(path, 0)
        os.truncate(path, size)
    elif how == "rename":
        other = path.with_suffix(".other")
        other.write_bytes(os.urandom(path.stat().st_size))
        os.replace(other, path)
    elif how == "delete":
        path.unlink()
"""
SPEAK = (
    CHANGE
    + """
import hashlib, json, sys
from pathlib import Path
from chatterbox_turbo_rs import ChatterboxTurbo, Voice
from chatterbox_turbo_rs.errors import CheckpointError
directory, precision, voice, clip, pattern, how = sys.argv[1:]
def digest(tts):
    samples = tts.generate("Hello there.", voice=Voice.load(voice), seed=3, max_tokens=12).samples
    return hashlib.sha256(samples.tobytes()).hexdigest()
def tokens(tts):
    try:
        return tts.voice(clip).t3_prompt_tokens.tolist()
    except CheckpointError as error:
        return str(error)
tts = ChatterboxTurbo.from_pretrained(directory, precision=precision)
before = digest(tts), tokens(tts)
changed = [path for path in Path(directory).parent.glob(pattern) if path.is_file()]
for path in changed:
    change(path, how)
print(json.dumps([len(changed), before, (digest(tts), tokens(tts))]))
"""
)
HOW = ["truncate", "empty", "overwrite", "zeros", "rename", "delete"]


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, to be changed."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def run(code: str, *arguments: object, **environment: str) -> Any:
    """What ``code`` prints, in a process of its own: a signal fails the test."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=600)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return json.loads(done.stdout)


@pytest.fixture
def voice(toy: ChatterboxTurbo, checkpoint: Path, clip: Path, tmp_path: Path) -> Path:
    path = tmp_path / "voice.safetensors"
    ChatterboxTurbo.from_pretrained(checkpoint, precision="f32").voice(clip).save(path)
    return path


@pytest.mark.parametrize("precision", ["f32", "auto"])
@pytest.mark.parametrize("how", HOW)
def test_the_weight_files(checkpoint: Path, voice: Path, clip: Path, how: str, precision: str) -> None:
    arguments = (checkpoint, precision, voice, clip, "checkpoint/*.safetensors", how)
    changed, before, after = run(SPEAK, *arguments, CHATTERBOX_CACHE="off")
    assert changed == 3 and after == before


@pytest.mark.parametrize("first", [True, False], ids=["packed", "found"])
@pytest.mark.parametrize("how", HOW)
def test_the_packed_cache(checkpoint: Path, voice: Path, clip: Path, tmp_path: Path, how: str, first: bool) -> None:
    """S3Tokenizer's weights stay there: preparing a voice is either the same or an error."""
    environment = {"CHATTERBOX_CACHE": str(tmp_path / "cache")}
    arguments = (checkpoint, "int8", voice, clip, "cache/*.packed", how)
    if not first:
        run(SPEAK, *arguments[:-1], "nothing", **environment)
    changed, (speech, tokens), (speech_after, tokens_after) = run(SPEAK, *arguments, **environment)
    assert changed >= 1 and speech_after == speech
    if how in ("rename", "delete") or tokens_after == tokens:
        assert tokens_after == tokens
    else:
        assert "changed on disk" in tokens_after and "load the model again" in tokens_after and ".packed" in tokens_after


LOAD = (
    CHANGE
    + """
import json, sys
from pathlib import Path
from chatterbox_turbo_rs import _core
from chatterbox_turbo_rs.errors import CheckpointError
directory, name, how = sys.argv[1:]
core = _core.Checkpoint(directory, (Path(directory) / "config.json").read_text())
change(Path(directory) / name, how)
try:
    _core.T3Decoder(core, "cpu", "f32")
    print(json.dumps("loaded"))
except CheckpointError as error:
    print(json.dumps(str(error)))
"""
)


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("how", HOW)
def test_a_file_that_changes_while_it_is_loaded(checkpoint: Path, tmp_path: Path, how: str, cache: bool) -> None:
    name = "t3_turbo_v1.safetensors"
    found = run(LOAD, checkpoint, name, how, CHATTERBOX_CACHE=str(tmp_path / "cache") if cache else "off")
    if how in ("rename", "delete"):
        assert found == "loaded", "the open file is still the one that was opened"
    else:
        assert name in found and "tensor " in found and "load the model again" in found


def test_python_reads_no_changed_file_either(checkpoint: Path) -> None:
    from chatterbox_turbo_rs.checkpoint.tensor_file import TensorFile

    path = checkpoint / "t3_turbo_v1.safetensors"
    file = TensorFile(path)
    file.get("tfmr.wpe.weight")
    os.truncate(path, path.stat().st_size // 3)
    with pytest.raises(CheckpointError, match="has changed since it was opened"):
        file.get("tfmr.wpe.weight")
