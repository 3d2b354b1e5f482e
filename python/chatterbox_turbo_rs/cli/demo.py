"""``chatterbox-turbo demo``: the embedded model speaks, without a network."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import click

from ..errors import TruncatedSpeechWarning
from . import streams
from .common import FILE, backends, speaking_options
from .say import DEMO_REMARK, speak

TEXT = "Hello [laugh] there. This is Chatterbox Turbo, without PyTorch."


@click.command(help=f"""Speak with the embedded model and print a table of stages; needs no network.

TEXT is what is spoken, - reads it from standard input.  [default: {TEXT}]""")  # fmt: skip
@click.argument("text", default=TEXT)
@click.option("-o", "--output", type=FILE, default=Path("demo.wav"), help="The sound file, - for WAV on standard output.")
@backends
@speaking_options(seed=7, max_tokens=150)
@click.pass_obj
def command(bar: streams.Line, text: str, output: Path, backends: str | None, **values: Any) -> int:
    from ..model import ChatterboxTurbo

    warnings.simplefilter("ignore", TruncatedSpeechWarning)  # it has not learnt to stop, so that it is always cut
    return speak(bar, text, output, values, lambda: ChatterboxTurbo.from_pretrained("demo", backends=backends), DEMO_REMARK)
