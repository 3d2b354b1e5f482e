"""The command ``chatterbox-turbo``: demo, say, voice, parity, bench, info, cache, download, watermark.

Results go to stdout, progress and remarks to stderr. Bad input is one line and exit code 2, never a traceback.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..bench import command
from ..checkpoint import locate, packed_cache
from ..engine import devices, registry
from ..errors import ArgumentError, ChatterboxError, FileError, TruncationWarning
from ..parity import command as parity
from ..progress import Bar
from ..speech import format_of
from . import cache, say_texts

DEMO_TEXT = "Hello [laugh] there. This is Chatterbox Turbo, without PyTorch."
DEMO_REMARK = "The demo model's weights are random: what you hear is not speech. It shows that every stage runs."


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    options = parser().parse_args(arguments)
    bar = Bar()

    def remark(message: object) -> None:
        bar.close()
        print(f"chatterbox-turbo: {' '.join(str(message).split())}", file=sys.stderr)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", TruncationWarning)
            warnings.showwarning = lambda message, *_, **__: remark(message)
            code = int(options.run(options, bar) or 0)
        sys.stdout.flush()
        return code
    except ChatterboxError as error:
        remark(error)
        return 2
    except KeyboardInterrupt:
        remark("interrupted")
        return 130
    except OSError as error:  # of standard output: files that are named give a FileError
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 1
        remark(error)
        return 2


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = Parser(prog="chatterbox-turbo", description="Chatterbox Turbo text-to-speech, without PyTorch")
    commands = top.add_subparsers(required=True, metavar="command")

    demo = commands.add_parser("demo", help="speak with the embedded model and print a table of stages; needs no network")
    demo.add_argument("text", nargs="?", default=DEMO_TEXT)
    demo.add_argument("-o", "--output", type=Path, default=Path("demo.wav"))
    demo.add_argument("--voice", type=Path, help="a reference clip or a voice file (default: the embedded one)")
    _generation(demo)
    demo.set_defaults(run=_demo, max_tokens=150)  # the demo model has not learnt to stop

    say = commands.add_parser("say", help="speak a text into a file, or every line of a file into one of its own")
    say.add_argument("text", nargs="?", help="the text, or - to read it from standard input")
    say.add_argument("-o", "--output", type=Path, help="file (default: speech.wav); with --texts the directory (default: speech)")
    say.add_argument("--texts", type=Path, metavar="FILE", help="a text on each line (-: standard input); line 7 becomes 007.wav")
    say.add_argument(
        "--batch", type=int, default=16, metavar="N", help="with --texts: so many are decoded together (default: 16)"
    )
    say.add_argument("--voice", type=Path, help="a reference clip of more than 5 s, or a voice file (default: the model's own)")
    _model(say)
    _generation(say)
    say.set_defaults(run=_say)

    voice = commands.add_parser("voice", help="prepare, show or convert voices")
    actions = voice.add_subparsers(required=True, metavar="action")
    prepare = actions.add_parser("prepare", help="a reference clip → a voice file")
    prepare.add_argument("clip", type=Path)
    prepare.add_argument("-o", "--output", type=Path, required=True, help="a name ending in .safetensors or .pt (upstream's)")
    prepare.add_argument("--loudness", choices=["bs1770", "rms", "none"], default="bs1770")
    _model(prepare)
    prepare.set_defaults(run=_voice_prepare)
    show = actions.add_parser("show", help="what is in a voice file")
    show.add_argument("file", type=Path)
    show.add_argument("--json", action="store_true")
    show.set_defaults(run=_voice_show)
    convert = actions.add_parser("convert", help="upstream's conds.pt → voice file, or back")
    convert.add_argument("file", type=Path)
    convert.add_argument("-o", "--output", type=Path, required=True, help="a name ending in .safetensors or .pt")
    convert.set_defaults(run=_voice_convert)

    parity.add(commands)
    command.add(commands)

    info = commands.add_parser("info", help="what is available here, and why not")
    info.add_argument("--json", action="store_true")
    info.set_defaults(run=_info)

    cache.add(commands)

    download = commands.add_parser("download", help="fetch a model's files from the Hugging Face hub")
    download.add_argument("model", nargs="?", default="turbo", help="turbo, nano or a repository id")
    download.add_argument("--revision")
    download.set_defaults(run=_download)

    watermark = commands.add_parser("watermark", help="look for the Perth watermark")
    marks = watermark.add_subparsers(required=True, metavar="action")
    detect = marks.add_parser("detect", help="print the detector's confidence; exit code 1 when there is no mark")
    detect.add_argument("file", type=Path)
    detect.add_argument("--backends")
    detect.add_argument("--json", action="store_true")
    detect.set_defaults(run=_watermark_detect)
    return top


def _model(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", default="turbo", help="turbo, nano, demo, a repository id or a directory (default: turbo)")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or metal")
    command.add_argument(
        "--precision", default="auto", help="auto, f32 (parity), int8 (T3's weights), bf16 (S3Gen's products) or int8+bf16"
    )
    command.add_argument("--tokenizer", type=Path, help="another tokenizer.json")
    command.add_argument("--backends", help="which side runs each stage, such as auto,t3=rust,text=python")


def _generation(command: argparse.ArgumentParser) -> None:
    if "--backends" not in command._option_string_actions:
        command.add_argument("--backends", help="which side runs each stage, such as auto,t3=rust,text=python")
    command.add_argument("--seed", type=int, help="the same seed gives the same sound (default: a random one)")
    command.add_argument("--temperature", type=float, default=0.8)
    command.add_argument("--top-p", type=float, default=0.95)
    command.add_argument("--top-k", type=int, default=1000)
    command.add_argument("--repetition-penalty", type=float, default=1.2)
    command.add_argument("--max-tokens", type=int, default=1000)
    command.add_argument("--loudness", choices=["bs1770", "rms", "none"], default="bs1770")
    command.add_argument("--watermark", choices=["perth", "none"], default="perth")
    command.add_argument("--json", action="store_true", help="print what was done as JSON")


def _text(text: str) -> str:
    """The text, or standard input (UTF-8) for ``-``."""
    if text != "-":
        return text
    return say_texts.decoded("standard input", sys.stdin.buffer.read())


def _writable(path: Path) -> None:
    """Raises ``FileError`` when ``path`` cannot become a file: better now than after the work."""
    if path.is_dir():
        raise FileError(f"{path}: expected a file name, found a directory")
    if not path.parent.is_dir():
        raise FileError(f"{path}: cannot be written: no directory {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise FileError(f"{path}: cannot be written: no permission to write into {path.parent}")


def _none(value: str) -> str | None:
    return None if value == "none" else value


def _speaking(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of ``generate`` that the options stand for."""
    names = ("voice", "seed", "temperature", "top_p", "top_k", "repetition_penalty", "max_tokens")
    given = {name: getattr(options, name) for name in names}
    return given | {"loudness": _none(options.loudness), "watermark": _none(options.watermark)}


def _speak(options: argparse.Namespace, bar: Bar, tts: Any, loaded: float, remark: str | None = None) -> int:
    started = time.perf_counter()
    speech = tts.generate(options.text, progress=bar, **_speaking(options))
    taken = time.perf_counter() - started
    bar.close()
    speech.save(options.output)
    factor = taken / speech.seconds
    if options.json:
        print(
            json.dumps(
                {
                    "output": str(options.output),
                    "seconds": speech.seconds,
                    "sample_rate": speech.sample_rate,
                    "seed": speech.seed,
                    "plan": dict(speech.plan),
                    "precision": tts.precision,
                    "timings": dict(speech.timings),
                    "load_seconds": loaded,
                    "real_time_factor": factor,
                    "tokens": len(speech.tokens),
                    "watermarked": speech.watermarked,
                    "text": speech.text,
                    "remark": remark,
                }
            )
        )
        return 0
    print(f"{'stage':26} {'side':8} {'seconds':>8}")
    for key, seconds in speech.timings.items():
        side = (
            speech.plan[key]
            if key in speech.plan
            else "/".join(sorted({speech.plan[k] for k in speech.plan if k.startswith(f"{key}.")}))
        )
        print(f"{key:26} {side:8} {seconds:8.3f}")
    print(f"{'load':26} {'':8} {loaded:8.3f}")
    print(
        f"{options.output}: {speech.seconds:.2f} s of sound in {taken:.2f} s, real-time factor {factor:.2f}, seed {speech.seed}"
    )
    if remark:
        print(remark)
    return 0


def _demo(options: argparse.Namespace, bar: Bar) -> int:
    from ..model import ChatterboxTurbo

    _prepare(options)
    started = time.perf_counter()
    tts = ChatterboxTurbo.from_pretrained("demo", backends=options.backends)
    if options.seed is None:
        options.seed = 7
    return _speak(options, bar, tts, time.perf_counter() - started, DEMO_REMARK)


def _prepare(options: argparse.Namespace) -> None:
    """Everything that can be refused before a model is loaded."""
    format_of(options.output)
    _writable(options.output)
    options.text = _text(options.text)


def _say(options: argparse.Namespace, bar: Bar) -> int:
    if (options.text is None) == (options.texts is None):
        raise ArgumentError(f"say: expected a text or --texts FILE, got {'none of them' if options.text is None else 'both'}")
    if options.texts is not None:
        return say_texts.run(options, bar, lambda: _load(options), _speaking(options))
    options.output = options.output or Path("speech.wav")
    _prepare(options)
    started = time.perf_counter()
    tts = _load(options)
    return _speak(options, bar, tts, time.perf_counter() - started, DEMO_REMARK if options.model == "demo" else None)


def _load(options: argparse.Namespace) -> Any:
    from ..model import ChatterboxTurbo

    return ChatterboxTurbo.from_pretrained(
        options.model,
        device=options.device,
        precision=options.precision,
        backends=options.backends,
        tokenizer=options.tokenizer,
        progress=sys.stderr.isatty(),
    )


def _voice_prepare(options: argparse.Namespace, bar: Bar) -> int:
    _voice_name(options.output)
    voice = _load(options).voice(options.clip, loudness=_none(options.loudness), progress=bar)
    bar.close()
    _save_voice(voice, options.output)
    print(f"{options.output}: {voice!r}")
    return 0


def _voice_name(path: Path) -> None:
    if path.suffix not in (".safetensors", ".pt"):
        raise ArgumentError(f"{path}: expected a name ending in .safetensors or .pt, got {path.suffix!r}")
    _writable(path)


def _save_voice(voice: Any, path: Path) -> None:
    from ..checkpoint import conds_pt, torch_archive

    if path.suffix == ".safetensors":
        voice.save(path)
    else:
        t3, gen = conds_pt.to_dicts(voice)
        torch_archive.save(path, {"t3": t3, "gen": gen})


def _voice_show(options: argparse.Namespace, bar: Bar) -> int:
    from .. import voice

    shown = voice.show(voice.Voice.load(options.file))
    if options.json:
        print(json.dumps(shown))
        return 0
    for name, (dtype, *shape) in shown["arrays"].items():
        print(f"{name:22} {dtype:8} {shape}")
    for name, value in shown["metadata"].items():
        print(f"{name:22} {value}")
    return 0


def _voice_convert(options: argparse.Namespace, bar: Bar) -> int:
    from ..voice import Voice

    _voice_name(options.output)
    voice = Voice.load(options.file)
    _save_voice(voice, options.output)
    print(f"{options.output}: {voice!r}")
    return 0


def _info(options: argparse.Namespace, bar: Bar) -> int:
    from .. import _core

    facts: dict[str, Any] = {
        "version": _core.build_info()["version"],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "core": dict(_core.build_info()),
        "devices": dict(devices.reasons()),
        "devices_not_run": list(devices.NOT_RUN),
        "cache": packed_cache.facts(),
        "plan": str(registry.resolve()),
        "stages": registry.available(),
    }
    if options.json:
        print(json.dumps(facts))
        return 0
    print(f"chatterbox-turbo-rs {facts['version']}, Python {facts['python']}, {facts['platform']}")
    core = dict(facts["core"])
    cpu = f"{core.pop('cpu_level')} (of {', '.join(core.pop('cpu_levels'))})"
    print("core: " + ", ".join(f"{name} {value}" for name, value in core.items() if name != "version"))
    print(f"cpu level: {cpu}")
    for device, reason in facts["devices"].items():
        remark = "; not run on hardware by this project" if device in facts["devices_not_run"] else ""
        print(f"device {device}: {reason or 'available'}{remark}")
    print(f"cache of packed weights: {packed_cache.describe(facts['cache'])}")
    print(f"plan: {facts['plan']}")
    for key, sides in facts["stages"].items():
        print(f"  {key:26} " + "; ".join(f"{side}: {reason or 'yes'}" for side, reason in sides.items()))
    return 0


def _download(options: argparse.Namespace, bar: Bar) -> int:
    directory, config = locate.download(options.model, options.revision, progress=sys.stderr.isatty())
    print(f"{directory} ({config['name']})")
    return 0


def _watermark_detect(options: argparse.Namespace, bar: Bar) -> int:
    from ..audio.read import read

    samples, rate = read(options.file)
    plan = registry.resolve(options.backends)
    stage = registry.load("watermark", plan["watermark"], None)  # type: ignore[arg-type]
    score = float(stage.detect(samples, rate))
    if options.json:
        print(json.dumps({"file": str(options.file), "score": score, "watermarked": score >= 0.5}))
    else:
        print(f"{options.file}: {'watermarked' if score >= 0.5 else 'no watermark'} (confidence {score:.3f})")
    return 0 if score >= 0.5 else 1
