"""``chatterbox-turbo demo``: the embedded model speaks, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import streams
from .common import FILE, backends, speaking_options
from .say import about_demo, speak

TEXT = "Hello there. I am a small model inside this program, and I need no network."


@click.command(help=f"""Speak with the small embedded model and print a table of stages; needs no network.

TEXT is what is spoken, - reads it from standard input.  [default: {TEXT}]""")  # fmt: skip
@click.argument("text", default=TEXT)
@click.option("-o", "--output", type=FILE, default=Path("demo.wav"), help="The sound file, - for WAV on standard output.")
@backends
@speaking_options(seed=1, max_tokens=300)
@click.pass_obj
def command(bar: streams.Line, text: str, output: Path, backends: str | None, **values: Any) -> int:
    from ..model import ChatterboxTurbo

    return speak(bar, text, output, values, lambda: ChatterboxTurbo.from_pretrained("demo", backends=backends), about_demo)
