"""The figures of one comparison: a reference array against a candidate.

Nothing is cropped, cast or broadcast to make two arrays fit: another shape or dtype is a failure, and so is any number that is
not finite on either side. Then all figures are computed in float64 over the whole array, because one figure alone hides
errors: cosine alone accepts a wrong scale, relative rms alone a single wrong frame of a long signal.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..constants import HOP

# Frame of a one-dimensional signal, samples: one mel frame at 24 kHz.
# Norm of a row that counts as silent, by the largest row's.
SILENT = 1e-5


@dataclass(frozen=True)
class Figures:
    """What ``compare`` found. Figures that need arrays of one shape are NaN when the shapes differ.

    ``max_abs`` and ``mean_abs`` are of the difference; ``peak`` is ``max_abs`` by the reference's largest value;
    ``relative_rms`` is rms(difference) by rms(reference); ``norm_ratio`` is rms(candidate) by rms(reference);
    ``worst_cosine`` is the smallest cosine of a row (of 480 samples for a one-dimensional float array);
    ``prefix`` counts the first entries that are equal; ``length`` is the number of entries of the reference.
    """

    same_shape: bool
    same_dtype: bool
    non_finite: int
    max_abs: float
    mean_abs: float
    peak: float
    relative_rms: float
    norm_ratio: float
    worst_cosine: float
    prefix: int
    length: int
    shapes: str

    @property
    def comparable(self) -> bool:
        """Whether the figures mean anything: same shape, same dtype, everything finite."""
        return self.same_shape and self.same_dtype and self.non_finite == 0

    @property
    def exact(self) -> bool:
        """Whether both hold the same values."""
        return self.comparable and self.prefix == self.length

    def as_dict(self) -> dict[str, Any]:
        """For reports: NaN and infinity become None, since JSON has neither."""
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(self).items()}


def compare(reference: Any, candidate: Any) -> Figures:
    """Compares two arrays (floating-point or integer) or two texts. Texts are compared by their code points."""
    a, b = _array(reference), _array(candidate)
    shapes = f"{list(a.shape)}" if a.shape == b.shape else f"{list(a.shape)} / {list(b.shape)}"
    if a.dtype != b.dtype:
        shapes += f" {a.dtype} / {b.dtype}"
    non_finite = int(np.count_nonzero(~np.isfinite(a))) + int(np.count_nonzero(~np.isfinite(b)))
    flat_a, flat_b = a.ravel(), b.ravel()
    shorter = min(flat_a.size, flat_b.size)
    different = np.flatnonzero(flat_a[:shorter] != flat_b[:shorter])
    prefix = int(different[0]) if different.size else shorter
    nan = float("nan")
    figures = {"max_abs": nan, "mean_abs": nan, "peak": nan, "relative_rms": nan, "norm_ratio": nan, "worst_cosine": nan}
    if a.shape == b.shape and non_finite == 0:
        figures = _figures(a, b)
    return Figures(
        same_shape=a.shape == b.shape,
        same_dtype=a.dtype == b.dtype,
        non_finite=non_finite,
        prefix=prefix,
        length=int(a.size),
        shapes=shapes,
        **figures,
    )


def log_spectra(reference: np.ndarray, candidate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log magnitudes of two signals of one length, dB, float32 [n], for ``compare``.

    Hann frames of 1024 samples every 256; magnitudes below a thousandth (-60 dB) of the reference's largest count as that, and
    only the n places are kept where one of the two signals is above.
    For signals whose phase is no common property: an oscillator's phase is the sum of its frequency over all samples, so that
    rounding errors of the frequency add up. Arrays of other lengths are given back as they are, so that ``compare`` fails.
    """
    if reference.shape != candidate.shape or reference.ndim != 1 or not np.isfinite([reference, candidate]).all():
        return reference, candidate
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(1024) / 1024)
    magnitudes = []
    for signal in (reference, candidate):
        padded = np.pad(signal.astype(np.float64), 512)
        frames = np.lib.stride_tricks.sliding_window_view(padded, 1024)[::256]
        magnitudes.append(np.abs(np.fft.rfft(frames * window)))
    floor = max(magnitudes[0].max() * 1e-3, 1e-12)
    audible = np.maximum(*magnitudes) > floor
    first, second = ((20.0 * np.log10(np.maximum(m[audible], floor))).astype(np.float32) for m in magnitudes)
    return first, second


def _array(value: Any) -> np.ndarray:
    if isinstance(value, str):
        return np.array([ord(character) for character in value], np.int64)
    return np.asarray(value)


def _figures(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    x, y = a.astype(np.float64), b.astype(np.float64)
    if x.size == 0:
        return {"max_abs": 0.0, "mean_abs": 0.0, "peak": 0.0, "relative_rms": 0.0, "norm_ratio": 1.0, "worst_cosine": 1.0}
    difference = np.abs(y - x)
    largest, norm = float(np.abs(x).max()), float(np.linalg.norm(x))
    return {
        "max_abs": float(difference.max()),
        "mean_abs": float(difference.mean()),
        "peak": _ratio(float(difference.max()), largest),
        "relative_rms": _ratio(float(np.linalg.norm(difference)), norm),
        "norm_ratio": _ratio(float(np.linalg.norm(y)), norm, both_zero=1.0),
        "worst_cosine": _worst_cosine(x, y) if np.issubdtype(a.dtype, np.floating) else 1.0,
    }


def _ratio(top: float, bottom: float, both_zero: float = 0.0) -> float:
    if bottom == 0.0:
        return both_zero if top == 0.0 else math.inf
    return top / bottom


def _worst_cosine(x: np.ndarray, y: np.ndarray) -> float:
    """Smallest cosine between rows; rows that are silent on both sides agree: in them a cosine is one of rounding errors."""
    if x.ndim < 2:
        padding = -x.size % HOP if x.size > HOP else 0
        width = HOP if x.size > HOP else x.size
        x, y = (np.pad(v.ravel(), (0, padding)).reshape(-1, width) for v in (x, y))
    else:
        x, y = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
    norms = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
    product = norms[0] * norms[1]
    cosine = np.divide((x * y).sum(axis=1), product, out=np.zeros_like(product), where=product > 0)
    silent = SILENT * max(norms[0].max(), norms[1].max())
    cosine[(norms[0] <= silent) & (norms[1] <= silent)] = 1.0
    return float(min(cosine.min(), 1.0))
