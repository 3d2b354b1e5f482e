"""The packed weights that loading a model leaves for the next time (``docs/cache.md``)."""

from __future__ import annotations

import os
from typing import Any


def facts() -> dict[str, Any] | None:
    """Directory, limit and files of the cache; None where it is off."""
    from .. import _core

    found = _core.cache_info()
    return None if found is None else {**found, "directory": os.fspath(found["directory"])}


def describe(found: dict[str, Any] | None) -> str:
    """One line."""
    if found is None:
        return "off"
    size, count = sum(entry["bytes"] for entry in found["entries"]), len(found["entries"])
    return f"{found['directory']}, {size / 1e9:.2f} of {found['limit'] / 1e9:g} GB in {count} file{'s' * (count != 1)}"
