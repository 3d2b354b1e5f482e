"""`watermark` in the Rust core, with the weights of the installed resemble-perth distribution (which is not imported)."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from ... import _core
from ...errors import WatermarkError
from . import INSTALL, WEIGHTS


class Watermarker:
    """See the contract."""

    def __init__(self, weights: Path) -> None:
        self._core = _core.Watermarker(str(weights))

        self.levels, self.detect = self._core.levels, self._core.detect

    def __call__(self, samples: np.ndarray, callback: Any = None, loudest: float | None = None) -> np.ndarray:
        return self._core.embed(samples, callback, loudest)


def create(resources: Any) -> Watermarker:
    """Nothing is taken from ``resources``: the weights come from resemble-perth."""
    if reason := missing():
        raise WatermarkError(reason)
    return Watermarker(next(filter(Path.is_file, _candidates())))


def missing() -> str | None:
    """Why the watermark cannot run, or None."""
    if any(map(Path.is_file, _candidates())):
        return None
    return f"the watermark's weights ({WEIGHTS}) are not installed: {INSTALL}"


def _candidates() -> list[Path]:
    found = [Path(str(d.locate_file(WEIGHTS))) for d in importlib.metadata.distributions(name="resemble-perth")]
    spec = importlib.util.find_spec("perth")
    return found + [Path(spec.origin).parent.parent / WEIGHTS] if spec and spec.origin else found
