"""Builds HTML and SVG: every text is escaped unless this module made it, every element is closed."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any, Union

from .text import CONTROL

VOID = frozenset({"br", "col", "img", "link", "meta", "source"})


class Markup(str):
    """Text that is HTML already."""


Child = Union[str, Iterable["Child"], None]


def el(name: str, /, *children: Child, **attributes: Any) -> Markup:
    """One element. Attribute names lose a closing underscore and their others become hyphens; None and False leave one out."""
    opening = name
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        opening += f" {key}" if value is True else f' {key}="{escape(value)}"'
    if name in VOID:
        return Markup(f"<{opening}>")
    return Markup(f"<{opening}>{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Markup:
    """Children one after another; texts are escaped, None is left out."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(child)
        elif isinstance(child, str):
            parts.append(escape(child))
        elif child is not None:
            parts.append(join(child))
    return Markup("".join(parts))


def escape(text: object) -> str:
    """The text as HTML shows it, without control characters and changes of direction."""
    return html.escape(CONTROL.sub(" ", str(text)), quote=True)
