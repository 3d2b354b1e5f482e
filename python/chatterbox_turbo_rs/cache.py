"""``chatterbox-turbo cache``: the packed weights that loading a model leaves for the next time (``docs/cache.md``)."""

from __future__ import annotations

import argparse
import datetime
import json
import os
from typing import Any

from .progress import Bar


def add(commands: Any) -> None:
    """Adds the command to the command line."""
    cache = commands.add_parser("cache", help="packed weights that make the next load quick: what is kept, or clear it")
    actions = cache.add_subparsers(required=True, metavar="action")
    show = actions.add_parser("show", help="where it is and what is in it")
    show.add_argument("--json", action="store_true")
    show.set_defaults(run=_show)
    clear = actions.add_parser("clear", help="remove all of it; models that are loaded keep theirs")
    clear.set_defaults(run=_clear)


def facts() -> dict[str, Any] | None:
    """Directory, limit and files of the cache; None where it is off."""
    from . import _core

    found = _core.cache_info()
    return None if found is None else {**found, "directory": os.fspath(found["directory"])}


def describe(found: dict[str, Any] | None) -> str:
    """One line."""
    if found is None:
        return "off"
    size, count = sum(entry["bytes"] for entry in found["entries"]), len(found["entries"])
    return f"{found['directory']}, {size / 1e9:.2f} of {found['limit'] / 1e9:g} GB in {count} file{'s' * (count != 1)}"


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
    from . import _core

    before = facts()
    _core.cache_clear()
    print(
        "off" if before is None else f"{before['directory']}: {sum(e['bytes'] for e in before['entries']) / 1e9:.2f} GB removed"
    )
    return 0
