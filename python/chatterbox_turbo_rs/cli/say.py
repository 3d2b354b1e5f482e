"""``chatterbox-turbo say``: a text into a sound file or a pipe, or every line of a file into a sound file of its own."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ArgumentError, FileError, TextError
from ..options import ROWS
from ..speech import Speech, format_of
from . import say_texts, streams
from .common import FILE, load, model_options, speaking, speaking_options, writable

if TYPE_CHECKING:
    from ..model import ChatterboxTurbo


def about_demo() -> str:
    """Which model the embedded one is, and how to get the real one: two lines."""
    from ..checkpoint.locate import CARD, embedded

    directory = embedded()
    size = sum(file.stat().st_size for file in directory.iterdir()) / 1e6
    return (
        f"spoken by a small model of {size:.1f} MB that was trained for this package and has one voice: {directory / CARD}\n"
        'Chatterbox Turbo itself speaks with chatterbox-turbo say --model turbo "TEXT"; its first use downloads 3 GB'
    )


@click.command()
@click.argument("text", required=False)
@click.option(
    "-o",
    "--output",
    type=FILE,
    show_default="speech.wav, or the directory speech",
    help="The sound file, - for WAV on standard output; with --texts a directory.",
)
@click.option("--texts", type=FILE, metavar="FILE", help="A text on each line, - for standard input; line 7 becomes 007.wav.")
@click.option("--batch", default=ROWS, metavar="N", help="With --texts: so many are decoded together.")
@model_options
@speaking_options()
@click.pass_obj
def command(bar: streams.Line, text: str | None, output: Path | None, texts: Path | None, batch: int, **values: Any) -> int:
    """Speak a text into a file, or every line of a file into one of its own.

    TEXT is what is spoken, - reads it from standard input. `-o - | aplay -` plays it.
    """
    if (text is None) == (texts is None):
        raise ArgumentError(f"say: expected a text or --texts FILE, got {'none of them' if text is None else 'both'}")
    if texts is not None:
        return say_texts.run(bar, texts, output, batch, values)
    remark = about_demo if values["model"] == "demo" else None
    return speak(bar, str(text), output or Path("speech.wav"), values, lambda: load(values), remark)


def speak(
    bar: streams.Line,
    text: str,
    output: Path,
    values: dict[str, Any],
    load: Callable[[], ChatterboxTurbo],
    remark: Callable[[], str] | None,
) -> int:
    """Speaks ``text`` (``-``: standard input) into ``output`` (``-``: standard output), and says how, with the ``remark``; 0."""
    piped = str(output) == "-"
    if piped:
        _pipe()
    else:
        format_of(output)
        writable(output)
    arguments = speaking(values)
    if text == "-":
        text = streams.decoded("standard input", streams.standard_input())
        if not text.strip():
            raise TextError("standard input: expected a text, found none")
    started = time.perf_counter()
    tts = load()
    loaded = time.perf_counter() - started
    started = time.perf_counter()
    speech = tts.generate(text, progress=bar, **arguments)
    taken = time.perf_counter() - started
    bar.close()
    if piped:
        sys.stdout.buffer.write(speech.wav_bytes())
        sys.stdout.flush()
    else:
        speech.save(output)
    more: dict[str, Any] = {"precision": tts.precision, "load_seconds": loaded, "real_time_factor": taken / speech.seconds}
    more["remark"] = remark() if remark else None
    report = json.dumps(say_texts.facts(speech, output) | more) if values["as_json"] else _table(speech, output, taken, more)
    streams.out(report, sys.stderr if piped else None)
    return 0


def _pipe() -> None:
    if sys.__stdout__ is None:
        raise FileError("-: cannot be written: standard output is closed")
    if sys.stdout.isatty():
        raise ArgumentError("-o -: expected a pipe or a file behind it, such as | aplay -, found a terminal")


def _table(speech: Speech, output: Path, taken: float, more: dict[str, Any]) -> str:
    lines = [f"{'stage':26} {'side':8} {'seconds':>8}"]
    for key, seconds in speech.timings.items():
        sides = sorted({side for stage, side in speech.plan.items() if stage == key or stage.startswith(f"{key}.")})
        lines.append(f"{key:26} {'/'.join(sides):8} {seconds:8.3f}")
    lines.append(f"{'load':26} {'':8} {more['load_seconds']:8.3f}")
    factor = more["real_time_factor"]
    lines.append(f"{output}: {speech.seconds:.2f} s of sound in {taken:.2f} s, real-time factor {factor:.2f}, seed {speech.seed}")
    return "\n".join(lines + ([more["remark"]] if more["remark"] else []))
