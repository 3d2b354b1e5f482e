"""``voice_encoder.mel`` in NumPy; see the contract in ``__init__.py``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ...shared.dsp import check_samples, frames, hann, mel_filters, stft
from . import FFT_SIZE, HOP, MELS, RATE, TRIM_DB, TRIM_FRAME, TRIM_HOP


def create(resources: Any) -> Callable[[np.ndarray], np.ndarray]:
    """The stage; it needs nothing of ``resources``."""
    return mel


def mel(samples: np.ndarray) -> np.ndarray:
    """float32 ``[n]`` at 16 kHz → float32 ``[1 + trimmed // 160, 40]``."""
    samples = trim(check_samples("voice_encoder.mel", samples, 1))
    spectra = stft(np.pad(samples, FFT_SIZE // 2, mode="reflect"), hann(FFT_SIZE), HOP).astype(np.complex64)
    power = np.square(np.abs(spectra))  # [frames, 201]
    return (power.astype(np.float64) @ _filters().T).astype(np.float32)


def trim(samples: np.ndarray) -> np.ndarray:
    """``samples`` without the silence at its ends: whole hops, judged by the mean power of zero-padded, centred frames."""
    centred = np.pad(np.square(samples.astype(np.float64)), TRIM_FRAME // 2)
    power = np.maximum(frames(centred, TRIM_FRAME, TRIM_HOP).mean(axis=1), 1e-10)
    loud = np.flatnonzero(10 * np.log10(power) - 10 * np.log10(power.max()) > -TRIM_DB)
    return samples[loud[0] * TRIM_HOP : (loud[-1] + 1) * TRIM_HOP]


@functools.lru_cache(maxsize=1)
def _filters() -> np.ndarray:
    return mel_filters(RATE, FFT_SIZE, MELS, RATE / 2)
