"""`watermark` by resemble-perth's own ``PerthImplicitWatermarker`` (PyTorch, librosa): the reference itself.

Only what upstream leaves open is settled here: lengths that are not a multiple of 240, silence, and bad arguments.
Source: resemble-perth 1.0.1 ``perth/perth_net/perth_net_implicit/perth_watermarker.py``.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import math
import operator
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ...errors import ArgumentError, AudioError, WatermarkError
from ..shared.arrays import vector
from . import BLOCK, FRAME, INNER_RATE, INSTALL, QUIET, SAMPLE_RATE, SHORTEST

RATES = range(1_000, 768_001)
NEEDS = {
    "perth": INSTALL,
    "torch": "pip install torch",
    "torchaudio": "pip install torchaudio",
    "librosa": "pip install librosa",
    "yaml": "pip install PyYAML",
    "pkg_resources": 'pip install "setuptools<81" (later releases have no pkg_resources)',
}


class Watermarker:
    """See the contract."""

    def __init__(self) -> None:
        module = importlib.import_module("perth.perth_net.perth_net_implicit.perth_watermarker")
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it loads
            self._perth = module.PerthImplicitWatermarker()
        self._librosa = importlib.import_module("librosa")

    def __call__(
        self, samples: np.ndarray, callback: Callable[..., Any] | None = None, loudest: float | None = None
    ) -> np.ndarray:
        padded = _padded(samples)
        if callback is not None:
            callback("watermark", 0, 1)
        marked = self._perth.apply_watermark(padded, SAMPLE_RATE) if loudest is None else self._beside(padded, loudest)
        if callback is not None:
            callback("watermark", 1, 1)
        return np.ascontiguousarray(marked[: len(samples)], dtype=np.float32)

    def levels(self, samples: np.ndarray) -> np.ndarray:
        magspec, _ = self._analysed(_padded(samples))
        return magspec.sum(dim=0).double().numpy()

    def _analysed(self, padded: np.ndarray) -> tuple[Any, Any]:
        """Levels and phases, both ``[1025, frames]``."""
        inner = self._librosa.resample(padded, orig_sr=SAMPLE_RATE, target_sr=INNER_RATE)
        return self._perth.perth_net.ap.signal_to_magphase(inner)

    def _beside(self, padded: np.ndarray, loudest: float) -> np.ndarray:
        """``apply_watermark`` and ``Encoder.forward``, but for the loudest frame."""
        net = self._perth.perth_net
        magspec, phase = self._analysed(padded)
        loud = (magspec.sum(dim=0) > QUIET * loudest).to(magspec)
        magspec[: net.subband] += net.encoder.layers(magspec[None, : net.subband])[0] * loud
        marked = net.ap.magphase_to_signal(magspec, phase).detach().numpy()
        return self._librosa.resample(marked, orig_sr=INNER_RATE, target_sr=SAMPLE_RATE)

    def detect(self, samples: np.ndarray, rate: int, callback: Callable[..., Any] | None = None) -> float:
        _check(samples)
        if operator.index(rate) not in RATES:
            raise ArgumentError(f"rate: expected {RATES[0]} to {RATES[-1]} Hz, got {rate} Hz")
        if math.ceil(len(samples) * (INNER_RATE / rate)) <= FRAME // 2:
            raise AudioError(f"watermark: expected more than 32 ms to look for a mark, got {len(samples)} samples at {rate} Hz")
        if callback is not None:
            callback("watermark", 0, 1)
        # librosa wants an integer of Python's own
        confidence = float(self._perth.get_watermark(samples, int(rate), round=False))
        if math.isnan(confidence):
            raise AudioError("watermark: expected sound to look for a mark in, got silence")
        return confidence


def create(resources: Any) -> Watermarker:
    """Nothing is taken from ``resources``: the weights come from resemble-perth."""
    if reason := missing():
        raise WatermarkError(reason)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
            return Watermarker()
    except (ImportError, OSError) as error:
        raise WatermarkError(f"resemble-perth cannot be loaded: {error}") from error


def missing() -> str | None:
    """Why resemble-perth cannot run, or None. Looks for its modules and imports none."""
    absent = [f"{name}: {how}" for name, how in NEEDS.items() if importlib.util.find_spec(name) is None]
    return f"resemble-perth needs what is not installed: {'; '.join(absent)}" if absent else None


def _padded(samples: np.ndarray) -> np.ndarray:
    """``samples`` in whole blocks."""
    _check(samples)
    length = max(math.ceil(len(samples) / BLOCK) * BLOCK, SHORTEST)
    return np.pad(samples, (0, length - len(samples)))


def _check(samples: np.ndarray) -> None:
    if not len(vector("samples", samples)):
        raise ArgumentError("samples: expected at least one sample, got none")
    bad = np.flatnonzero(~np.isfinite(samples))
    if len(bad):
        raise ArgumentError(f"samples: expected finite values, got {samples[bad[0]]} at {bad[0]}")
