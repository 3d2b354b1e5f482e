"""``chatterbox-turbo say``: a text into a sound file or a pipe, or every line of a file into a sound file of its own."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..audio.encode import FORMATS
from ..errors import ArgumentError
from ..options import LATENCY, ROWS
from ..speech import Speech
from . import say_stream, say_texts, streams
from .common import FILE, given, load, model_options, speaking, speaking_options, target

if TYPE_CHECKING:
    from ..model import ChatterboxTurbo
    from ..options import Latency

DEMO_REMARK = "The demo model's weights are random: what you hear is not speech. It shows that every stage runs."


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
@model_options
@speaking_options()
@click.pass_obj
def command(
    bar: streams.Line,
    text: str | None,
    output: Path | None,
    texts: Path | None,
    batch: int,
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
    if texts is not None:
        for name, value in (("--stream", stream), ("--format", form)):
            if value:
                raise ArgumentError(f"{name}: expected a text, got --texts")
        return say_texts.run(bar, texts, output, batch, values)
    if latency != LATENCY[0] and not stream:
        raise ArgumentError(f"--latency {latency}: expected --stream with it")
    remark = DEMO_REMARK if values["model"] == "demo" else None
    output = output or Path(f"speech.{form or 'wav'}")
    if stream:
        return say_stream.run(bar, str(text), output, form, latency, values, remark)
    return speak(bar, str(text), output, values, lambda: load(values), remark, form)


def speak(
    bar: streams.Line,
    text: str,
    output: Path,
    values: dict[str, Any],
    load: Callable[[], ChatterboxTurbo],
    remark: str | None,
    form: str | None = None,
) -> int:
    """Speaks ``text`` (``-``: standard input) into ``output`` (``-``: standard output), and says how; 0."""
    form = target(output, form)
    piped = str(output) == "-"
    arguments = speaking(values)
    text = given(text)
    started = time.perf_counter()
    tts = load()
    loaded = time.perf_counter() - started
    started = time.perf_counter()
    speech = tts.generate(text, progress=bar, **arguments)
    taken = time.perf_counter() - started
    bar.close()
    if piped:
        speech.save(sys.stdout.buffer, format=form)
        sys.stdout.flush()
    else:
        speech.save(output, format=form)
    more = {"precision": tts.precision, "load_seconds": loaded, "real_time_factor": taken / speech.seconds, "remark": remark}
    report = json.dumps(say_texts.facts(speech, output) | more) if values["as_json"] else _table(speech, output, taken, more)
    streams.out(report, sys.stderr if piped else None)
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
