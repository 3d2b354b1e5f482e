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

from ..audio.encode import FORMATS
from ..audio.files import whole_file
from ..errors import ArgumentError
from ..options import LATENCY, ROWS, GenerationOptions, seed_of, split_of
from ..speech import Speech
from . import say_stream, say_texts, streams
from .common import FILE, given, known_limit, load, model_options, speaking, speaking_options, target, within, writable

if TYPE_CHECKING:
    from ..model import ChatterboxTurbo
    from ..options import Latency


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
    help="The sound file, - for standard output; with --texts a directory.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMATS)),
    show_default="what the name ends in, wav for -",
    help="What is written; pcm is 16 bit samples without a header.",
)
@click.option("--stream", is_flag=True, help="Write the sound while it is made; with -o -, as wav or pcm.")
@click.option(
    "--latency",
    type=click.Choice(LATENCY),
    default=LATENCY[0],
    help="With --stream: how soon it begins; sentence changes no sample.",
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
    form: str | None,
    stream: bool,
    latency: Latency,
    **values: Any,
) -> int:
    """Speak a text into a file, or every line of a file into one of its own.

    TEXT is what is spoken, - reads it from standard input. `--stream -o - | aplay -` plays it while it is made.
    """
    if (text is None) == (texts is None):
        raise ArgumentError(f"say: expected a text or --texts FILE, got {'none of them' if text is None else 'both'}")
    if texts is not None and (subtitles is not None or dry_run):
        raise ArgumentError(f"say: expected one text for {'--dry-run' if dry_run else '--subtitles'}, got --texts")
    if dry_run:
        return _plan(str(text), values)
    if texts is not None:
        for name, value in (("--stream", stream), ("--format", form)):
            if value:
                raise ArgumentError(f"{name}: expected a text, got --texts")
        return say_texts.run(bar, texts, output, batch, values)
    if latency != LATENCY[0] and not stream:
        raise ArgumentError(f"--latency {latency}: expected --stream with it")
    remark = about_demo if values["model"] == "demo" else None
    output = output or Path(f"speech.{form or 'wav'}")
    if stream:
        if subtitles is not None:
            raise ArgumentError("--subtitles: expected a text that is spoken whole, got --stream")
        return say_stream.run(bar, str(text), output, form, latency, values, remark)
    return speak(bar, str(text), output, values, lambda: load(values), remark, form, subtitles)


def speak(
    bar: streams.Line,
    text: str,
    output: Path,
    values: dict[str, Any],
    load: Callable[[], ChatterboxTurbo],
    remark: Callable[[], str] | None,
    form: str | None = None,
    subtitles: Path | None = None,
) -> int:
    """Speaks ``text`` (``-``: standard input) into ``output`` (``-``: standard output), and says how, with the ``remark``; 0."""
    form = target(output, form)
    if subtitles is not None:
        if subtitles.suffix.lower() not in (".srt", ".vtt"):
            raise ArgumentError(f"--subtitles: expected a file that ends in .srt or .vtt, got {subtitles}")
        writable(subtitles)
    arguments = speaking(values)
    text = given(text)
    started = time.perf_counter()
    tts = load()
    loaded = time.perf_counter() - started
    started = time.perf_counter()
    speech = tts.generate(text, progress=bar, **arguments)
    taken = time.perf_counter() - started
    bar.close()
    more: dict[str, Any] = {"precision": tts.precision, "load_seconds": loaded, "real_time_factor": taken / speech.seconds}
    more |= {"remark": remark() if remark else None}
    deliver(speech, output, form, taken, more, values["as_json"])
    if subtitles is not None:
        with whole_file(subtitles) as temporary:
            temporary.write_text(speech.subtitles(subtitles.suffix.lower()[1:]), encoding="utf-8")
    return 0


def deliver(speech: Speech, output: Path, form: str, taken: float, more: dict[str, Any], as_json: bool) -> None:
    """Writes the sound, and says how it came about: on standard error where the sound goes to standard output."""
    piped = str(output) == "-"
    if piped:
        speech.save(sys.stdout.buffer, format=form)
        sys.stdout.flush()
    else:
        speech.save(output, format=form)
    report = json.dumps(say_texts.facts(speech, output) | more) if as_json else _table(speech, output, taken, more)
    streams.out(report, sys.stderr if piped else None)


def _plan(text: str, values: dict[str, Any]) -> int:
    """Prints the segments; 0."""
    from ..engine import long_text

    arguments = speaking(values)
    options = within(
        GenerationOptions(seed=seed_of(values["seed"]), split=split_of(arguments["split"])), known_limit(values["model"])
    )
    plan = long_text.plan_of(given(text), options.seed, options)
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
