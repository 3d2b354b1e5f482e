"""``s3tokenizer.mel`` in NumPy; see the contract in ``__init__.py``."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from ....checkpoint.resources import Resources
from ...shared.dsp import check_samples, stft
from . import FFT_SIZE, HOP, MIN_SAMPLES


def create(resources: Resources) -> Callable[[np.ndarray], np.ndarray]:
    """The stage with the checkpoint's window and filters."""
    tensors = resources.tensors("s3gen")
    window = tensors.get("tokenizer.window", (FFT_SIZE,))
    filters = tensors.get("tokenizer._mel_filters", (resources.config["s3tokenizer"]["mels"], FFT_SIZE // 2 + 1))
    return functools.partial(mel, window=window, filters=filters)


def mel(samples: np.ndarray, *, window: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """float32 ``[n]`` at 16 kHz → float32 ``[n // 160, mels]``."""
    check_samples("s3tokenizer.mel", samples, MIN_SAMPLES)
    spectra = stft(np.pad(samples, FFT_SIZE // 2, mode="reflect"), window, HOP)[:-1].astype(np.complex64)
    power = np.square(np.abs(spectra))  # [frames, 201]
    energy = (power.astype(np.float64) @ filters.T).astype(np.float32)
    log = np.log10(np.maximum(energy, np.float32(1e-10)))
    return (np.maximum(log, log.max() - np.float32(8.0)) + np.float32(4.0)) / np.float32(4.0)
