"""``s3gen.vocoder`` in Rust; see the contract in ``__init__.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ....checkpoint.resources import Resources


class Vocoder:
    """The stage and its parts."""

    def __init__(self, resources: Resources) -> None:
        from .... import _core

        core = _core.Vocoder(resources.core, resources.device, resources.precision)
        self.fade: np.ndarray = core.fade
        self.f0: Callable[..., np.ndarray] = core.f0
        self.source: Callable[..., np.ndarray] = core.source
        self.samples_from_source: Callable[..., np.ndarray] = core.samples_from_source
        self.hyperparameters: Callable[[], dict[str, Any]] = core.hyperparameters
        self._samples: Callable[..., np.ndarray] = core.samples

    def __call__(
        self, mel: np.ndarray, phases: np.ndarray, noise: np.ndarray, callback: Callable[[str, int, int], object] | None = None
    ) -> np.ndarray:
        return self._samples(mel, phases, noise, callback)


def create(resources: Resources) -> Vocoder:
    """The stage, with the weights of ``resources`` on its device."""
    return Vocoder(resources)
