"""`t3.sampler` in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ....checkpoint.resources import Resources
from ....errors import ArgumentError
from . import SamplerParameters


def create(resources: Resources) -> Callable[..., int | None]:
    return sample


def sample(logits: np.ndarray, history: np.ndarray, parameters: SamplerParameters, uniform: float) -> int | None:
    check(logits, history, uniform)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        scores = process(logits, history, parameters)
    if scores.max(initial=-np.inf) == -np.inf:
        return None
    cumulative = np.cumsum(softmax(scores), dtype=np.float64)
    at = np.searchsorted(cumulative, uniform * cumulative[-1], side="right")
    # Rounding can lift the target to the whole sum; then the last token with any probability is meant.
    return int(min(at, np.searchsorted(cumulative, cumulative[-1])))


def process(logits: np.ndarray, history: np.ndarray, parameters: SamplerParameters) -> np.ndarray:
    """Scores [n]: -inf for tokens that cannot be drawn."""
    scores = logits.copy()
    if parameters.temperature > 0 and parameters.temperature != 1.0:
        scores /= np.float32(parameters.temperature)
        finite(scores, "logits / temperature")
    if 0 < parameters.top_k < len(scores):
        scores[scores < np.partition(scores, -parameters.top_k)[-parameters.top_k]] = -np.inf
    if parameters.top_p < 1.0 and scores.max(initial=-np.inf) > -np.inf:
        order = np.argsort(scores, kind="stable")
        mass = np.cumsum(softmax(scores[order]), dtype=np.float64).astype(np.float32)
        removed = mass <= np.float32(1.0 - parameters.top_p)
        removed[-1] = False  # the best token always stays
        scores[order[removed]] = -np.inf
    if parameters.repetition_penalty != 1.0:
        seen, penalty = np.unique(history), np.float32(parameters.repetition_penalty)
        scores[seen] = np.where(scores[seen] < 0, scores[seen] * penalty, scores[seen] / penalty)
        finite(scores, "logits after repetition_penalty")
    return scores


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities, float32, from float64 exponentials."""
    exponentials = np.exp((scores - scores.max()).astype(np.float64))
    return (exponentials / np.cumsum(exponentials)[-1]).astype(np.float32)


def check(logits: np.ndarray, history: np.ndarray, uniform: float) -> None:
    for name, value, dtype in (("logits", logits, np.float32), ("history", history, np.int64)):
        if not isinstance(value, np.ndarray) or value.dtype != dtype or value.ndim != 1:
            shape = f"{value.dtype} array of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            raise ArgumentError(f"{name}: expected {np.dtype(dtype)} [n], got {shape}")
    if not 0.0 <= uniform < 1.0:
        raise ArgumentError(f"uniform: expected a number in [0, 1), got {uniform}")
    finite(logits, "logits")
    outside = history[(history < 0) | (history >= len(logits))]
    if len(outside):
        raise ArgumentError(f"history: expected tokens in 0..{len(logits)}, got {outside[0]}")


def finite(scores: np.ndarray, what: str) -> None:
    bad = np.flatnonzero(np.isnan(scores) | (scores == np.inf))
    if len(bad):
        raise ArgumentError(f"{what}: expected finite numbers or -inf, got {scores[bad[0]]} for token {bad[0]}")
