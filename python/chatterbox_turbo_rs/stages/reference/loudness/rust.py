"""`reference.loudness` in the Rust core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .... import _core


def create(resources: Any) -> Callable[..., np.ndarray]:
    """A pure function: nothing is taken from ``resources``."""
    return loudness


def loudness(samples: np.ndarray, method: str = "bs1770", callback: Callable[[str, int, int], Any] | None = None) -> np.ndarray:
    """See the contract; what ``callback("reference.loudness", done, total)`` raises ends the work."""
    return _core.reference_loudness(samples, method, callback=callback)


def measure(samples: np.ndarray) -> float | None:
    """Integrated loudness in LUFS: -inf when no block passes the gates, None when the clip is shorter than one block."""
    return _core.reference_loudness_measure(samples)
