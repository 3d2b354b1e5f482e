"""`reference.loudness` with pyloudnorm: samples float32 ``[n]`` at 24 kHz to the same at -27.

Upstream: ``norm_loudness`` in ``tts_turbo.py`` of resemble-ai/chatterbox at commit 5de7a54.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyloudnorm

from ....constants import SAMPLE_RATE
from ....errors import ArgumentError
from ...shared.arrays import vector
from . import METHODS, RMS_GAIN_LIMIT, TARGET

RATE = SAMPLE_RATE
BLOCK = 0.4


def create(resources: Any) -> Callable[..., np.ndarray]:
    """A pure function: nothing is taken from ``resources``."""
    return loudness


def measure(samples: np.ndarray) -> float | None:
    """Integrated loudness in LUFS: -inf when no block passes the gates, None when the clip is shorter than one block."""
    if len(samples) < BLOCK * RATE:
        return None
    with np.errstate(all="ignore"):
        return float(pyloudnorm.Meter(RATE).integrated_loudness(samples))


def loudness(samples: np.ndarray, method: str = "bs1770") -> np.ndarray:
    """See the contract."""
    samples = vector("samples", samples)
    if method not in METHODS:
        raise ArgumentError(f'method: expected "bs1770" or "rms", got {json.dumps(method)}')
    gain = bs1770_gain(samples) if method == "bs1770" else rms_gain(samples)
    if not (math.isfinite(gain) and gain > 0.0):
        return samples.copy()
    # In float32: NumPy 2 would promote the clip to float64 if the gain stayed a float64 scalar.
    return samples * np.float32(gain)


def bs1770_gain(samples: np.ndarray) -> float:
    """Linear gain to the target, infinite for a silent clip, NaN where there is no measure."""
    lufs = measure(samples)
    return math.nan if lufs is None else float(np.float64(10.0) ** ((TARGET - lufs) / 20.0))


def rms_gain(samples: np.ndarray) -> float:
    """Linear gain to the target, at most ``RMS_GAIN_LIMIT``; NaN for a silent or empty clip."""
    level = math.sqrt(np.mean(samples.astype(np.float64) ** 2)) if len(samples) else 0.0
    return min(10.0 ** (TARGET / 20.0) / level, RMS_GAIN_LIMIT) if level > 0.0 else math.nan
