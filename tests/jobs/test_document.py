"""docs/books.md: its commands and its Python run as they stand, with the toy in place of downloads."""

from __future__ import annotations

import json
import re
import shlex
import socket
import urllib.request
from pathlib import Path

import pytest
from books import EPUB3, TEXT, epub
from ray_cluster import started
from toy_model import TOY

from chatterbox_turbo_rs.cli.main import main

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "books.md").read_text("utf-8")
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


def test_commands_run(folder, capsys):
    lines = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
    assert len(lines) == 4 and sum("--ray" in line for line in lines) == 1
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "chatterbox-turbo" and main([*arguments, *QUICK]) == 0, line
        told = capsys.readouterr().out
    assert "story.flac: 2 chapters" in told
    assert all((folder / name).stat().st_size > 10_000 for name in ("novel.m4b", "notes.mp3", "story.flac"))
    assert (folder / "notes.srt").read_text().count(" --> ") == 4
    alone = ["book", "story.txt", "-o", "alone.flac", *QUICK]
    assert main(alone) == 0 and (folder / "alone.flac").read_bytes() == (folder / "story.flac").read_bytes(), (
        "Ray changes no sample"
    )


def test_the_deployment_answers():
    import ray
    from ray import serve

    [code] = blocks("python")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started()
    try:
        serve.start(http_options={"port": port})
        exec(compile(code.replace('"turbo"', repr(TOY)), "books.md", "exec"), {})
        body = json.dumps({"input": "Good morning.", "response_format": "wav"}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/audio/speech", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            assert answer.status == 200 and answer.read(4) == b"RIFF"
    finally:
        serve.shutdown()
        ray.shutdown()
