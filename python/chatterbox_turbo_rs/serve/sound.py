"""A sound that is sent, read up to what a server takes: an hour of silence may be a few hundred kilobytes."""

from __future__ import annotations

import numpy as np

from ..audio.read import FULL_RATE, read
from .errors import ApiError


def sound(data: bytes, most: float, name: str) -> tuple[np.ndarray, int]:
    """The samples of a file, float32 ``[n]``, and their rate in Hz. Raises ``ApiError`` for one of more than ``most`` seconds, or than
    their samples at ``FULL_RATE``, which is read no further, and what ``read`` does."""
    samples, rate = read(data, most)
    if len(samples) > most * min(rate, FULL_RATE):
        expected = f"at most {most:g} s of sound and {most * FULL_RATE:.0f} samples"
        raise ApiError(400, f"{name}: expected {expected}, got more", name, "sound_too_long")
    return samples, rate
