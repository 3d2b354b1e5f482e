"""``s3tokenizer.mel`` in Rust; see the contract in ``__init__.py``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ....checkpoint.resources import Resources


def create(resources: Resources) -> Callable[[np.ndarray], np.ndarray]:
    """The stage with the checkpoint's window and filters."""
    from .... import _core

    return _core.S3TokenizerMel(resources.core)
