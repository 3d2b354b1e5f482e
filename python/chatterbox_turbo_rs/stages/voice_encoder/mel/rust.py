"""``voice_encoder.mel`` in Rust; see the contract in ``__init__.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def create(resources: Any) -> Callable[[np.ndarray], np.ndarray]:
    """The stage; it needs nothing of ``resources``."""
    from .... import _core

    return _core.voice_encoder_mel
