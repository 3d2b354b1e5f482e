"""`reference.load` in the Rust core (Symphonia and a polyphase filter)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .... import _core
from ....audio.read import explained
from ....audio.source import Samples, sort
from . import MIN_SECONDS, RATE


def create(resources: Any) -> Callable[..., np.ndarray]:
    """A pure function: nothing is taken from ``resources``."""
    return load


def load(
    source: Any,
    rate: int = RATE,
    longer_than: float = MIN_SECONDS,
    callback: Callable[[str, int, int], Any] | None = None,
) -> np.ndarray:
    """See the contract; what ``callback("reference.load", done, total)`` raises ends the work."""
    clip = sort(source)
    if isinstance(clip, Samples):
        return _core.reference_load(clip.data, clip.rate, to=rate, longer_than=longer_than, callback=callback)
    with explained(clip):
        return _core.reference_load(clip, to=rate, longer_than=longer_than, callback=callback)
