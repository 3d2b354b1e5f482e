"""``say --texts``: a sound file for every line, errors of single lines, and one line for bad input."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import weakref

import pytest
import soundfile
from toy_model import TOY

from chatterbox_turbo_rs import ChatterboxTurbo, Speech
from chatterbox_turbo_rs.cli.main import main

SHORT = ["--model", TOY, "--max-tokens", "6", "--seed", "4"]


@pytest.fixture
def say(capsys, monkeypatch, tmp_path):
    """Runs ``say`` in ``tmp_path``, where ``lines.txt`` is; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lines.txt").write_bytes("\ufeffHello there.\r\n\n  Good morning. \nÄh …".encode())

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main(["say", *map(str, arguments)])
        return (code, *capsys.readouterr())

    return run


def test_every_line_becomes_the_file_of_its_number(say, tmp_path):
    code, out, err = say("--texts", "lines.txt", "-o", "out", *SHORT)
    assert code == 0
    assert err == "chatterbox-turbo: lines.txt: cut off at max_tokens=6 before the text was over: lines 1, 3, 4\n"
    assert sorted(os.listdir(tmp_path / "out")) == ["001.wav", "003.wav", "004.wav"]
    *files, last = out.splitlines()
    files.sort()  # they are said in the order in which they were finished
    assert [line.split(":")[0] for line in files] == ["out/001.wav", "out/003.wav", "out/004.wav"]
    assert [line.rpartition(" ")[2] for line in files] == ["4", "5", "6"]
    assert re.fullmatch(r"out: 3 of 3 texts, \d\.\d\d s of sound in .* s, real-time factor .*", last)
    tts = ChatterboxTurbo.from_pretrained(TOY)
    for name, text, seed in (("001", "Hello there.", 4), ("003", "Good morning.", 5), ("004", "Äh …", 6)):
        tts.generate(text, seed=seed, max_tokens=6).save("alone.wav")
        assert (tmp_path / "out" / f"{name}.wav").read_bytes() == (tmp_path / "alone.wav").read_bytes()


def test_standard_input_json_and_an_existing_directory(say, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"One.\nTwo.\n"), "ascii"))
    (tmp_path / "speech").mkdir()
    code, out, err = say("--texts", "-", "--json", "--batch", "1", "--watermark", "none", *SHORT)
    assert code == 0 and err.startswith("chatterbox-turbo: -: cut off") and err.count("\n") == 1
    done = json.loads(out)
    assert done["output"] == "speech" and done["real_time_factor"] > 0 and done["load_seconds"] > 0
    assert done["precision"] == ChatterboxTurbo.from_pretrained(TOY).precision != "auto"
    assert [(text["line"], text["text"], text["seed"], text["watermarked"]) for text in done["texts"]] == [
        (1, "One.", 4, False),
        (2, "Two.", 5, False),
    ]
    assert [text["finish_reason"] for text in done["texts"]] == ["length", "length"]
    for text in done["texts"]:
        assert soundfile.info(text["output"]).duration == text["seconds"] == text["tokens"] / 25
        assert text["timings"]["t3"] > 0
    assert done["seconds"] == sum(text["seconds"] for text in done["texts"])


def fails_at(word, monkeypatch):
    """Texts with ``word`` fail, as no text of valid UTF-8 does by itself."""
    usual = ChatterboxTurbo.iter_many

    def iter_many(self, texts, *arguments, **options):
        return usual(self, [text.replace(word, "\udcff") for text in texts], *arguments, **options)

    monkeypatch.setattr(ChatterboxTurbo, "iter_many", iter_many)


def test_errors_of_lines_are_said_at_the_end(say, monkeypatch, tmp_path):
    fails_at("morning", monkeypatch)
    code, out, err = say("--texts", "lines.txt", "-o", "out", *SHORT)
    assert code == 1 and out.splitlines()[-1].startswith("out: 2 of 3 texts, ")
    cut, failed = err.splitlines(keepends=True)
    assert cut.endswith("lines 1, 4\n") and re.fullmatch(
        r"chatterbox-turbo: lines\.txt: line 3: text: [^\n]*U\+DCFF[^\n]*\n", failed
    )
    assert sorted(os.listdir(tmp_path / "out")) == ["001.wav", "004.wav"]
    code, out, _ = say("--texts", "lines.txt", "-o", "out", "--json", *SHORT)
    entry = json.loads(out)["texts"][1]
    assert code == 1 and (entry["line"], entry["kind"]) == (3, "TextError") and "U+DCFF" in entry["error"]


def test_no_line_that_can_be_spoken(say, monkeypatch, tmp_path):
    fails_at("", monkeypatch)
    code, out, _ = say("--texts", "lines.txt", "-o", "out", *SHORT)
    assert code == 1 and out.startswith("out: 0 of 3 texts, 0.00 s of sound in ") and not (tmp_path / "out").exists()
    code, out, _ = say("--texts", "lines.txt", "-o", "out", "--json", *SHORT)
    assert code == 1 and json.loads(out)["real_time_factor"] is None


def test_a_line_that_cannot_be_written_stops_no_other(say, monkeypatch, tmp_path):
    (tmp_path / "out" / "001.wav").mkdir(parents=True)
    code, _, err = say("--texts", "lines.txt", "-o", "out", "--batch", "1", *SHORT)
    assert code == 1 and "line 1: out/001.wav: expected a file name, found a directory" in err.replace(os.sep, "/")
    assert (tmp_path / "out" / "003.wav").is_file() and (tmp_path / "out" / "004.wav").is_file()
    assert sorted(os.listdir(tmp_path / "out")) == ["001.wav", "003.wav", "004.wav"]


def test_the_sound_of_a_line_is_not_kept(say, monkeypatch, tmp_path):
    (tmp_path / "book.txt").write_text("Hello.\n" * 12)
    spoken: list[weakref.ref] = []
    most = 0
    usual = Speech.save

    def save(speech: Speech, path: object) -> object:
        nonlocal most
        spoken.append(weakref.ref(speech))
        most = max(most, sum(found() is not None for found in spoken))
        return usual(speech, path)

    monkeypatch.setattr(Speech, "save", save)
    assert say("--texts", "book.txt", "-o", "out", "--batch", "2", "--json", *SHORT)[0] == 0
    assert len(spoken) == 12 and most <= 3


def test_a_line_is_said_when_its_file_is_there(say, monkeypatch, capsys):
    """Not at the end: who waits for a book sees where it is, and what was made before an interruption."""
    seen: list[list[str]] = []
    usual = Speech.save

    def save(speech: Speech, path: object) -> object:
        seen.append(capsys.readouterr().out.splitlines())
        return usual(speech, path)

    monkeypatch.setattr(Speech, "save", save)
    code, out, _ = say("--texts", "lines.txt", "-o", "out", "--batch", "1", *SHORT)
    assert code == 0 and [len(lines) for lines in seen] == [0, 1, 1] and len(out.splitlines()) == 2
    assert seen[1][0].startswith(f"out{os.sep}001.wav: ")


@pytest.mark.parametrize(
    ("code", "arguments", "parts"),
    [
        (2, [], ["say: expected a text or --texts FILE, got none of them"]),
        (2, ["Hello.", "--texts", "lines.txt"], ["say: expected a text or --texts FILE, got both"]),
        (1, ["--texts", "absent.txt"], ["absent.txt: No such file"]),
        (1, ["--texts", "."], [".: ", "directory"]),
        (1, ["--texts", "empty.txt"], ["empty.txt: expected a text on each line, found none"]),
        (1, ["--texts", "latin.txt"], ["latin.txt: expected UTF-8, found byte 0xe9 at 3"]),
        (1, ["--texts", "lines.txt", "-o", "lines.txt"], ["lines.txt: expected a directory, found a file"]),
        (1, ["--texts", "lines.txt", "-o", "no/where"], ["no/where: cannot be written: no directory no"]),
        (2, ["--texts", "lines.txt", "--batch", "0"], ["batch: expected a whole number from 1 to 1024, got 0"]),
        (2, ["--texts", "lines.txt", "--temperature", "nan"], ["temperature: expected a finite number"]),
        (1, ["--texts", "lines.txt", "--voice", "absent.wav"], ["absent.wav: No such file"]),
        (2, ["--texts", "lines.txt", "-o", "-"], ["--texts: expected -o DIRECTORY, got -"]),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(say, tmp_path, code, arguments, parts):
    (tmp_path / "empty.txt").write_text(" \n\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    before = sorted(tmp_path.rglob("*"))
    found, out, err = say(*arguments, "--model", TOY)
    assert (found, out) == (code, "") and re.fullmatch(r"chatterbox-turbo: [^\n]+\n", err), err
    assert all(part in err for part in parts), err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.name != "posix", reason="this system sends no SIGINT to one process")
def test_ctrl_c_while_texts_are_decoded_together(tmp_path):
    lines = tmp_path / "lines.txt"
    lines.write_text("This will be spoken for a while.\n" * 40)
    arguments = ["say", "--texts", str(lines), "-o", str(tmp_path / "out"), "--model", TOY, "--seed", "3"]
    # a program that tells when T3 is at work, so that the signal falls into it
    program = (
        "import signal, sys, chatterbox_turbo_rs.engine.batch as m, chatterbox_turbo_rs.cli.main as c\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "usual = m.Batch._together\n"
        "def together(*a):\n    print('working', flush=True)\n    return usual(*a)\n"
        "m.Batch._together = together\n"
        "sys.exit(c.main(sys.argv[1:]))\n"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], **pipes)
    try:
        assert process.stdout.readline() == "working\n"
        time.sleep(0.2)
        started = time.perf_counter()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (130, "", "chatterbox-turbo: interrupted\n")
    assert time.perf_counter() - started < 3
