"""``s3gen.encoder`` in Rust; see the contract in ``__init__.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ....checkpoint.resources import Resources


class Encoder:
    """The stage over one loaded network."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self.hyperparameters: Callable[[], dict[str, Any]] = core.hyperparameters

    def __call__(self, ids: np.ndarray, callback: Callable[[str, int, int], object] | None = None) -> np.ndarray:
        """The mean mel ``[2 T, 80]``."""
        return self._core.mu(ids, callback)


def create(resources: Resources) -> Encoder:
    """The stage, with the weights of ``resources`` on its device."""
    from .... import _core

    return Encoder(_core.FlowEncoder(resources.core, resources.device, resources.precision))
