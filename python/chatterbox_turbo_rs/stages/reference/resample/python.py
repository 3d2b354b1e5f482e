"""`reference.resample` with soxr and NumPy: samples float32 ``[n]`` at 24 kHz to ``(w16, r16)`` at 16 kHz.

Upstream: ``tts_turbo.py`` and ``models/s3gen/s3gen.py`` of resemble-ai/chatterbox at commit 5de7a54.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ....constants import ENCODER_RATE, SAMPLE_RATE
from ....errors import ArgumentError
from ...shared.arrays import vector
from ..soxr_hq import soxr_hq
from . import S3GEN_SAMPLES

# torchaudio's Resample(24000, 16000): three input and two output samples make a period.
ORIG, NEW = 3, 2
ZEROS, ROLLOFF = 6, 0.99
WIDTH = 10  # ceil(ZEROS * ORIG / (NEW * ROLLOFF))


def create(resources: Any) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """A pure function: nothing is taken from ``resources``."""
    return resample


def resample(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """See the contract."""
    samples = vector("samples", samples)
    bad = np.flatnonzero(~np.isfinite(samples))
    if len(bad):
        raise ArgumentError(f"samples: expected finite values, got {samples[bad[0]]} at {bad[0]}")
    return soxr_hq(samples, SAMPLE_RATE, ENCODER_RATE), sinc(samples[:S3GEN_SAMPLES])


def sinc(samples: np.ndarray) -> np.ndarray:
    """torchaudio's default resampler, 24 to 16 kHz: a sinc of six zero crossings under a Hann window."""
    base = NEW * ROLLOFF
    k = np.arange(-WIDTH, WIDTH + ORIG)
    t = (k / ORIG - np.arange(NEW)[:, None] / NEW) * base  # (phases, taps)
    t = np.clip(t, -ZEROS, ZEROS)
    kernels = np.sinc(t) * np.cos(t * np.pi / ZEROS / 2) ** 2 * base / ORIG
    padded = np.pad(samples, (WIDTH, WIDTH + ORIG))
    frames = np.lib.stride_tricks.sliding_window_view(padded, len(k))[::ORIG]  # (periods, taps)
    out = frames @ kernels.astype(np.float32).T  # (periods, phases)
    return out.reshape(-1)[: -(-NEW * len(samples) // ORIG)].copy()
