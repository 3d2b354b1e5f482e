"""`text.normalize` in plain Python. The order of the steps is part of the result."""

from __future__ import annotations

from collections.abc import Callable

from ....checkpoint.resources import Resources
from .. import check_text
from . import EMPTY

REPLACEMENTS = {"…": ", ", ":": ",", "—": "-", "–": "-", " ,": ",", "“": '"', "”": '"', "‘": "'", "’": "'"}


def create(resources: Resources) -> Callable[[str], str]:
    return normalize


def normalize(text: str) -> str:
    if not check_text(text):
        return EMPTY
    if text[0].islower():
        text = text[0].upper() + text[1:]
    text = " ".join(text.split())
    for old, new in REPLACEMENTS.items():
        text = text.replace(old, new)
    text = text.rstrip(" ")
    return text if text.endswith((".", "!", "?", "-", ",")) else text + "."
