"""`reference.resample` in the Rust core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .... import _core


def create(resources: Any) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """A pure function: nothing is taken from ``resources``."""
    return resample


def resample(samples: np.ndarray, callback: Callable[[str, int, int], Any] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """See the contract; what ``callback("reference.resample", done, total)`` raises ends the work."""
    return _core.reference_resample(samples, callback=callback)
