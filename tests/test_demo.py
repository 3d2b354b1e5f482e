"""The embedded model, whatever it has learnt: its files, ``"demo"`` in Python and in the command, what is said of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from toy_model import TOY

from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.checkpoint import config, locate
from chatterbox_turbo_rs.cli.main import main
from chatterbox_turbo_rs.errors import CheckpointError

LIMIT = 20_000_000
"""Bytes that it may take."""


def test_it_is_complete_and_small():
    directory = locate.embedded()
    files = locate.files(config.read(directory / locate.CONFIG))
    assert {file.name for file in directory.iterdir()} == {*files, locate.CONFIG, locate.CARD, locate.CLIP}
    assert sum(file.stat().st_size for file in directory.iterdir()) <= LIMIT


def test_it_loads_and_speaks(clip):
    tts = ChatterboxTurbo.from_pretrained("demo")
    assert tts.config["name"] == "demo" and tts.builtin_voice is not None
    for voice in (None, tts.voice(clip)):
        speech = tts.generate("Good morning.", voice=voice, seed=1, max_tokens=40)
        assert speech.watermarked and np.isfinite(speech.samples).all() and np.abs(speech.samples).max() > 0.01


def test_its_clip_is_of_its_voice():
    tts = ChatterboxTurbo.from_pretrained("demo", precision="f32", t3=False)
    voice = tts.voice(locate.embedded() / locate.CLIP)
    for name in ("speaker_embedding", "xvector", "s3gen_prompt_mel"):
        own, found = (getattr(one, name).ravel() for one in (tts.builtin_voice, voice))
        assert own @ found >= 0.99 * np.linalg.norm(own) * np.linalg.norm(found), name


def test_the_command_speaks_and_says_which_model_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["stage", "side", "seconds"]
    assert re.fullmatch(r"demo\.wav: \d+\.\d\d s of sound in .*, real-time factor .*, seed \d+", lines[-3])
    card = re.fullmatch(
        r"spoken by a small model of [\d.]+ MB that was trained for this package and has one voice: (.*)", lines[-2]
    )
    assert card and Path(card[1]).is_file()
    assert "chatterbox-turbo say --model turbo" in lines[-1] and "3 GB" in lines[-1]
    samples, rate = soundfile.read("demo.wav")
    assert rate == 24_000 and len(samples) > 24_000 and samples.any()
    assert [file.name for file in tmp_path.iterdir()] == ["demo.wav"]


def test_the_seed_of_the_command_is_that_of_its_help(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--help"]) == 0
    (seed,) = re.findall(r"--seed.*?\[default: (\d+)\]", capsys.readouterr().out, re.DOTALL)
    assert main(["demo", "--json", "--max-tokens", "4"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["seed"] == int(seed) and done["finish_reason"] == "length"


def test_say_tells_of_the_embedded_model_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    remarks = []
    for model in ("demo", TOY):
        assert main(["say", "Hi.", "--model", model, "--json", "--max-tokens", "4"]) == 0
        remarks.append(json.loads(capsys.readouterr().out)["remark"])
    assert remarks[0].count("\n") == 1 and locate.CARD in remarks[0] and remarks[1] is None


def test_an_installation_without_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locate, "embedded", lambda: tmp_path / "none")
    with pytest.raises(CheckpointError, match="^demo: this installation has no embedded model"):
        ChatterboxTurbo.from_pretrained("demo")
    assert main(["demo", "-o", str(tmp_path / "a.wav")]) == 1
    assert capsys.readouterr().err.startswith("chatterbox-turbo: demo: this installation has no embedded model")
