"""What docs/server.md shows runs as it stands, but for the port."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from servers import Served, serving
from test_process import started

from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.audio.read import read

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "server.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[list[str]]:
    return [
        shlex.split(line[2:]) for block in blocks("console") for line in block.splitlines() if line.startswith(f"$ {program}")
    ]


@pytest.fixture
def kept(demo: ChatterboxTurbo, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server with a directory of voices; the clips are in the working directory."""
    shutil.copy(clip, tmp_path / "reference.wav")
    shutil.copy(clip.with_name("stereo.flac"), tmp_path / "somebody.wav")
    (tmp_path / "voices").mkdir()
    monkeypatch.chdir(tmp_path)
    with serving(demo, voices=tmp_path / "voices") as found:
        yield found


def test_the_first_command_serves() -> None:
    [arguments] = commands("chatterbox-turbo serve")
    assert arguments == ["chatterbox-turbo", "serve", "--model", "demo"]
    with started() as (_, base):
        assert base.startswith("http://127.0.0.1:")


def test_the_python_speaks(kept: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [code] = blocks("python")
    exec(compile(code.replace("http://127.0.0.1:8000", kept.url), "server.md", "exec"), {})
    samples, rate = read(tmp_path / "hello.mp3")
    assert capsys.readouterr().out == "7\n" and rate == 24_000 and len(samples) > 24_000


def test_the_commands_speak_upload_convert_and_delete(kept: Served, tmp_path: Path) -> None:
    found = commands("curl")
    assert len(found) == 4
    for arguments in found:
        line = [part.replace("http://127.0.0.1:8000", kept.url) for part in arguments]
        done = subprocess.run([*line, "-sSf"], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "hello.wav").stat().st_size > 20_000
    assert soundfile.info(tmp_path / "converted.wav").duration > 9 and not list((tmp_path / "voices").iterdir())


def test_the_defaults_that_it_tells_are_those_of_the_command() -> None:
    from chatterbox_turbo_rs.cli.serve import command

    defaults = {parameter.opts[0]: parameter.default for parameter in command.params}
    told = {
        "--max-input": (100_000, "at most 100,000 characters (`--max-input`)"),
        "--max-upload": (25.0, "at most 25 MB (`--max-upload`)"),
        "--batch": (8, "up to `--batch` segments together (8)"),
        "--max-queue": (100, "`--max-queue` requests (100)"),
        "--drain": (30.0, "`--drain` seconds (30)"),
    }
    for option, (value, words) in told.items():
        assert defaults[option] == value and words in DOCUMENT, option
