"""``s3gen.prompt_mel`` in NumPy; see the contract in ``__init__.py``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ...shared.dsp import check_samples, hann_f32, mel_filters, stft
from . import FFT_SIZE, HIGHEST, HOP, MELS, MIN_SAMPLES, PAD, RATE


def create(resources: Any) -> Callable[[np.ndarray], np.ndarray]:
    """The stage; it needs nothing of ``resources``."""
    return prompt_mel


def prompt_mel(samples: np.ndarray) -> np.ndarray:
    """float32 ``[n]`` at 24 kHz → float32 ``[n // 480, 80]``."""
    check_samples("s3gen.prompt_mel", samples, MIN_SAMPLES)
    spectra = stft(np.pad(samples, PAD, mode="reflect"), hann_f32(FFT_SIZE, FFT_SIZE), HOP)
    magnitude = np.sqrt(spectra.real**2 + spectra.imag**2 + 1e-9)  # [frames, 961]
    return np.log(np.maximum(magnitude @ _filters().T, 1e-5)).astype(np.float32)


@functools.lru_cache(maxsize=1)
def _filters() -> np.ndarray:
    return mel_filters(RATE, FFT_SIZE, MELS, HIGHEST)
