"""What the public API checks of its arguments. Each raises ``ArgumentError`` with the argument's name, what was expected and what came."""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

from .engine.batch import AnyVoice
from .errors import ArgumentError
from .voice import Voice

MOST_SEED = 2**64 - 1


def one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raises ``ArgumentError`` unless ``value`` is allowed."""
    if not (value is None or isinstance(value, str)) or value not in allowed:
        raise ArgumentError(f"{name}: expected {', '.join(map(repr, allowed))}, got {value!r}")


def whole(name: str, value: Any, low: int, high: int) -> int:
    """``value`` as int; raises ``ArgumentError`` unless it is a whole number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not low <= int(value) <= high:
        raise ArgumentError(f"{name}: expected a whole number from {low} to {high}, got {value!r}")
    return int(value)


def number(name: str, value: Any) -> float:
    """``value`` as float; raises ``ArgumentError`` unless it is a number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ArgumentError(f"{name}: expected a number, got {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ArgumentError(f"{name}: expected a number, got one beyond every float") from None


def seed_of(value: Any) -> int:
    """The seed, or a random one for None."""
    return int.from_bytes(os.urandom(8), "little") if value is None else whole("seed", value, 0, MOST_SEED)


def texts_of(value: Any) -> list[str]:
    """The texts; an empty list is fine."""
    texts = several("texts", value, "several texts (generate speaks one)")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ArgumentError(f"texts[{index}]: expected str, got {type(text).__name__}")
    return texts


def voices_of(value: Any, count: int) -> list[AnyVoice]:
    """A voice for every text, from one for all or as many as there are texts."""
    if one_voice(value):
        return [value] * count
    voices = several("voices", value, "a voice, a path, None, or one of these for each text")
    for index, voice in enumerate(voices):
        if not one_voice(voice):
            raise ArgumentError(f"voices[{index}]: expected a Voice, a path or None, got {type(voice).__name__}")
    return fitting("voices", voices, count)


def one_voice(value: Any) -> bool:
    """Is it what ``generate`` takes as voice?"""
    return value is None or isinstance(value, (Voice, str, Path))


def several(name: str, value: Any, expected: str) -> list[Any]:
    """The entries of anything that has an order and can be gone through."""
    ordered = isinstance(value, Iterable) and not isinstance(value, (str, bytes, bytearray, Mapping, Set))
    if not ordered or getattr(value, "ndim", 1) == 0:
        raise ArgumentError(f"{name}: expected {expected}, got {type(value).__name__}")
    return list(value)


def fitting(name: str, values: list[Any], count: int) -> list[Any]:
    """``values``, when they are as many as the texts."""
    if len(values) != count:
        raise ArgumentError(f"{name}: expected one for each of {count} texts, got {len(values)}")
    return values


def seeds_of(value: Any, count: int) -> list[int]:
    """A seed for every text: random ones for None, ``value`` + i for a number, or as many as there are texts."""
    if value is None:
        return [seed_of(None) for _ in range(count)]
    if isinstance(value, numbers.Number):
        first = whole("seeds", value, 0, MOST_SEED - max(count - 1, 0))
        return [first + index for index in range(count)]
    seeds = fitting("seeds", several("seeds", value, "a whole number, one for each text, or None"), count)
    return [whole(f"seeds[{index}]", seed, 0, MOST_SEED) for index, seed in enumerate(seeds)]
