"""Digests of weights: figures that show whether two sides hold the same numbers, without carrying the numbers about.

SHA-256 answers for bits, the sums for values that differ by rounding (a folded weight norm). ``digest.rs`` gives the same.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

PIECE = 1 << 20
"""Values at a time: an array of any size takes a few ten MB more."""
STEP = 0.6180339887498949
"""Step of the weights of ``weighted``: the golden ratio's fraction, which repeats itself least."""


def digest(array: np.ndarray) -> dict[str, Any]:
    """Figures of a float32 array of any shape, its values ``v`` in row-major order.

    ``shape``; ``sha256`` of the values as little-endian float32, in hexadecimal; and in float64 ``sum`` Σ v, ``squares`` Σ v²,
    ``weighted`` Σ v_i · (frac(0.618… · i) − 0.5), which another order of the same values changes.
    """
    values = np.ascontiguousarray(array, np.float32).reshape(-1)
    sha256, sums = hashlib.sha256(), np.zeros(3)
    for start in range(0, values.size, PIECE):
        piece = values[start : start + PIECE]
        sha256.update(piece.astype("<f4", copy=False).data)
        v = piece.astype(np.float64)
        turns = np.arange(start, start + piece.size, dtype=np.float64) * STEP
        sums += v.sum(), (v * v).sum(), (v * (turns - np.floor(turns) - 0.5)).sum()
    total, squares, weighted = sums.tolist()
    return {
        "shape": list(array.shape),
        "sha256": sha256.hexdigest(),
        "sum": total,
        "squares": squares,
        "weighted": weighted,
    }
