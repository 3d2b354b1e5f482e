"""`reference.loudness` in the Rust core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .... import _core


def create(resources: Any) -> Callable[..., np.ndarray]:
    """A pure function: nothing is taken from ``resources``."""
    return loudness


def loudness(samples: np.ndarray, method: str = "bs1770") -> np.ndarray:
    """See the contract."""
    return _core.reference_loudness(samples, method)


def measure(samples: np.ndarray) -> float | None:
    """Integrated loudness in LUFS: -inf when no block passes the gates, None when the clip is shorter than one block."""
    return _core.reference_loudness_measure(samples)
