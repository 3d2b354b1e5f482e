"""``chatterbox-turbo say``: a text into a sound file or a pipe, or every line of a file into a sound file of its own."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..audio.files import whole_file
from ..errors import ArgumentError, FileError, TextError
from ..options import ROWS, GenerationOptions, seed_of, split_of
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
@click.option("--subtitles", type=FILE, metavar="FILE", help="Write the segments' times, as .srt or .vtt.")
@click.option("--dry-run", is_flag=True, help="Print the segments of the text, and speak nothing.")
@model_options
@speaking_options()
@click.pass_obj
def command(
    bar: streams.Line,
    text: str | None,
    output: Path | None,
    texts: Path | None,
    batch: int,
    subtitles: Path | None,
    dry_run: bool,
    **values: Any,
) -> int:
    """Speak a text into a file, or every line of a file into one of its own.

    TEXT is what is spoken, - reads it from standard input. `-o - | aplay -` plays it.
    """
    if (text is None) == (texts is None):
        raise ArgumentError(f"say: expected a text or --texts FILE, got {'none of them' if text is None else 'both'}")
    if texts is not None and (subtitles is not None or dry_run):
        raise ArgumentError(f"say: expected one text for {'--dry-run' if dry_run else '--subtitles'}, got --texts")
    if dry_run:
        return _plan(str(text), values)
    if texts is not None:
        return say_texts.run(bar, texts, output, batch, values)
    remark = about_demo if values["model"] == "demo" else None
    return speak(bar, str(text), output or Path("speech.wav"), values, lambda: load(values), remark, subtitles)


def speak(
    bar: streams.Line,
    text: str,
    output: Path,
    values: dict[str, Any],
    load: Callable[[], ChatterboxTurbo],
    remark: Callable[[], str] | None,
    subtitles: Path | None = None,
) -> int:
    """Speaks ``text`` (``-``: standard input) into ``output`` (``-``: standard output), and says how, with the ``remark``; 0."""
    check(output)
    if subtitles is not None:
        if subtitles.suffix.lower() not in (".srt", ".vtt"):
            raise ArgumentError(f"--subtitles: expected a file that ends in .srt or .vtt, got {subtitles}")
        writable(subtitles)
    arguments = speaking(values)
    text = _read(text)
    started = time.perf_counter()
    tts = load()
    loaded = time.perf_counter() - started
    started = time.perf_counter()
    speech = tts.generate(text, progress=bar, **arguments)
    taken = time.perf_counter() - started
    bar.close()
    more: dict[str, Any] = {"precision": tts.precision, "load_seconds": loaded, "real_time_factor": taken / speech.seconds}
    more |= {"remark": remark() if remark else None}
    deliver(speech, output, taken, more, values["as_json"])
    if subtitles is not None:
        with whole_file(subtitles) as temporary:
            temporary.write_text(speech.subtitles(subtitles.suffix.lower()[1:]), encoding="utf-8")
    return 0


def check(output: Path) -> None:
    """Refuses what cannot become a sound file (``-``: standard output) before the work."""
    if str(output) != "-":
        format_of(output)
        return writable(output)
    if sys.__stdout__ is None:
        raise FileError("-: cannot be written: standard output is closed")
    if sys.stdout.isatty():
        raise ArgumentError("-o -: expected a pipe or a file behind it, such as | aplay -, found a terminal")


def deliver(speech: Speech, output: Path, taken: float, more: dict[str, Any], as_json: bool) -> None:
    """Writes the sound, and says how it came about: on standard error where the sound goes to standard output."""
    piped = str(output) == "-"
    if piped:
        sys.stdout.buffer.write(speech.wav_bytes())
        sys.stdout.flush()
    else:
        speech.save(output)
    report = json.dumps(say_texts.facts(speech, output) | more) if as_json else _table(speech, output, taken, more)
    streams.out(report, sys.stderr if piped else None)


def _read(text: str) -> str:
    """The text, from standard input for ``-``."""
    if text == "-":
        text = streams.decoded("standard input", streams.standard_input())
        if not text.strip():
            raise TextError("standard input: expected a text, found none")
    return text


def _plan(text: str, values: dict[str, Any]) -> int:
    """Prints the segments; 0."""
    from ..engine import long_text

    arguments = speaking(values)
    options = GenerationOptions(seed=seed_of(values["seed"]), split=split_of(arguments["split"]))
    plan = long_text.plan_of(_read(text), options.seed, options)
    if values["as_json"]:
        streams.out(json.dumps([asdict(segment) for segment in plan]))
        return 0
    for segment in plan:
        mark = "\u00b6" if segment.start_of_paragraph else " "
        streams.out(f"{segment.index:4} {mark} {' '.join(segment.text.split())}  [{segment.pause_after:g} s]")
    return 0


def _table(speech: Speech, output: Path, taken: float, more: dict[str, Any]) -> str:
    lines = [f"{'stage':26} {'side':8} {'seconds':>8}"]
    for key, seconds in speech.timings.items():
        sides = sorted({side for stage, side in speech.plan.items() if stage == key or stage.startswith(f"{key}.")})
        lines.append(f"{key:26} {'/'.join(sides):8} {seconds:8.3f}")
    lines.append(f"{'load':26} {'':8} {more['load_seconds']:8.3f}")
    factor = more["real_time_factor"]
    lines.append(f"{output}: {speech.seconds:.2f} s of sound in {taken:.2f} s, real-time factor {factor:.2f}, seed {speech.seed}")
    return "\n".join(lines + ([more["remark"]] if more["remark"] else []))
