"""``s3tokenizer.tokens`` in Rust; see the contract in ``__init__.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ....checkpoint.resources import Resources


class Tokens:
    """The stage over one loaded network."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self.hyperparameters: Callable[[], dict[str, Any]] = core.hyperparameters

    def __call__(self, mel: np.ndarray, callback: Callable[[str, int, int], None] | None = None) -> np.ndarray:
        """Token ids ``[ceil(frames / 4)]``."""
        return self.of_all([mel], callback)[0]

    def of_all(self, mels: list[np.ndarray], callback: Callable[[str, int, int], None] | None = None) -> list[np.ndarray]:
        """Those of several clips, which share one reading of the weights."""
        return self._core.tokens(mels, callback)

    def pre_codes(self, mel: np.ndarray) -> np.ndarray:
        """The numbers before rounding, ``[ceil(frames / 4), 8]``."""
        return self._core.pre_codes(mel)


def create(resources: Resources) -> Tokens:
    """The stage with the checkpoint's weights, on the device of ``resources``."""
    from .... import _core

    return Tokens(_core.S3Tokenizer(resources.core, resources.device))
