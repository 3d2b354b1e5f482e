"""The command's standard streams: characters that they do not know, none of them at all, sound through a pipe."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import subprocess
import sys
import threading
import time

import pytest
import soundfile
from test_cli import SHORT, process
from toy_model import TOY

from chatterbox_turbo_rs.cli.main import COMMANDS, main
from chatterbox_turbo_rs.cli.streams import Line, remark
from chatterbox_turbo_rs.progress import Bar

NAME = "日本 “ñ” →"
SAY = ["say", "Hello.", "--model", TOY, *SHORT]
CUT = r"chatterbox-turbo: the speech \(0\.3 s\): cut off at max_tokens=4 before [^\n]*\n"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_no_command_ends_in_a_traceback_where_output_knows_few_characters(tmp_path, clip, encoding):
    (tmp_path / f"{NAME}.txt").write_text("Grüße …\n", encoding="utf-8")
    voice = f"{NAME}.safetensors"
    runs = [
        *([name, "--help"] for name in COMMANDS),
        ["say", "Hi.", "--model", TOY, "-o", f"{NAME}.wav", *SHORT],
        ["say", "--texts", f"{NAME}.txt", "--model", TOY, "-o", NAME, *SHORT],
        ["voice", "prepare", str(clip), "--model", TOY, "-o", voice],
        ["voice", "show", voice],
        ["voice", "convert", voice, "-o", f"{NAME}.pt"],
        ["watermark", "detect", f"{NAME}/001.wav"],
        ["info"],
        ["cache", "show"],
        ["cache", "clear"],
        ["bench", "--model", TOY, "--seconds", "0.2", "--threads", "1", "--repeat", "1"],
        ["parity", "--model", TOY, "--mode", "isolated", "--stages", "text.normalize", "--allow-missing"],
    ]
    wrong = [["demo", "--voice", f"{NAME}.wav"], ["say", "--texts", NAME], ["demo", f"--{NAME}"], [NAME], ["download", NAME]]
    program = (
        "import json, sys\nfrom chatterbox_turbo_rs.cli.main import main\n"
        "codes = [main(run) for run in json.loads(sys.argv[1])]\n"
        "print(json.dumps(codes), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(runs + wrong)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": encoding, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0 and b"Traceback" not in done.stdout + done.stderr, done.stderr.decode("ascii", "replace")
    codes = json.loads(done.stderr.splitlines()[-1])
    found = dict(zip(map(str, runs + wrong), codes))
    assert set(codes[: len(runs)]) <= {0, 1} and found[str(["watermark", "detect", f"{NAME}/001.wav"])] in (0, 1), found
    assert {run: code for run, code in found.items() if code and "watermark" not in run} == dict(
        zip(map(str, wrong), [1, 1, 2, 2, 2])
    )
    assert rb"\u65e5\u672c" in done.stdout and rb"\u65e5\u672c" in done.stderr


def without(*names: str) -> str:
    """Lines that close standard streams, as ``>&-`` and pythonw do."""
    close = "import os, sys\n"
    for name in names:
        number = ("stdin", "stdout", "stderr").index(name)
        close += f"os.close({number}); sys.{name} = sys.__{name}__ = None\n"
    return close


@pytest.mark.parametrize("names", [("stdout",), ("stderr",), ("stdin", "stdout", "stderr")])
def test_output_that_is_closed_is_not_missed(tmp_path, names):
    done = process(*SAY, "-o", "x.wav", prepare=without(*names), cwd=tmp_path)
    assert done.returncode == 0 and re.fullmatch("" if "stderr" in names else CUT, done.stderr), done.stderr
    assert soundfile.info(tmp_path / "x.wav").duration > 0.1
    refused = process("demo", "--voice", "nowhere.wav", prepare=without(*names), cwd=tmp_path)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert process("demo", "--foo", prepare=without(*names), cwd=tmp_path).returncode == 2


def test_output_that_the_program_itself_closed(tmp_path):
    done = process("info", prepare="import sys\nsys.stdout.close()", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["say", "-", "--model", TOY], ["say", "--texts", "-", "--model", TOY]])
def test_input_that_is_closed_is_one_line(tmp_path, arguments):
    done = process(*arguments, prepare=without("stdin"), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "chatterbox-turbo: standard input: expected a text, found it closed\n")
    assert os.listdir(tmp_path) == []


def test_no_file_takes_the_place_of_a_stream_that_is_closed(tmp_path):
    """What libraries print to descriptor 1 would land in the first file that is opened."""
    seen = "import os\nimport chatterbox_turbo_rs.cli.streams as s\nfirst = s.prepare\n"
    seen += "def prepare():\n    first()\n    with open('seen.txt', 'w') as f: f.write(str(f.fileno()))\ns.prepare = prepare"
    assert process("--version", prepare=without("stdin", "stdout", "stderr") + seen, cwd=tmp_path).returncode == 0
    assert int((tmp_path / "seen.txt").read_text()) > 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["info"], ["--help"], [*SAY, "-o", "-"]])
def test_output_that_is_full_is_one_line(arguments):
    with open("/dev/full", "w") as full:
        done = process(*arguments, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "No space left" in done.stderr.splitlines()[-1]


def piped(*arguments: object) -> tuple[bytes, str]:
    done = process(*SAY, "-o", "-", *arguments, text=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr.decode()


def test_wav_through_a_pipe(tmp_path):
    sound, said = piped()
    riff, size, wave = struct.unpack("<4sI4s", sound[:12])
    assert (riff, wave, size) == (b"RIFF", b"WAVE", len(sound) - 8)
    at = sound.index(b"data")
    assert struct.unpack("<I", sound[at + 4 : at + 8])[0] == len(sound) - at - 8
    assert soundfile.info(io.BytesIO(sound)).duration > 0.1
    warning, *table = said.splitlines()
    assert "cut off at max_tokens=4" in warning and table[0].startswith("stage") and "real-time factor" in table[-1]
    process(*SAY, "-o", tmp_path / "x.wav")
    assert sound == (tmp_path / "x.wav").read_bytes()
    again, said = piped("--json")
    assert again == sound and json.loads(said.splitlines()[-1])["output"] == "-"


def test_a_stream_through_a_pipe_has_one_header(tmp_path):
    long = ["--max-tokens", "60", "--seed", "1"]
    say = ["say", "Hello there.", "--model", TOY, *long]
    assert process(*say, "-o", tmp_path / "whole.wav").returncode == 0
    whole = (tmp_path / "whole.wav").read_bytes()
    done = process(*say, "--stream", "-o", "-", text=False)
    assert done.returncode == 0, done.stderr
    head, samples = done.stdout[:44], done.stdout[44:]
    assert struct.unpack("<4sI4s4sIHHIIHH4sI", head) == (
        (b"RIFF", 0xFFFFFFFF, b"WAVE", b"fmt ", 16, 1, 1, 24_000, 48_000, 2, 16, b"data", 0xFFFFFFFF)
    )
    assert b"RIFF" not in samples and b"WAVE" not in samples and samples == whole[-len(samples) :] and len(samples) > 100_000
    assert soundfile.read(io.BytesIO(done.stdout), dtype="int16")[0].tobytes() == samples
    assert "the first after" in done.stderr.decode().splitlines()[-1]
    raw = process(*say, "--stream", "-o", "-", "--format", "pcm", "--json", text=False)
    assert raw.stdout == samples
    facts = json.loads(raw.stderr.splitlines()[-1])
    assert (facts["output"], facts["seed"], facts["finish_reason"], facts["latency"]) == ("-", 1, "length", "sentence")
    assert (
        facts["seconds"] == len(samples) / 48_000
        and 0 < facts["first_sound_seconds"] < facts["seconds"] * facts["real_time_factor"]
    )


def test_a_stream_is_heard_before_it_is_over():
    program = "import sys\nfrom chatterbox_turbo_rs.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    say = ["say", "Hello.", "--model", TOY, "--max-tokens", "1000", "--seed", "1", "--stream", "-o", "-"]
    with subprocess.Popen([sys.executable, "-c", program, *say], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as speaking:
        assert speaking.stdout is not None and speaking.stdout.read(44 + 4000)[:4] == b"RIFF"
        assert speaking.poll() is None, "it was over before anything came"
        speaking.stdout.close()
        assert speaking.wait(30) == 1


@pytest.mark.parametrize("ending", ["wav", "flac", "pcm", "ogg"])
def test_a_stream_into_a_file(tmp_path, ending):
    long = ["--max-tokens", "40", "--seed", "1"]
    for name, more in (("whole", []), ("stream", ["--stream"])):
        done = process("say", "Hello.", "--model", TOY, "-o", tmp_path / f"{name}.{ending}", *more, *long)
        assert done.returncode == 0 and f"{name}.{ending}: " in done.stdout, done.stderr
    whole, stream = ((tmp_path / f"{name}.{ending}").read_bytes() for name in ("whole", "stream"))
    if ending == "ogg":  # whose files have a random number
        sounds = [soundfile.read(tmp_path / f"{name}.ogg")[0] for name in ("whole", "stream")]
        assert len(sounds[0]) == len(sounds[1]) and abs(sounds[0] - sounds[1]).max() < 0.05
    else:
        assert stream == whole
    assert sorted(os.listdir(tmp_path)) == [f"stream.{ending}", f"whole.{ending}"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stream", "-o", "-", "--format", "flac"], "--format: expected wav or pcm with --stream -o -, got flac"),
        (["--stream", "-o", "x.txt"], "x.txt: expected a name ending in .wav"),
        (["--stream", "--latency", "never"], "Invalid value for '--latency'"),
    ],
)
def test_streams_that_cannot_be_are_refused(arguments, message):
    done = process("say", "Hello.", "--model", TOY, *arguments)
    assert done.returncode == 2 and message in done.stderr and done.stdout == ""
    done = process("say", "Hello.", "--model", "demo", "--latency", "low")
    assert done.returncode == 2 and "--latency low: expected --stream with it" in done.stderr
    done = process("say", "--texts", "nowhere.txt", "--stream")
    assert done.returncode == 2 and "--stream: expected a text, got --texts" in done.stderr


def test_a_format_has_the_last_word(tmp_path):
    done = process("say", "Hello.", "--model", TOY, "-o", tmp_path / "x.bin", "--format", "flac", *SHORT)
    assert done.returncode == 0 and soundfile.info(tmp_path / "x.bin").format == "FLAC", done.stderr


def test_a_pipe_whose_reader_goes_away_is_no_remark():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        done = process(*SAY, "-o", "-", capture_output=False, stdout=pipe, stderr=subprocess.PIPE)
    assert done.returncode == 1 and re.fullmatch(CUT, done.stderr), done.stderr


def test_no_sound_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["say", "Hello.", "--model", TOY, "-o", "-"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("chatterbox-turbo: -o -: expected a pipe") and err.count("\n") == 1


def test_no_sound_where_output_is_closed(tmp_path):
    done = process(*SAY, "-o", "-", prepare=without("stdout"), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "chatterbox-turbo: -: cannot be written: standard output is closed\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_have_their_own_place(monkeypatch):
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    bar = Line()
    for number in range(3):
        bar("t3", number, 9)
        with bar.aside():
            remark(f"line {number}")
    lines = [line.rpartition("\r")[2] for line in shown.getvalue().split("\n")[:-1]]
    assert lines == [f"chatterbox-turbo: line {number}" for number in range(3)] and shown.getvalue().count("t3") == 3


def test_a_line_waits_for_the_thread_that_draws(monkeypatch):
    begun, seen = threading.Event(), []

    def draw(*_: object) -> None:
        begun.set()
        time.sleep(0.1)
        seen.append("drawn")

    monkeypatch.setattr(Bar, "__call__", draw)
    bar = Line()
    thread = threading.Thread(target=bar, args=("t3", 1, 2))
    thread.start()
    assert begun.wait(10)
    with bar.aside():
        seen.append("line")
    thread.join()
    assert seen == ["drawn", "line"]
