"""``chatterbox-turbo convert``: a recording of somebody, in another voice."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from ..errors import FileError
from ..options import seed_of
from . import streams
from .common import (
    FILE,
    as_json,
    backends,
    device,
    load,
    loudness,
    model_option,
    precision,
    revision,
    seed_option,
    stacked,
    target,
    there,
    voice,
    watermark,
)
from .say import about_demo, deliver


@click.command()
@click.argument("source", metavar="IN", type=FILE)
@click.option("-o", "--output", type=FILE, default=Path("converted.wav"), help="The sound file, - for WAV on standard output.")
@stacked(model_option("turbo"), revision, device, precision, backends, voice, seed_option(), loudness, watermark, as_json)
@click.pass_obj
def command(bar: streams.Line, source: Path, output: Path, voice: Path | None, seed: int | None, **values: Any) -> int:
    """Convert a recording: its words and timing, in another voice.

    IN is a sound file of any length, - reads it from standard input. T3 takes no part and is not loaded.
    """
    form = target(output, None)
    piped = str(source) == "-"
    there(None if piped else source)
    there(voice)
    seed_of(seed)  # its check, before a model is loaded
    clip: Path | bytes = streams.standard_input("a sound file") if piped else source
    if piped and not clip:
        raise FileError("standard input: expected a sound file, found none")
    started = time.perf_counter()
    tts = load(values | {"tokenizer": None}, t3=False)
    loaded = time.perf_counter() - started
    started = time.perf_counter()
    level, mark = values["loudness"], values["watermark"]
    speech = tts.convert(clip, voice=voice, seed=seed, loudness=level, watermark=mark, progress=bar)
    taken = time.perf_counter() - started
    bar.close()
    remark = about_demo() if values["model"] == "demo" else None
    more = {"source": str(source), "precision": tts.precision, "load_seconds": loaded}
    more |= {"real_time_factor": taken / speech.seconds, "remark": remark}
    deliver(speech, output, form, taken, more, values["as_json"])
    return 0
