"""A tensor in five figures: bit-identical by SHA-256, else how far apart by three sums; ``digest.rs`` gives the same."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

STEP = 0.6180339887498949
BLOCK = 1 << 22


def digest(values: np.ndarray) -> dict[str, Any]:
    """Shape, SHA-256 of the float32 values (little-endian, row-major), their sum, sum of squares, and Σ vᵢ (frac(i·φ) − ½)."""
    flat = np.ascontiguousarray(values, np.dtype("<f4")).reshape(-1)
    total = squares = weighted = 0.0
    for start in range(0, flat.size, BLOCK):
        part = flat[start : start + BLOCK].astype(np.float64)
        position = np.arange(start, start + part.size, dtype=np.float64) * STEP
        total += float(part.sum())
        squares += float(part @ part)
        weighted += float(part @ (position - np.floor(position) - 0.5))
    return {
        "shape": list(values.shape),
        "sha256": hashlib.sha256(flat.tobytes()).hexdigest(),
        "sum": total,
        "squares": squares,
        "weighted": weighted,
    }
