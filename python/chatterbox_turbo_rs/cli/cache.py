"""``chatterbox-turbo cache``: what is kept of packed weights, or clear it."""

from __future__ import annotations

import datetime
import json

import click

from ..checkpoint.packed_cache import describe, facts
from . import streams
from .common import as_json


@click.group(no_args_is_help=False)
def command() -> None:
    """Show or clear the packed weights that make the next load quick."""


@command.command()
@as_json
def show(as_json: bool) -> None:
    """Print where it is and what is in it."""
    found = facts()
    if as_json:
        return streams.out(json.dumps(found))
    streams.out(describe(found))
    for entry in found["entries"] if found else ():
        used = datetime.datetime.fromtimestamp(entry["used"]).isoformat(" ", "seconds")
        streams.out(f"  {entry['name']:44} {entry['bytes'] / 1e6:8.1f} MB, last used {used}")


@command.command()
def clear() -> None:
    """Remove all of it; models that are loaded keep theirs."""
    from .. import _core

    before = facts()
    _core.cache_clear()
    size = sum(entry["bytes"] for entry in before["entries"]) if before else 0
    streams.out(f"{before['directory']}: {size / 1e9:.2f} GB removed" if before else "off")
