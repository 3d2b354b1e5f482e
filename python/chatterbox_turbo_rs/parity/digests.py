"""Digests of weights, checked: ``official/digests.py`` for the arrays of this package.

``digest(array)`` gives what ``_core.Checkpoint(…, record=True).digests()`` gives for a tensor (``rust/core/src/digest.rs``).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..stages.shared.arrays import describe
from .official import digests


def digest(array: np.ndarray) -> dict[str, Any]:
    """Figures of a float32 array of any shape; raises ``ArgumentError`` for anything else."""
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        raise ArgumentError(f"array: expected a float32 array, got {describe(array)}")
    return digests.digest(array)
