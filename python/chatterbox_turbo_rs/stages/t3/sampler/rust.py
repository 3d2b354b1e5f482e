"""`t3.sampler` in Rust."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .... import _core
from ....resources import Resources
from . import SamplerParameters


def create(resources: Resources) -> Callable[..., int | None]:
    return sample


def sample(logits: np.ndarray, history: np.ndarray, parameters: SamplerParameters, uniform: float) -> int | None:
    return _core.t3_sampler(
        logits,
        history,
        temperature=parameters.temperature,
        top_k=min(max(parameters.top_k, 0), 1 << 31),
        top_p=parameters.top_p,
        repetition_penalty=parameters.repetition_penalty,
        uniform=uniform,
    )
