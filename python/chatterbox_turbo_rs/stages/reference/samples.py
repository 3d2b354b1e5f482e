"""The check of a clip's samples that the stages of this group share."""

from __future__ import annotations

import numpy as np

from ...errors import ArgumentError


def check(samples: np.ndarray) -> np.ndarray:
    """``samples`` as it is when it is a float32 array ``[n]``, else :class:`ArgumentError`."""
    if not isinstance(samples, np.ndarray) or samples.dtype != np.float32 or samples.ndim != 1:
        got = type(samples).__name__
        if isinstance(samples, np.ndarray):
            got = f"{samples.dtype} array of shape {samples.shape}"
        raise ArgumentError(f"samples: expected float32 [n], got {got}")
    return samples
