"""``s3gen.flow`` in Rust; see the contract in ``__init__.py``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ....resources import Resources


def create(resources: Resources) -> Callable[..., np.ndarray]:
    """The stage, with the weights of ``resources`` on its device."""
    from .... import _core

    return _core.Flow(resources.core, resources.device).mel
