"""``s3gen.flow`` in Rust; see the contract in ``__init__.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ....checkpoint.resources import Resources


class Flow:
    """The stage over one loaded network."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self.hyperparameters: Callable[[], dict[str, Any]] = core.hyperparameters

    def __call__(
        self,
        mu: np.ndarray,
        xvector: np.ndarray,
        prompt_mel: np.ndarray,
        noise: np.ndarray,
        callback: Callable[[str, int, int], object] | None = None,
    ) -> np.ndarray:
        """The mel ``[T - M, 80]``."""
        return self._core.mel(mu, xvector, prompt_mel, noise, callback)


def create(resources: Resources) -> Flow:
    """The stage, with the weights of ``resources`` on its device."""
    from .... import _core

    return Flow(_core.Flow(resources.core, resources.device, resources.precision))
