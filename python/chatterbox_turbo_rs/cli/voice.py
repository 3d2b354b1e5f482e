"""``chatterbox-turbo voice``: prepare, show or convert voices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..options import between
from . import streams
from .common import FILE, as_json, load, loudness, model_options, there, writable

if TYPE_CHECKING:
    from ..options import Loudness
    from ..voice import Voice

output = click.option(
    "-o", "--output", type=FILE, required=True, help="A name ending in .safetensors, or in .pt or .pth (upstream's conds.pt)."
)


@click.group(no_args_is_help=False)
def command() -> None:
    """Prepare, show or convert voices."""


@command.command()
@click.argument("clip", type=FILE)
@output
@click.option(
    "--prompt-seconds", default=10.0, help="How much of the clip S3Gen hears beside every text, 1 to 10; less is faster."
)
@loudness
@model_options
@click.pass_obj
def prepare(bar: streams.Line, clip: Path, output: Path, prompt_seconds: float, loudness: Loudness | None, **values: Any) -> None:
    """Make a voice file from CLIP, a recording of more than 5 s."""
    _named(output)
    there(clip)
    there(values["tokenizer"])
    between("prompt_seconds", prompt_seconds, 1, 10, "seconds")  # before a model is loaded
    voice = load(values).voice(clip, prompt_seconds=prompt_seconds, loudness=loudness, progress=bar)
    bar.close()
    _save(voice, output)


@command.command()
@click.argument("file", type=FILE)
@as_json
def show(file: Path, as_json: bool) -> None:
    """Print what is in a voice file."""
    from .. import voice

    shown = voice.show(voice.Voice.load(file))
    if as_json:
        return streams.out(json.dumps(shown))
    for name, (dtype, *shape) in shown["arrays"].items():
        streams.out(f"{name:22} {dtype:8} {shape}")
    for name, value in shown["metadata"].items():
        streams.out(f"{name:22} {value}")


@command.command()
@click.argument("file", type=FILE)
@output
def convert(file: Path, output: Path) -> None:
    """Make a voice file from upstream's conds.pt, or the other way round."""
    from ..voice import Voice

    _named(output)
    _save(Voice.load(file), output)


def _named(path: Path) -> None:
    from ..voice import check_name

    writable(check_name(path))


def _save(voice: Voice, path: Path) -> None:
    streams.out(f"{voice.save(path)}: {voice!r}")
