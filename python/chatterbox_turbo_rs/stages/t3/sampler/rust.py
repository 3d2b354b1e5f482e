"""`t3.sampler` in Rust."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .... import _core
from ....checkpoint.resources import Resources
from . import SamplerParameters


def create(resources: Resources) -> Callable[..., int | None]:
    return sample


def sample(logits: np.ndarray, history: np.ndarray, parameters: SamplerParameters, uniform: float) -> int | None:
    return _core.t3_sampler(logits, history, **parameters.for_core(), uniform=uniform)
