"""``chatterbox-turbo download``: a model's files from the Hugging Face hub."""

from __future__ import annotations

import click

from ..checkpoint import locate
from ..progress import on_terminal
from . import streams
from .common import models, revision


@click.command()
@click.argument("model", default="turbo", shell_complete=models)
@revision
def command(model: str, revision: str | None) -> None:
    """Fetch a model's files from the Hugging Face hub.

    MODEL is turbo, nano or a repository id.  [default: turbo]
    """
    directory, config = locate.download(model, revision, progress=on_terminal())
    streams.out(f"{directory} ({config['name']})")
