"""``chatterbox-turbo watermark``: look for the Perth watermark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..errors import ArgumentError, AudioError
from . import streams
from .common import FILE, as_json, backends


@click.group(no_args_is_help=False)
def command() -> None:
    """Look for the Perth watermark."""


@command.command()
@click.argument("file", type=FILE)
@backends
@as_json
def detect(file: Path, backends: str | None, as_json: bool) -> int:
    """Print the detector's confidence; exit code 1 when there is no mark."""
    from ..audio.read import read
    from ..engine import registry

    samples, rate = read(file)
    resources: Any = None
    stage = registry.load("watermark", registry.resolve(backends)["watermark"], resources)
    try:
        score = float(stage.detect(samples, rate))
    except ArgumentError as error:  # what is wrong with the file's samples is no wrong use
        raise AudioError(f"{file}: {error}") from None
    found = score >= 0.5
    if as_json:
        streams.out(json.dumps({"file": str(file), "score": score, "watermarked": found}))
    else:
        streams.out(f"{file}: {'watermarked' if found else 'no watermark'} (confidence {score:.3f})")
    return 0 if found else 1
