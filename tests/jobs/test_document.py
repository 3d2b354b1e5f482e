"""docs/books.md: its commands and its Python run as they stand, with the toy in place of downloads."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from books import EPUB3, TEXT, epub
from toy_model import TOY

TESTS = Path(__file__).resolve().parents[1]
DOCUMENT = (TESTS.parent / "docs" / "books.md").read_text("utf-8")
COMMAND = "import sys; from chatterbox_turbo_rs.cli.main import main; sys.exit(main(sys.argv[1:]))"
QUICK = ["--model", TOY, "--max-tokens", "8", "--attempts", "0"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, clip):
    (tmp_path / "reference.wav").symlink_to(clip)
    (tmp_path / "novel.epub").write_bytes(epub(EPUB3))
    (tmp_path / "notes.md").write_text("# One\n\nWords.\n\n# Two\n\nMore words.\n")
    (tmp_path / "story.txt").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_commands_run(folder):
    lines = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
    assert len(lines) == 4 and sum("--ray" in line for line in lines) == 1
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "chatterbox-turbo"
        told = alone(COMMAND, *arguments, *QUICK)
    assert "story.flac: 2 chapters" in told
    assert all((folder / name).stat().st_size > 10_000 for name in ("novel.m4b", "notes.mp3", "story.flac"))
    assert (folder / "notes.srt").read_text().count(" --> ") == 4
    alone(COMMAND, "book", "story.txt", "-o", "alone.flac", *QUICK)
    assert (folder / "alone.flac").read_bytes() == (folder / "story.flac").read_bytes(), "Ray changes no sample"


def alone(program: str, *arguments: str) -> str:
    """What a program prints, in a process of its own: Ray may end the process that it is in."""
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_deployment_answers():
    [code] = blocks("python")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    body = json.dumps({"input": "Good morning.", "response_format": "wav"})
    before = f"""import sys, urllib.request; sys.path.insert(0, {str(TESTS)!r})
from ray_cluster import started
started()
from ray import serve
serve.start(http_options={{"port": {port}}})
"""
    after = f"""
request = urllib.request.Request("http://127.0.0.1:{port}/v1/audio/speech", {body.encode()!r}, {{"Content-Type": "application/json"}})
with urllib.request.urlopen(request, timeout=200) as answer:
    print(answer.status, answer.read(4))
serve.shutdown()
"""
    assert alone(before + code.replace('"turbo"', repr(TOY)).replace("1000", "20") + after).splitlines().count("200 b'RIFF'") == 1
