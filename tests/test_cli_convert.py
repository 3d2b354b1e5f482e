"""``chatterbox-turbo convert``: files and pipes, what it prints, what it refuses, and that T3 stays where it is."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from toy_model import TOY

from chatterbox_turbo_rs.cli.main import main
from chatterbox_turbo_rs.engine import registry

TOY_SEED = ["--model", TOY, "--seed", "1"]


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """Runs ``convert`` in ``tmp_path``; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["convert", *map(str, arguments)])
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def somebody(tmp_path) -> Path:
    path = tmp_path / "somebody.wav"
    t = np.arange(22_050) / 22_050
    soundfile.write(path, 0.2 * np.sin(2 * np.pi * 150 * t) * np.sin(2 * np.pi * 3 * t), 22_050)
    return path


def refused(result: tuple[int, str, str], expected: int, *parts: str) -> None:
    code, out, err = result
    assert (code, out) == (expected, ""), result
    assert re.fullmatch(r"chatterbox-turbo[a-z ]*: [^\n]+\n", err), err
    assert all(part in err for part in parts), err


def test_a_file_becomes_a_file(command, somebody, clip, tmp_path):
    code, out, err = command(somebody, "--voice", clip, "-o", "x.flac", *TOY_SEED)
    assert code == 0 and err == ""
    lines = out.splitlines()
    assert lines[0].split() == ["stage", "side", "seconds"]
    stages = [line.split()[0] for line in lines[1:-1]]
    assert {"reference.load", "s3tokenizer.tokens", "s3gen.flow", "watermark", "load"} <= set(stages)
    assert not any(stage.startswith("t3") for stage in stages)
    assert re.search(r"x\.flac: 1\.00 s of sound in .*, real-time factor .*, seed 1", out)
    samples, rate = soundfile.read(tmp_path / "x.flac")
    assert rate == 24_000 and len(samples) == 24_000 and samples.any()
    assert command(somebody, *TOY_SEED)[0] == 0
    assert sorted(os.listdir(tmp_path)) == ["converted.wav", "somebody.wav", "x.flac"]


def test_as_json(command, somebody, clip):
    plan = ["--backends", "rust,reference.load=python", "--watermark", "none", "--precision", "f32"]
    code, out, err = command(somebody, "--voice", clip, "-o", "x.wav", "--json", *TOY_SEED, *plan)
    assert code == 0 and err == ""
    done = json.loads(out)
    assert (done["source"], done["output"], done["seed"], done["watermarked"]) == (str(somebody), "x.wav", 1, False)
    assert done["plan"]["reference.load"] == "python" and done["plan"]["s3gen.flow"] == "rust"
    assert done["tokens"] == done["seconds"] * 25 == 25 and done["sample_rate"] == 24_000
    assert done["precision"] == "f32" and done["real_time_factor"] > 0 and done["load_seconds"] > 0
    assert "t3" not in done["timings"] and done["timings"]["s3gen.flow"] > 0


def test_through_pipes(command, somebody, clip, monkeypatch, tmp_path, capsys):
    """What is printed beside a sound on standard output goes to standard error."""
    assert command(somebody, "--voice", clip, "-o", "x.wav", *TOY_SEED)[0] == 0
    expected = (tmp_path / "x.wav").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(somebody.read_bytes())))
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out))
    assert main(["convert", "-", "--voice", str(clip), "-o", "-", "--json", *TOY_SEED]) == 0
    assert out.getvalue() == expected and json.loads(capsys.readouterr().err)["output"] == "-"


def test_the_options_reach_the_model(command, somebody, clip):
    results = []
    other = ["--voice", str(clip.with_name("stereo.flac"))]  # the toy's own voice is made of ``clip``
    for change in ([], ["--seed", "2"], other, [*other, "--loudness", "none"]):
        assert command(somebody, "--watermark", "none", *TOY_SEED, *change)[0] == 0
        results.append(Path("converted.wav").read_bytes())
    assert len(set(results)) == 4
    assert command(somebody, *TOY_SEED)[0] == 0
    assert Path("converted.wav").read_bytes() not in results


def test_t3_is_not_loaded(command, somebody, monkeypatch):
    real = registry.load

    def load(key: str, *rest: object) -> object:
        assert not key.startswith(("t3.", "text.")), f"{key} was loaded"
        return real(key, *rest)

    monkeypatch.setattr(registry, "load", load)
    code, _, err = command(somebody, *TOY_SEED)
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    ("code", "arguments", "parts"),
    [
        (2, [], ["Missing argument 'IN'"]),
        (2, ["a.wav", "b.wav"], ["unexpected extra argument"]),
        (2, ["a.wav", "-o", "x.txt"], ["x.txt: expected a name ending in .wav"]),
        (1, ["a.wav", "-o", "nowhere/x.wav"], ["nowhere/x.wav: cannot be written", "no directory nowhere"]),
        (1, ["nowhere.wav"], ["nowhere.wav: No such file"]),
        (1, ["."], [".: is a directory"]),
        (1, ["a.wav", "--voice", "nowhere.wav"], ["nowhere.wav: No such file"]),
        (2, ["a.wav", "--seed", "-1"], ["seed: expected a whole number from 0"]),
        (2, ["a.wav", "--seed", "x"], ["--seed", "'x' is not a valid integer"]),
        (2, ["a.wav", "--watermark", "x"], ["--watermark", "'x' is not one of 'perth', 'none'"]),
        (2, ["a.wav", "--backends", "t9=rust"], ["unknown stage 't9'"]),
        (2, ["a.wav", "--device", "tpu"], ["device"]),
        (2, ["a.wav", "--temperature", "1"], ["No such option", "--temperature"]),
        (1, ["a.wav", "--model", "/nowhere"], ["/nowhere: no such directory"]),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(command, tmp_path, code, arguments, parts):
    (tmp_path / "a.wav").write_bytes(b"")
    refused(command(*arguments), code, *parts)
    assert os.listdir(tmp_path) == ["a.wav"]


def _wav(samples: np.ndarray) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, 16_000, format="WAV", subtype="FLOAT")
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "not an audio file"),
        (b"just text, and a\nsecond line", "not an audio file"),
        (_wav(np.zeros(16_000)), "expected sound, got silence (1.00 s"),
        (_wav(np.ones(800)), "must be longer than 0.1 s, got 0.050 s"),
        (_wav(np.full(16_000, np.nan)), "finite"),
    ],
    ids=["empty", "text", "silence", "50 ms", "NaN"],
)
def test_sources_that_are_refused(command, monkeypatch, tmp_path, content, part):
    (tmp_path / "a.wav").write_bytes(content)
    refused(command("a.wav", *TOY_SEED), 1, "a.wav: ", part)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    refused(
        command("-", *TOY_SEED),
        1,
        "source: " if content else "standard input: expected a sound file, found none",
        part if content else "",
    )
    assert os.listdir(tmp_path) == ["a.wav"]


def test_standard_input_that_is_closed(command, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    refused(command("-", *TOY_SEED), 1, "standard input: expected a sound file, found it closed")
