"""Signal processing shared by the Python stages: windows, frames, spectra, mel filters.

Clips are float32 ``[n]``; spectra and filters are time (or band) first. Transforms run in float64, so that what remains
against a float32 reference is that reference's own rounding. Conventions: librosa 0.11 (``librosa.stft``,
``librosa.filters.mel``) and PyTorch 2.13 (``torch.stft``, ``torch.hann_window``).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import AudioError
from .arrays import vector


def check_samples(stage: str, samples: Any, minimum: int) -> np.ndarray:
    """``samples`` itself, when it is a float32 array ``[n]`` with n >= ``minimum`` and finite values.

    Raises ``ArgumentError`` for another type or shape and ``AudioError`` for a short clip, NaN or infinity.
    """
    samples = vector("samples", samples)
    if len(samples) < minimum:
        raise AudioError(f"{stage}: expected at least {minimum} samples, got {len(samples)}")
    finite = np.isfinite(samples)
    if not finite.all():
        at = int(np.argmin(finite))
        raise AudioError(
            f"{stage}: expected finite samples, but sample {at} is {'NaN' if np.isnan(samples[at]) else samples[at]}"
        )
    return samples


def hann(size: int) -> np.ndarray:
    """The periodic Hann window in float64 (``scipy.signal.get_window("hann", size)``)."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)


def hann_f32(size: int, period: int) -> np.ndarray:
    """A float32 Hann window as ``torch.hann_window`` rounds it: periodic with ``period = size``, symmetric with ``size - 1``.

    Its rounding error, up to 2e-7, is part of what a PyTorch reference computes.
    """
    angle = np.arange(size, dtype=np.float32) * np.float32(2 * np.pi / period)
    return np.cos(angle.astype(np.float64)).astype(np.float32) * np.float32(-0.5) + np.float32(0.5)


def frames(samples: np.ndarray, size: int, hop: int) -> np.ndarray:
    """The frames that fit into ``samples``, one every ``hop`` samples: a read-only view ``[frames, size]``."""
    if len(samples) < size:
        return np.empty((0, size), samples.dtype)
    return np.lib.stride_tricks.sliding_window_view(samples, size)[::hop]


def stft(samples: np.ndarray, window: np.ndarray, hop: int) -> np.ndarray:
    """One-sided spectra ``[frames, size / 2 + 1]``, complex128; not centred (pad first with ``np.pad(mode="reflect")``)."""
    return np.fft.rfft(frames(samples, len(window), hop) * window.astype(np.float64), axis=1)


def mel_filters(rate: int, size: int, bands: int, highest: float) -> np.ndarray:
    """Triangular filters ``[bands, size / 2 + 1]``, float32, from 0 to ``highest`` Hz, on Slaney's mel scale and of Slaney's
    unit area (``librosa.filters.mel``): linear up to 1000 Hz (15 mel), then 27 steps for each factor of 6.4.
    """
    step = np.log(6.4) / 27.0
    top = highest / (200.0 / 3.0) if highest < 1000.0 else 15.0 + np.log(highest / 1000.0) / step
    mels = np.linspace(0.0, top, bands + 2)
    edges = np.where(mels < 15.0, mels * (200.0 / 3.0), 1000.0 * np.exp(step * (mels - 15.0)))  # Hz, [bands + 2]
    bins = np.arange(size // 2 + 1) * (rate / size)
    widths = np.diff(edges)[:, None]
    rising = (bins - edges[:-2, None]) / widths[:-1]
    falling = (edges[2:, None] - bins) / widths[1:]
    shape = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    return (shape * (2.0 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)
