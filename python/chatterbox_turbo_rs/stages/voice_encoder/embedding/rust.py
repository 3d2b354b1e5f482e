"""``voice_encoder.embedding`` in Rust; see the contract in ``__init__.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ....checkpoint.resources import Resources


class Embedding:
    """The stage over one loaded network."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self.hyperparameters: Callable[[], dict[str, Any]] = core.hyperparameters

    def __call__(self, mel: np.ndarray, callback: Callable[[str, int, int], object] | None = None) -> np.ndarray:
        """The embedding ``[256]``."""
        return self._core.embedding(mel, callback)


def create(resources: Resources) -> Embedding:
    """The stage with the checkpoint's weights, on the device of ``resources``."""
    from .... import _core

    return Embedding(_core.VoiceEncoder(resources.core, resources.device))
