"""``voice_encoder.embedding`` in Rust; see the contract in ``__init__.py``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ....resources import Resources


def create(resources: Resources) -> Callable[[np.ndarray], np.ndarray]:
    """The stage with the checkpoint's weights, on the device of ``resources``."""
    from .... import _core

    return _core.VoiceEncoder(resources.core, resources.device).embedding
