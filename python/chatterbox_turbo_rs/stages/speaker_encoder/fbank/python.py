"""``speaker_encoder.fbank`` in NumPy; see the contract in ``__init__.py``.

The filters, the window and the frames are rounded to float32 step by step as the reference does: at that precision the
edges of the triangles move by 1e-5 of their width, which is more than the transform's own error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ...shared.dsp import check_samples, frames, hann_f32
from . import FFT_SIZE, FLOOR, FRAME, HOP, LOWEST, MELS, PREEMPHASIS, RATE

_f32 = np.float32


def create(resources: Any) -> Callable[[np.ndarray], np.ndarray]:
    """The stage; it needs nothing of ``resources``."""
    return fbank


def fbank(samples: np.ndarray) -> np.ndarray:
    """float32 ``[n]`` at 16 kHz → float32 ``[1 + (n - 400) // 160, 80]``."""
    check_samples("speaker_encoder.fbank", samples, FRAME)
    framed = frames(samples, FRAME, HOP)  # [frames, 400]
    centred = framed - framed.mean(axis=1, keepdims=True, dtype=np.float64).astype(_f32)
    previous = np.concatenate([centred[:, :1], centred[:, :-1]], axis=1)
    windowed = (centred - _f32(PREEMPHASIS) * previous) * povey()
    spectra = np.fft.rfft(windowed.astype(np.float64), n=FFT_SIZE, axis=1).astype(np.complex64)
    power = np.square(np.abs(spectra))  # [frames, 257]
    energy = (power.astype(np.float64) @ filters().T).astype(_f32)
    log = np.log(np.maximum(energy, _f32(FLOOR)))
    return log - log.mean(axis=0, dtype=np.float64).astype(_f32)


@functools.lru_cache(maxsize=1)
def povey() -> np.ndarray:
    """Povey's window ``[400]``: the symmetric Hann window to the power of 0.85, float32."""
    return (hann_f32(FRAME, FRAME - 1).astype(np.float64) ** 0.85).astype(_f32)


@functools.lru_cache(maxsize=1)
def filters() -> np.ndarray:
    """Triangles ``[80, 257]``, float32, linear in mel; the Nyquist bin has no weight."""
    low, high = (1127.0 * np.log(1.0 + f / 700.0) for f in (LOWEST, RATE / 2))
    width = (high - low) / (MELS + 1)
    edge = [_f32(low) + (np.arange(MELS, dtype=_f32) + _f32(i)) * _f32(width) for i in range(3)]
    left, centre, right = (e[:, None] for e in edge)
    bins = np.arange(FFT_SIZE // 2, dtype=_f32) * _f32(RATE / FFT_SIZE)
    mel = _f32(1127.0) * np.log(_f32(1.0) + bins / _f32(700.0))
    shape = np.minimum((mel - left) / (centre - left), (right - mel) / (right - centre))
    return np.pad(np.maximum(shape, _f32(0.0)), ((0, 0), (0, 1)))
