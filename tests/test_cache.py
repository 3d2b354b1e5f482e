"""The cache of packed weights: the same sound with and without it, whatever happens to its files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from chatterbox_turbo_rs import ChatterboxTurbo, _core
from chatterbox_turbo_rs.cli.main import main
from chatterbox_turbo_rs.errors import ArgumentError, CheckpointError
from chatterbox_turbo_rs.model import PRECISIONS

HOUR = 3600
SPEAK = """
import hashlib, json, sys
from chatterbox_turbo_rs import ChatterboxTurbo, Voice
tts = ChatterboxTurbo.from_pretrained(sys.argv[1], precision="int8")
speech = tts.generate("Hello there.", voice=Voice.load(sys.argv[2]), seed=3, max_tokens=12)
print(json.dumps([hashlib.sha256(speech.samples.tobytes()).hexdigest(), tts._pipeline.resources.core.packed()]))
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    directory = tmp_path / "cache"
    monkeypatch.setenv("CHATTERBOX_CACHE", str(directory))
    return directory


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, to be changed."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


@pytest.fixture(scope="module")
def spoken(tiny_checkpoint: Path, clip: Path) -> Callable[[ChatterboxTurbo], bytes]:
    def speak(tts: ChatterboxTurbo) -> bytes:
        voice = tts.voice(clip)
        return (
            tts.generate("Hello there.", voice=voice, seed=3, max_tokens=12).samples.tobytes() + voice.t3_prompt_tokens.tobytes()
        )

    return speak


def load(directory: Path, precision: str = "int8") -> tuple[ChatterboxTurbo, dict[str, Any]]:
    """The model, and what became of each network's packed weights: "found", "packed" or what is wrong."""
    tts = ChatterboxTurbo.from_pretrained(directory, precision=precision)
    events = tts._pipeline.resources.core.packed()
    return tts, {e["network"]: e["trouble"] or ("found" if e["found"] else "packed") for e in events}


def files(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.packed"))


def sound(directory: Path, spoken: Callable[[ChatterboxTurbo], bytes], precision: str = "int8") -> bytes:
    """Without a cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHATTERBOX_CACHE", "off")
        tts, outcome = load(directory, precision)
    assert outcome == {}
    return spoken(tts)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_found_weights_give_the_same_bits(tiny_checkpoint, cache, spoken, precision):
    expected = sound(tiny_checkpoint, spoken, precision)
    first, packed = load(tiny_checkpoint, precision)
    again, found = load(tiny_checkpoint, precision)
    if precision == "auto" or "int" in precision:
        assert "t3" in packed
    assert set(packed.values()) <= {"packed"} and found == dict.fromkeys(packed, "found")
    assert len(files(cache)) == len(packed)
    assert spoken(first) == spoken(again) == expected


def test_other_precisions_and_levels_have_files_of_their_own(tiny_checkpoint, cache):
    load(tiny_checkpoint, "int8")
    names = {path.name for path in files(cache)}
    level = _core.build_info()["cpu_level"]
    assert all(f"-{level}-" in name for name in names) and any(name.startswith("t3-int8-") for name in names)
    load(tiny_checkpoint, "f32")
    assert names <= {path.name for path in files(cache)}
    _, outcome = load(tiny_checkpoint, "int4")
    assert outcome["t3"] == "packed" and names < {path.name for path in files(cache)}
    [int8], [int4] = cache.glob("t3-int8-*.packed"), cache.glob("t3-int4-*.packed")
    assert int4.stat().st_size < 0.8 * int8.stat().st_size
    int4.write_bytes(int8.read_bytes())
    _, outcome = load(tiny_checkpoint, "int4")
    assert "made from something else" in outcome["t3"], "int8's weights are not taken for int4's"


def test_many_starts_at_once(tiny_checkpoint, cache, clip, tmp_path, monkeypatch):
    voice = tmp_path / "voice.safetensors"
    with monkeypatch.context() as patch:
        patch.setenv("CHATTERBOX_CACHE", "off")
        load(tiny_checkpoint)[0].voice(clip).save(voice)
    command = [sys.executable, "-c", SPEAK, str(tiny_checkpoint), str(voice)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    done = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0] * 4, done[0][1]
    answers = [json.loads(out) for out, _ in done]
    assert len({digest for digest, _ in answers}) == 1
    assert all(event["trouble"] is None for _, events in answers for event in events)
    _, found = load(tiny_checkpoint)
    assert found and set(found.values()) == {"found"}
    assert not list(cache.rglob("*.packed-part"))


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 16
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a bit": _flip,
    "cut off": lambda path: os.truncate(path, path.stat().st_size - 100),
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(os.urandom(9000)),
    "a version before": lambda path: path.write_bytes(
        path.read_bytes().replace(b"chatterbox-turbo 0.", b"chatterbox-turbo 9.", 1)
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_anew(tiny_checkpoint, cache, spoken, damage, caplog):
    expected = sound(tiny_checkpoint, spoken)
    load(tiny_checkpoint)
    [path] = cache.glob("t3-*.packed")
    DAMAGES[damage](path)
    with caplog.at_level("INFO", "chatterbox_turbo_rs"):
        tts, outcome = load(tiny_checkpoint)
    assert outcome.pop("t3") not in ("found", "packed") and set(outcome.values()) <= {"found"}
    assert any("cache of packed weights: " in record.getMessage() and "(t3)" in record.getMessage() for record in caplog.records)
    assert spoken(tts) == expected
    tts, outcome = load(tiny_checkpoint)
    assert outcome["t3"] == "found" and spoken(tts) == expected


def test_where_nothing_can_be_written_nothing_fails(tiny_checkpoint, spoken, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CHATTERBOX_CACHE", str(tmp_path / "file" / "cache"))
    tts, outcome = load(tiny_checkpoint)
    assert outcome["t3"] not in ("found", "packed")
    assert spoken(tts) == sound(tiny_checkpoint, spoken)


def test_a_cache_that_cannot_be_written_is_one_warning_that_names_it(tiny_checkpoint, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("not a directory")
    monkeypatch.setenv("CHATTERBOX_CACHE", str(tmp_path / "file" / "cache"))
    load(tiny_checkpoint)
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert str(tmp_path / "file" / "cache") in warning and "t3" in warning and "vocoder" in warning


@pytest.mark.parametrize("spelling", ["OFF", "0", "false", "~/c"])
def test_spellings_of_the_switch_make_no_directory_of_that_name(tiny_checkpoint, tmp_path, monkeypatch, spelling):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CHATTERBOX_CACHE", spelling)
    before = set(tmp_path.iterdir())
    load(tiny_checkpoint)
    assert set(tmp_path.iterdir()) - before == ({tmp_path / "home"} if spelling == "~/c" else set())
    assert list(tmp_path.glob("home/c/*.packed")) if spelling == "~/c" else _core.cache_info() is None


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions bind neither root nor Windows")
def test_a_directory_that_may_only_be_read(tiny_checkpoint, cache):
    cache.mkdir(mode=0o555)
    _, outcome = load(tiny_checkpoint)
    assert "found" not in outcome.values() and not files(cache)


def test_the_limit(tiny_checkpoint, cache, monkeypatch):
    monkeypatch.setenv("CHATTERBOX_CACHE_GB", "0.0000001")
    _, outcome = load(tiny_checkpoint)
    assert "no room" in outcome["t3"] and "CHATTERBOX_CACHE_GB" in outcome["t3"] and not files(cache)
    monkeypatch.setenv("CHATTERBOX_CACHE_GB", "1")
    load(tiny_checkpoint)
    total = sum(path.stat().st_size for path in files(cache))
    old = cache / "t3-old.packed"
    old.write_bytes(bytes(total))
    os.utime(old, (0, 0))
    [t3] = cache.glob("t3-int8-*.packed")
    t3.unlink()
    monkeypatch.setenv("CHATTERBOX_CACHE_GB", str(1.5 * total / 1e9))
    _, outcome = load(tiny_checkpoint)
    assert outcome["t3"] == "packed" and not old.exists() and len(files(cache)) == len(outcome)


@pytest.mark.parametrize("limit", ["much", "-1", "nan"])
def test_a_limit_that_is_no_number(tiny_checkpoint, cache, monkeypatch, limit):
    monkeypatch.setenv("CHATTERBOX_CACHE_GB", limit)
    with pytest.raises(ArgumentError, match=f'CHATTERBOX_CACHE_GB: expected a number of gigabytes from 0 on, got "{limit}"'):
        load(tiny_checkpoint)


def test_a_changed_checkpoint_is_another_one(checkpoint, cache, spoken):
    weights = checkpoint / "t3_turbo_v1.safetensors"
    os.utime(weights, ns=(weights.stat().st_atime_ns, weights.stat().st_mtime_ns - HOUR * 10**9))
    before = weights.stat()
    tts, _ = load(checkpoint)
    first = spoken(tts)
    content = bytearray(weights.read_bytes())
    header = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + header])
    start, end = entries["tfmr.h.0.mlp.c_fc.weight"]["data_offsets"]
    values = np.frombuffer(content, np.float32, (end - start) // 4, 8 + header + start)
    values *= -1
    weights.write_bytes(content)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert weights.stat().st_size == before.st_size and weights.stat().st_mtime_ns == before.st_mtime_ns
    tts, outcome = load(checkpoint)
    assert outcome["t3"] == "packed" and outcome.pop("t3") and set(outcome.values()) <= {"found"}
    assert spoken(tts) == sound(checkpoint, spoken) != first


def test_a_copy_of_a_checkpoint_finds_what_the_first_packed(tiny_checkpoint, checkpoint, cache):
    load(tiny_checkpoint)
    assert set(load(checkpoint)[1].values()) == {"found"}


def test_another_configuration_packs_for_itself(checkpoint, cache):
    load(checkpoint)
    [before] = cache.glob("t3-*.packed")
    path = checkpoint / "config.json"
    config = json.loads(path.read_text())
    config["t3"]["norm_eps"] *= 2
    path.write_text(json.dumps(config))
    assert set(load(checkpoint)[1].values()) == {"packed"}
    # a whole file under another's name
    [after] = set(cache.glob("t3-*.packed")) - {before}
    shutil.copy(before, after)
    assert load(checkpoint)[1]["t3"] == "made from something else"
    assert set(load(checkpoint)[1].values()) == {"found"}


@pytest.mark.parametrize("value", [np.nan, None])
def test_a_faulty_checkpoint_is_refused_and_nothing_of_it_kept(checkpoint, cache, value):
    path = checkpoint / "t3_turbo_v1.safetensors"
    tensors = load_file(path)
    if value is None:
        del tensors["tfmr.h.0.mlp.c_fc.weight"]
    else:
        tensors["text_emb.weight"][3, 1] = value
    save_file(tensors, path)
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"tfmr\.h\.0\.mlp\.c_fc\.weight" if value is None else r"text_emb\.weight"):
            load(checkpoint)
    assert not list(cache.glob("t3-*"))


def test_digests_are_those_of_the_checkpoint(tiny_checkpoint, cache):
    load(tiny_checkpoint)
    config = (tiny_checkpoint / "config.json").read_text()
    recorded = _core.Checkpoint(str(tiny_checkpoint), config, record=True)
    _core.T3Decoder(recorded, "cpu", "int8")
    assert recorded.packed() == []
    names = load_file(tiny_checkpoint / "t3_turbo_v1.safetensors").keys()
    assert {name for name, entry in recorded.digests().items() if "sha256" in entry} | {
        "tfmr.wte.weight",
        "text_head.weight",
    } >= set(names)


def test_the_commands(tiny_checkpoint, cache, capsys, monkeypatch):
    load(tiny_checkpoint)
    assert main(["info"]) == 0
    assert f"cache of packed weights: {cache}, 0.0" in capsys.readouterr().out
    assert main(["cache", "show", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["directory"] == str(cache) and shown["limit"] == 8_000_000_000
    assert {entry["name"] for entry in shown["entries"]} == {path.stem for path in files(cache)}
    assert main(["cache", "show"]) == 0 and "t3-int8-" in capsys.readouterr().out
    assert main(["cache", "clear"]) == 0 and "GB removed" in capsys.readouterr().out
    assert not cache.exists()
    monkeypatch.setenv("CHATTERBOX_CACHE", "off")
    assert main(["cache", "show"]) == 0 and capsys.readouterr().out == "off\n"


@pytest.mark.skipif(sys.platform != "linux", reason="each system has its own place for caches")
def test_the_default_place(tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.delenv("CHATTERBOX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load(tiny_checkpoint)
    assert files(tmp_path / "chatterbox-turbo" / "packed")
