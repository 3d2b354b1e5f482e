"""The README's commands and Python run as they stand, with the toy and a committed clip in place of downloads."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import wave
from pathlib import Path

import pytest
from toy_model import TOY

from chatterbox_turbo_rs.cli.main import main
from chatterbox_turbo_rs.engine import registry
from make_book import as_epub

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY = "https://github.com/chatterbox-turbo-rs/chatterbox-turbo-rs/blob/main/"
CLIP = ROOT / "tests" / "data" / "clips" / "short.flac"
README = (ROOT / "README.md").read_text("utf-8")
LONG_TEXT = (ROOT / "docs" / "long-text.md").read_text("utf-8")
CONVERSION = (ROOT / "docs" / "conversion.md").read_text("utf-8")
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "ARCHITECTURE.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
)


def blocks(language: str, document: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document, re.MULTILINE | re.DOTALL)


def commands(document: str) -> list[list[str]]:
    """Arguments of each command that a document shows."""
    lines = [
        line[2:] for block in blocks("console", document) for line in block.splitlines() if line.startswith("$ chatterbox-turbo")
    ]
    return [shlex.split(line)[1:] for line in lines]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "reference.wav").symlink_to(CLIP)
    (tmp_path / "somebody.wav").symlink_to(CLIP.with_name("stereo.flac"))
    (tmp_path / "lines.txt").write_text("Good morning.\nHow are you?\n")
    as_epub([("The Well", ["It was late."]), ("The Road", ["It rained."])], tmp_path / "novel.epub")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_runs(folder):
    names: dict = {}
    found = blocks("python")
    assert len(found) >= 3
    for block in found:
        code = block.replace('from_pretrained("turbo")', f"from_pretrained({TOY!r})").replace(
            "voice=voice, seed=7)", "voice=voice, seed=7, max_tokens=40)"
        )
        if registry.missing("t3.decoder", "python") or registry.missing("watermark", "python"):
            code = code.replace('"python,s3gen.vocoder=rust"', '"text=python,s3gen.vocoder=rust"')  # without PyTorch
        code = code.replace("seeds=7)", "seeds=7, max_tokens=40)")
        code = code.replace('"Hello.", backends', '"Hello.", max_tokens=40, backends')
        exec(compile(code, "README.md", "exec"), names)
    assert (folder / "hello.wav").stat().st_size > 10_000
    assert (folder / "converted.wav").stat().st_size > 400_000
    assert (folder / "somebody.safetensors").exists()
    assert all((folder / f"line-{number}.wav").stat().st_size > 10_000 for number in range(3))


def test_python_of_the_streaming_document_runs(folder, capsys):
    names: dict = {}
    for block in blocks("python", (ROOT / "docs" / "streaming.md").read_text("utf-8")):
        code = block.replace('from_pretrained("turbo")', f"from_pretrained({TOY!r})").replace("seed=7)", "seed=7, max_tokens=60)")
        exec(compile(code, "streaming.md", "exec"), names)
    length = int(capsys.readouterr().out)
    expected = names["tts"].generate("Nobody else waits for this.", seed=7, max_tokens=60)
    assert length == len(expected)
    with wave.open(str(folder / "hello.wav")) as file:
        assert file.getnframes() > 24_000 and file.getframerate() == 24_000


def test_commands_of_the_streaming_document_run():
    """As they stand, but for the model and the player behind the pipe."""
    lines = [
        line[2:]
        for block in blocks("console", (ROOT / "docs" / "streaming.md").read_text("utf-8"))
        for line in block.splitlines()
    ]
    assert len(lines) == 2
    program = "import sys; from chatterbox_turbo_rs.cli.main import main; sys.exit(main(sys.argv[1:]))"
    for line in lines:
        command, player = line.split(" | ")
        assert player.startswith("aplay")
        arguments = [*shlex.split(command)[1:], "--model", TOY, "--max-tokens", "40"]
        done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, check=False, timeout=120)
        assert done.returncode == 0 and len(done.stdout) > 20_000, done.stderr
        assert done.stdout.startswith(b"RIFF") != ("pcm" in line)


def test_commands_run(folder, capsys):
    found = commands(README)
    assert len(found) >= 2 and "convert" in [arguments[0] for arguments in found]
    for arguments in found:
        if arguments[0] == "serve":  # until it is stopped: tests/serve/test_server_document.py
            continue
        if arguments[0] in ("say", "convert", "book"):
            arguments += ["--model", TOY]
        if arguments[0] in ("say", "book"):
            arguments += ["--max-tokens", "40"]
        assert main(arguments) == 0, arguments
    assert "real-time factor" in capsys.readouterr().out
    assert (folder / "demo.wav").exists() and (folder / "hello.wav").exists()
    assert (folder / "speech" / "002.wav").exists() and (folder / "novel.m4b").stat().st_size > 10_000


def test_the_document_of_long_text_runs(folder, capsys):
    [code] = blocks("python", LONG_TEXT)
    names: dict = {}
    exec(compile(code.replace("split=Split(", "max_tokens=40, split=Split(attempts=0, "), "long-text.md", "exec"), names)
    told = [segment.text for segment in names["speech"].segments]
    assert told == ["It was late. Nobody had come, and nobody would.", "Or so we thought.", "The next day it rained."]
    assert (folder / "long.srt").read_text().count(" --> ") == 3
    assert capsys.readouterr().out.startswith("0 0.8 It was late.")


def test_the_document_of_conversion_runs(folder, capsys):
    [code] = blocks("python", CONVERSION)
    names: dict = {}
    exec(compile(code.replace('from_pretrained("turbo"', f"from_pretrained({TOY!r}"), "conversion.md", "exec"), names)
    assert abs(names["speech"].seconds - 9.5) <= 0.04 and (folder / "converted.wav").stat().st_size > 400_000
    spoken = (folder / "converted.wav").read_bytes()
    found = commands(CONVERSION)
    assert len(found) == 2
    for arguments in found:
        assert main([*arguments, "--model", TOY]) == 0, arguments
    assert (folder / "converted.wav").read_bytes() == spoken, "the command and the Python make the same sound"
    printed = capsys.readouterr().out.splitlines()
    done = json.loads(printed[-1])
    assert done["output"] == "converted.flac" and done["seconds"] == names["speech"].seconds


def test_targets_named_in_the_documents_exist():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for document in DOCUMENTS:
        for target in re.findall(r"`make ([a-z-]+)`", (ROOT / document).read_text("utf-8")):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{document}: make {target}"


def test_examples_named_in_the_readme_exist_and_are_run_by_the_tests():
    named = set(re.findall(r"^\$ (cargo run .*-p chatterbox-turbo --example \w+)", README, re.MULTILINE))
    assert named
    for command in named:
        name = command.split()[-1]
        assert (ROOT / "rust" / "core" / "examples" / f"{name}.rs").is_file()
        assert f"/release/examples/{name} " in (ROOT / "Makefile").read_text("utf-8")


def test_links_are_absolute_in_the_readme_and_lead_somewhere():
    """PyPI shows the README without the repository around it."""
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#\s]+)", (ROOT / document).read_text("utf-8")):
            path = link.removeprefix(REPOSITORY)
            if document == "README.md":
                assert link.startswith("https://"), link
            if not path.startswith("https://"):
                base = ROOT if path != link else (ROOT / document).parent
                assert (base / path).exists(), f"{document}: {link}"
