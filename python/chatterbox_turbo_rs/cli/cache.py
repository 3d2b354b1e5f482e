"""``chatterbox-turbo cache``: what is kept of packed weights, or clear it."""

from __future__ import annotations

import argparse
import datetime
import json
from typing import Any

from ..checkpoint.packed_cache import describe, facts
from ..progress import Bar


def add(commands: Any) -> None:
    """Adds the command to the command line."""
    cache = commands.add_parser("cache", help="packed weights that make the next load quick: what is kept, or clear it")
    actions = cache.add_subparsers(required=True, metavar="action")
    show = actions.add_parser("show", help="where it is and what is in it")
    show.add_argument("--json", action="store_true")
    show.set_defaults(run=_show)
    clear = actions.add_parser("clear", help="remove all of it; models that are loaded keep theirs")
    clear.set_defaults(run=_clear)


def _show(options: argparse.Namespace, bar: Bar) -> int:
    found = facts()
    if options.json:
        print(json.dumps(found))
        return 0
    print(describe(found))
    for entry in found["entries"] if found else ():
        used = datetime.datetime.fromtimestamp(entry["used"]).isoformat(" ", "seconds")
        print(f"  {entry['name']:44} {entry['bytes'] / 1e6:8.1f} MB, last used {used}")
    return 0


def _clear(options: argparse.Namespace, bar: Bar) -> int:
    from .. import _core

    before = facts()
    _core.cache_clear()
    print(
        "off" if before is None else f"{before['directory']}: {sum(e['bytes'] for e in before['entries']) / 1e9:.2f} GB removed"
    )
    return 0
