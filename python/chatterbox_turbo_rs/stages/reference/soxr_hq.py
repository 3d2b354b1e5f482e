"""``librosa.resample(res_type="soxr_hq")`` without librosa: samples float32 ``[n]`` at one rate to another."""

from __future__ import annotations

import math

import numpy as np
import soxr


def soxr_hq(samples: np.ndarray, source: int, target: int) -> np.ndarray:
    """``samples`` at ``target`` Hz, ``ceil(n * (target / source))`` of them: padded with zeros, or cut, to that length."""
    if source == target or not len(samples):
        return samples.copy()
    length = math.ceil(len(samples) * (target / source))
    out = soxr.resample(samples, source, target, quality="HQ")[:length]
    return np.pad(out, (0, length - len(out))).astype(np.float32, copy=False)
