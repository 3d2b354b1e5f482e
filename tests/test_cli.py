"""The command: every subcommand, output that scripts read, one line and exit code 2 for wrong use and 1 for failure."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
import soundfile
from toy_model import TOY

import chatterbox_turbo_rs
from chatterbox_turbo_rs import Voice
from chatterbox_turbo_rs.audio.encode import FORMATS
from chatterbox_turbo_rs.checkpoint import locate
from chatterbox_turbo_rs.cli.main import SETTINGS, commands, main
from chatterbox_turbo_rs.engine import registry
from chatterbox_turbo_rs.errors import DownloadError

ROOT = Path(__file__).resolve().parents[1]
SHORT = ["--max-tokens", "4", "--seed", "1"]
SAY = ["say", "Hello there.", "--model", TOY]


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """Runs the command in ``tmp_path``; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return (code, *capsys.readouterr())

    return run


def process(*arguments: object, prepare: str = "", **options) -> subprocess.CompletedProcess:
    program = f"{prepare}\nimport sys\nfrom chatterbox_turbo_rs.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    options = {"capture_output": True, "text": True, "timeout": 120, "cwd": ROOT} | options
    return subprocess.run(command, check=False, **options)


def refused(result: tuple[int, str, str], expected: int, *parts: str) -> None:
    code, out, err = result
    assert (code, out) == (expected, ""), result
    assert re.fullmatch(r"chatterbox-turbo[a-z ]*: [^\n]+\n", err), err
    assert all(part in err for part in parts), err


def test_say_prints_a_table(command, tmp_path):
    code, out, _ = command(*SAY, *SHORT)
    lines = out.splitlines()
    assert code == 0 and lines[0].split() == ["stage", "side", "seconds"]
    stages = [line.split()[0] for line in lines[1:-1]]
    assert {"text.normalize", "t3", "s3gen.flow", "watermark", "load"} <= set(stages)
    assert re.fullmatch(r"speech\.wav: 0\.\d\d s of sound in .*, real-time factor .*, seed 1", lines[-1])
    samples, rate = soundfile.read(tmp_path / "speech.wav")
    assert rate == 24_000 and samples.any() and os.listdir(tmp_path) == ["speech.wav"]


def test_a_voice_of_a_shorter_prompt(command, clip):
    code, out, err = command("voice", "prepare", clip, "-o", "x.safetensors", "--prompt-seconds", "2", "--model", TOY)
    assert code == 0 and out.startswith("x.safetensors: Voice(2.0 s prompt"), err
    assert len(Voice.load("x.safetensors").s3gen_prompt_mel) == 100
    refused(
        command("voice", "prepare", clip, "-o", "y.safetensors", "--prompt-seconds", "0.5", "--model", TOY),
        2,
        "prompt_seconds: expected seconds from 1 to 10, got 0.5",
    )


def test_say_as_json(command, tmp_path, clip):
    arguments = ["say", "hello [laugh]", "--model", TOY, "-o", "x.flac", "--voice", clip, "--json", *SHORT]
    code, out, err = command(*arguments, "--backends", "rust,text=python", "--watermark", "none")
    assert code == 0 and re.fullmatch(r"chatterbox-turbo: the speech \(0\.3 s\): cut off at max_tokens=4 before [^\n]*\n", err)
    done = json.loads(out)
    assert done["finish_reason"] == "length"
    assert (done["output"], done["seed"], done["text"], done["watermarked"]) == ("x.flac", 1, "Hello [laugh].", False)
    assert done["plan"]["text.tokenize"] == "python" and done["plan"]["t3.decoder"] == "rust"
    assert {"voice_encoder.embedding", "reference.load"}.isdisjoint(done["timings"]) and done["timings"]["t3"] > 0
    assert done["sample_rate"] == 24_000 and done["tokens"] == done["seconds"] * 25
    assert soundfile.info(tmp_path / "x.flac").duration == done["seconds"]
    assert done["real_time_factor"] > 0 and done["load_seconds"] > 0


@pytest.mark.parametrize("ending", FORMATS)
def test_every_format_is_an_ending(command, ending):
    code, out, _ = command(*SAY, "-o", f"x.{ending}", *SHORT)
    assert code == 0 and f"x.{ending}: " in out and Path(f"x.{ending}").stat().st_size > 500


def test_the_options_reach_the_model(command):
    results = []
    for change in (
        [],
        ["--temperature", "3"],
        ["--top-k", "1"],
        ["--top-p", "0.01"],
        ["--repetition-penalty", "3"],
        ["--seed", "2"],
    ):
        code, _, _ = command(*SAY, "--max-tokens", "30", "--seed", "1", "--watermark", "none", *change)
        assert code == 0
        results.append(Path("speech.wav").read_bytes())
    assert results[0] not in results[1:]


@pytest.mark.parametrize(
    ("stdin", "spoken"),
    [
        (b"hello\n", "Hello."),
        (b"\xef\xbb\xbfhello\n", "Hello."),
        ("grüße …\n".encode(), "Grüße,"),
    ],
)
def test_text_from_standard_input(command, monkeypatch, stdin, spoken):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "ascii"))
    code, out, _ = command("say", "-", "--model", TOY, "--json", *SHORT)
    assert code == 0
    assert json.loads(out)["text"] == spoken


def test_standard_input_that_is_not_text(command, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ab\xff")))
    refused(command("say", "-", "--model", TOY), 1, "expected UTF-8", "0xff at 2")


def test_voice_prepare_show_convert_and_say(command, tmp_path, clip):
    code, out, err = command("voice", "prepare", clip, "-o", "v.safetensors", "--model", TOY, "--loudness", "rms")
    assert code == 0 and err == "" and out.startswith("v.safetensors: Voice(5.0 s prompt")
    code, out, _ = command("voice", "show", "v.safetensors")
    assert code == 0 and "speaker_embedding" in out and "voice_encoder" in out
    code, out, _ = command("voice", "show", "v.safetensors", "--json")
    shown = json.loads(out)
    assert shown["arrays"]["xvector"] == ["float32", 192] and len(shown["metadata"]["source"]) == 64
    assert command("voice", "convert", "v.safetensors", "-o", "v.pt")[0] == 0
    assert command("voice", "convert", "v.pt", "-o", "back.safetensors")[0] == 0
    first, back = Voice.load("v.safetensors"), Voice.load("back.safetensors")
    for name in shown["arrays"]:
        np.testing.assert_array_equal(getattr(first, name), getattr(back, name))
    sounds = set()
    for voice in ("v.safetensors", "v.pt", "back.safetensors"):
        assert command("say", "Hi.", "--model", TOY, "--voice", voice, "-o", "s.wav", *SHORT)[0] == 0
        sounds.add((tmp_path / "s.wav").read_bytes())
    assert len(sounds) == 1
    assert command("voice", "prepare", clip, "-o", "direct.pt", "--model", TOY, "--loudness", "rms")[0] == 0
    np.testing.assert_array_equal(Voice.load("direct.pt").xvector, first.xvector)


def test_info(command):
    code, out, err = command("info")
    assert code == 0 and err == "" and out.startswith("chatterbox-turbo-rs ") and "device cpu: available" in out
    text = out
    code, out, _ = command("info", "--json")
    facts = json.loads(out)
    assert facts["devices"]["cpu"] is None and facts["stages"]["t3.decoder"]["rust"] is None
    reason = facts["stages"]["t3.decoder"]["python"]
    assert reason == registry.missing("t3.decoder", "python")
    assert reason is None or reason.endswith("pip install 'chatterbox-turbo-rs[torch]'")
    assert facts["version"] == facts["core"]["version"]
    core = facts["core"]
    assert core["cpu_level"] in core["cpu_levels"] and f"cpu level: {core['cpu_level']} (of {core['cpu_levels'][0]}" in text


def test_watermark_detect(command, tmp_path):
    for mark in ("perth", "none"):
        assert command(*SAY, "-o", f"{mark}.wav", "--watermark", mark, "--max-tokens", "120", "--seed", "1")[0] == 0
    code, out, err = command("watermark", "detect", "perth.wav")
    assert code == 0 and err == "" and re.search(r"perth\.wav: watermarked \(confidence (0\.9|1\.0)", out)
    code, out, _ = command("watermark", "detect", "none.wav", "--json")
    assert code == 1 and json.loads(out)["watermarked"] is False
    refused(command("watermark", "detect", "nowhere.wav"), 1, "nowhere.wav", "No such file")
    (tmp_path / "text.wav").write_text("text")
    refused(command("watermark", "detect", "text.wav"), 1, "text.wav", "not an audio file of a known format")
    soundfile.write(tmp_path / "nan.wav", np.full(48_000, np.nan), 24_000, subtype="FLOAT")
    refused(command("watermark", "detect", "nan.wav"), 1, "finite")
    soundfile.write(tmp_path / "silent.wav", np.zeros(48_000), 24_000)
    refused(command("watermark", "detect", "silent.wav"), 1, "silence")
    soundfile.write(tmp_path / "short.wav", np.ones(3), 24_000)
    refused(command("watermark", "detect", "short.wav"), 1, "3 samples")
    refused(command("watermark", "detect", "perth.wav", "--backends", "x"), 2, "backends")


@pytest.mark.parametrize(
    ("code", "arguments", "parts"),
    [
        (2, ["demo", "--temperature", "nan"], ["temperature: expected a finite number, got nan"]),
        (2, ["demo", "--temperature", "x"], ["--temperature", "'x' is not a valid float"]),
        (2, ["demo", "--top-p", "-1"], ["top_p"]),
        (2, ["demo", "--repetition-penalty", "0"], ["repetition_penalty"]),
        (2, ["demo", "--seed", "-1"], ["seed: expected a whole number from 0"]),
        (2, ["demo", "--seed", "1.5"], ["--seed", "'1.5' is not a valid integer"]),
        (2, ["demo", "--max-tokens", "0"], ["max_tokens: expected a whole number from 1 to 1000, got 0"]),
        (2, ["demo", "--watermark", "x"], ["--watermark", "'x' is not one of 'perth', 'none'"]),
        (2, ["demo", "--backends", "t9=rust"], ["unknown stage 't9'"]),
        (1, ["demo", "--voice", "nowhere.wav"], ["nowhere.wav: No such file"]),
        (1, ["demo", "--voice", "nowhere.safetensors"], ["nowhere.safetensors: No such file"]),
        (1, ["demo", "--voice", "."], [".: is a directory"]),
        (1, ["say", "a\udcffb", "--model", TOY], ["text: ", "U+DCFF"]),
        (2, ["demo", "-o", "x.txt"], ["x.txt: expected a name ending in .wav"]),
        (1, ["demo", "-o", "nowhere/x.wav"], ["nowhere/x.wav: cannot be written", "no directory nowhere"]),
        (1, ["say", "Hi.", "--model", "/nowhere"], ["/nowhere: no such directory"]),
        (1, ["say", "Hi.", "--model", "/nowhere", "--voice", "nowhere.wav"], ["nowhere.wav: No such file"]),
        (1, ["say", "Hi.", "--model", "/nowhere", "--tokenizer", "nowhere.json"], ["nowhere.json: No such file"]),
        (1, ["voice", "prepare", "nowhere.wav", "-o", "x.safetensors", "--model", "/nowhere"], ["nowhere.wav: No such file"]),
        (1, ["say", "Hi.", "--model", "."], ["missing t3_turbo_v1.safetensors"]),
        (2, ["say", "Hi.", "--model", TOY, "--device", "tpu"], ["device"]),
        (2, ["say", "Hi.", "--model", TOY, "--precision", "f8"], ["precision"]),
        (1, ["say", "Hi.", "--model", TOY, "--tokenizer", "nowhere.json"], ["nowhere.json"]),
        (2, ["say"], ["text"]),
        (2, ["sing"], ["No such command 'sing'"]),
        (2, [], ["command"]),
        (1, ["voice", "show", "nowhere.pt"], ["nowhere.pt: No such file"]),
        (1, ["voice", "prepare", "nowhere.wav", "-o", "v.safetensors", "--model", TOY], ["nowhere.wav: No such file"]),
        (2, ["voice", "prepare", "x.wav", "-o", "v.wav", "--model", TOY], ["v.wav: expected a name ending in .safetensors"]),
        (2, ["voice", "convert", "x.pt", "-o", "y.txt"], ["y.txt: expected a name ending in .safetensors, .pt, .pth"]),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(command, tmp_path, code, arguments, parts):
    refused(command(*arguments), code, *parts)
    assert os.listdir(tmp_path) == []


def _wav(samples: np.ndarray, rate: int = 24_000, subtype: str = "FLOAT") -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format="WAV", subtype=subtype)
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "not an audio file"),
        (b"just text, and a\nsecond line", "not an audio file"),
        (_wav(np.zeros(120_000)), "longer than 5.0 s"),
        (_wav(np.zeros(1)), "longer than 5.0 s"),
        (_wav(np.full(130_000, np.nan)), "finite"),
        (_wav(np.zeros(40_000), 8_000, "PCM_U8"), "longer than 5.0 s"),
    ],
    ids=["empty", "text", "just 5 s", "a sample", "NaN", "8 bits"],  # not the bytes: a float WAV holds the time of day
)
def test_clips_that_are_refused(command, tmp_path, content, part):
    (tmp_path / "clip.wav").write_bytes(content)
    refused(command("voice", "prepare", "clip.wav", "-o", "v.safetensors", "--model", TOY), 1, "clip.wav", part)
    assert os.listdir(tmp_path) == ["clip.wav"]


def test_a_directory_as_output(command, tmp_path):
    (tmp_path / "dir.wav").mkdir()
    refused(command("demo", "-o", "dir.wav", *SHORT), 1, "dir.wav: expected a file name, found a directory")
    assert os.listdir(tmp_path / "dir.wav") == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions bind neither root nor Windows")
def test_files_without_permission(command, tmp_path, clip):
    (tmp_path / "secret.wav").write_bytes(clip.read_bytes())
    (tmp_path / "secret.wav").chmod(0)
    refused(command("demo", "--voice", "secret.wav"), 1, "secret.wav: Permission denied")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    refused(command("demo", "-o", "locked/x.wav"), 1, "locked/x.wav: cannot be written")


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    """A limit on the size of files stands for the disk."""
    pytest.importorskip("resource", reason="this system limits no file's size")
    old = tmp_path / "x.wav"
    old.write_bytes(b"old")
    limit = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"
    )
    result = process(*SAY, "-o", old, *SHORT, prepare=limit)
    error = result.stderr.splitlines(keepends=True)[-1]  # after the warning of speech that was cut
    refused((result.returncode, result.stdout, error), 1, "x.wav: cannot be written: File too large")
    assert old.read_bytes() == b"old" and os.listdir(tmp_path) == ["x.wav"]
    for form in ("wav", "flac", "mp3", "pcm"):  # written while it is made
        result = process(*SAY, "--stream", "--format", form, "-o", old, *SHORT, prepare=limit)
        error = result.stderr.splitlines(keepends=True)[-1]
        refused((result.returncode, result.stdout, error), 1, "x.wav: cannot be written: File too large")
        assert "Traceback" not in result.stderr and "cffi" not in result.stderr
        assert old.read_bytes() == b"old" and os.listdir(tmp_path) == ["x.wav"]
    result = process("voice", "convert", ROOT / "tests/goldens/conds_fresh.pt", "-o", tmp_path / "v.safetensors", prepare=limit)
    refused((result.returncode, result.stdout, result.stderr), 1, "v.safetensors: cannot be written: File too large")
    assert os.listdir(tmp_path) == ["x.wav"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_standard_output_that_cannot_be_written():
    with open("/dev/full", "w") as full:
        result = process("info", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 1 and result.stderr.count("\n") == 1 and "No space left" in result.stderr


def test_a_reader_that_goes_away():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        result = process("info", capture_output=False, stdout=pipe, stderr=subprocess.PIPE)
    assert result.returncode == 1 and result.stderr == ""


def test_a_text_that_is_too_long_is_one_line_on_stderr(command):
    code, _, err = command("say", "word " * 1100, "--split", "never", "--model", TOY, *SHORT)
    text, speech = err.splitlines()
    assert code == 0 and re.fullmatch(r"chatterbox-turbo: text: expected at most 1024 tokens, got \d+: .+", text)
    assert "cut off at max_tokens=4" in speech


def test_help_and_the_module(command):
    code, out, _ = command("--help")
    assert code == 0 and all(name in out for name in ("demo", "say", "voice", "info", "download", "watermark"))
    assert "_CHATTERBOX_TURBO_COMPLETE=bash_source" in out
    result = subprocess.run(
        [sys.executable, "-m", "chatterbox_turbo_rs", "info", "--json"], capture_output=True, check=False, cwd=ROOT
    )
    assert result.returncode == 0 and json.loads(result.stdout)["stages"]


def test_download_without_a_network_is_one_line(command, monkeypatch, tmp_path):
    result = process("download", "turbo", env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)})
    refused((result.returncode, result.stdout, result.stderr), 1, "ResembleAI/chatterbox-turbo")


def test_version(command):
    code, out, err = command("--version")
    assert (code, err) == (0, "") and out == f"chatterbox-turbo {chatterbox_turbo_rs.__version__}\n"


WITHOUT_A_DEFAULT = {"ray", "texts", "subtitles", "pronounce", "against", "official_python", "taps", "base_tokenizer", "work"}
WITHOUT_A_DEFAULT |= {"json_file", "markdown_file", "html_file", "abx_file"}


def every(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with its path."""
    yield path, group
    if isinstance(group, click.Group):
        context = click.Context(group)
        for name in group.list_commands(context):
            yield from every(group.get_command(context, name), (*path, name))


def test_every_command_has_help_and_shows_its_defaults(command):
    found = dict(every(commands))
    assert {("voice", "prepare"), ("watermark", "detect"), ("cache", "clear"), ("bench",)} <= set(found)
    for path, one in found.items():
        for flag in ("-h", "--help"):
            code, out, err = command(*path, flag)
            assert (code, err) == (0, "") and out.startswith(f"Usage: chatterbox-turbo {' '.join(path)}".rstrip()), path
        context = click.Context(one, info_name=path[-1] if path else None, **SETTINGS)
        for option in one.params:
            if not isinstance(option, click.Option):
                continue
            _, text = option.get_help_record(context)
            assert option.help and option.help.endswith("."), (path, option.name)
            nothing = option.is_flag or option.required or option.name in WITHOUT_A_DEFAULT
            assert ("[default: " in text) != nothing, (path, text)
            if (default := option.to_info_dict()["default"]) is not None and not nothing:
                assert str(default) in text, (path, text)


def test_completion_by_the_shell():
    def complete(**environment: str) -> list[str]:
        done = process(env=os.environ | {"_CHATTERBOX_TURBO_COMPLETE": "bash_complete", "COMP_CWORD": "1"} | environment)
        assert done.returncode == 0 and done.stderr == ""
        return done.stdout.splitlines()

    assert any(
        "complete -o" in line and "chatterbox-turbo" in line for line in complete(_CHATTERBOX_TURBO_COMPLETE="bash_source")
    )
    assert complete(COMP_WORDS="chatterbox-turbo wa") == ["plain,watermark"]
    assert complete(COMP_WORDS="chatterbox-turbo say --prec", COMP_CWORD="2") == ["plain,--precision"]
    assert complete(COMP_WORDS="chatterbox-turbo say --model n", COMP_CWORD="3") == ["plain,nano"]
    assert complete(COMP_WORDS="chatterbox-turbo say --voice x", COMP_CWORD="3") == ["file,x"]


def test_help_loads_the_command_that_is_asked_for_alone():
    heavy = "{'torch', 'scipy', 'soundfile', 'soxr', 'tokenizers', 'huggingface_hub', 'tqdm'}"
    program = (
        "import sys\nfrom chatterbox_turbo_rs.cli.main import COMMANDS, main\n"
        "def loaded(): return {n for n in COMMANDS if f'chatterbox_turbo_rs.cli.{n}' in sys.modules}\n"
        "assert main(['--version']) == 0 and not loaded()\n"
        "assert main(['cache', '--help']) == 0 and loaded() == {'cache'}\n"
        f"assert main(['--help']) == 0 and not set(sys.modules) & {heavy}, set(sys.modules) & {heavy}"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments", [["say", "Hi."], ["voice", "prepare", "x.wav", "-o", "x.pt"], ["bench"], ["parity"]], ids=lambda found: found[0]
)
def test_a_revision_of_a_model(command, monkeypatch, arguments):
    Path("x.wav").touch()
    refused(command(*arguments, "--model", "demo", "--revision", "v2"), 2, "revision: only models from the hub", "'v2'")
    asked = []

    def download(model: str, revision: str | None = None, progress: bool = True) -> None:
        asked.append((model, revision))
        raise DownloadError(f"{model} at {revision}")

    monkeypatch.setattr(locate, "download", download)
    refused(command(*arguments, "--model", "nano", "--revision", "v2"), 1, "nano at v2")
    assert asked == [("nano", "v2")]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ZeroDivisionError("by zero"), r"a defect, please report it: ZeroDivisionError: by zero \(.*test_cli\.py:\d+\)"),
        (MemoryError(), "out of memory"),
        (OSError(28, "No space left on device"), r"\[Errno 28\] No space left on device"),
    ],
)
def test_what_nobody_foresaw_is_one_line(command, monkeypatch, error, line):
    def resolve() -> None:
        raise error

    monkeypatch.setattr(registry, "resolve", resolve)
    code, out, err = command("info")
    assert (code, out) == (1, "") and re.fullmatch(f"chatterbox-turbo: {line}\n", err), err


@pytest.mark.parametrize("option", ["--seed=-1", "--top-p=-1", "--max-tokens=0", "--temperature=nan"])
def test_values_out_of_range_are_refused_before_a_model_is_loaded(command, option):
    (Path.cwd() / "lines.txt").write_text("Hello.")
    refused(command("say", "Hello.", "--model", "/nowhere", option), 2, option[2:5])
    refused(command("say", "--texts", "lines.txt", "--model", "/nowhere", option), 2, option[2:5])


def test_the_document_names_every_command():
    document = (ROOT / "docs" / "cli.md").read_text("utf-8")
    for path, _ in every(commands):
        assert all(re.search(rf"`[^`]*\b{word}\b", document) for word in path), path
    for option in set(re.findall(r"(?<![\w-])(--[a-z][a-z-]*)", document)):
        assert any(option in parameter.opts + ["--help"] for _, one in every(commands) for parameter in one.params), option


@pytest.mark.parametrize("typed", [b"", b" \n"])
def test_no_text_on_standard_input_is_a_failure(command, monkeypatch, tmp_path, typed):
    """A producer that failed in a pipeline is not spoken over."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(typed)))
    refused(command("say", "-", "--model", TOY), 1, "standard input: expected a text, found none")


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to a child alone")
def test_an_interrupt_while_the_command_is_imported_says_nothing():
    program = (
        "import os, signal, sys, importlib.abc\n"
        "class Interrupt(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == WHERE:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from chatterbox_turbo_rs.cli import entry\n"
        "sys.argv = ['chatterbox-turbo', 'info']\n"
        "sys.exit(entry())\n"
    )
    codes = {"click": -signal.SIGINT, "chatterbox_turbo_rs.cli.info": 130}
    for where, code in codes.items():
        done = subprocess.run(
            [sys.executable, "-c", f"WHERE = {where!r}\n{program}"], capture_output=True, text=True, check=False
        )
        assert done.returncode == code and "Traceback" not in done.stderr, (where, done.stderr)


def test_the_package_is_there_before_numpy_is():
    program = "import sys, chatterbox_turbo_rs.cli; print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
