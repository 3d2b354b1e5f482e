"""Replaces the random draws of the official package by given numbers, so that two programs can be compared exactly.

``injected(draws)`` is a context in which
- ``torch.multinomial`` (T3, one call a token) takes the next uniform and inverts the cumulative distribution over ascending ids,
- ``torch.randn`` / ``torch.randn_like`` of 80 channels (the flow) return columns of one array ``flow`` [2(K+N), 80]: upstream
  draws the generated region alone (rows from 2K) and then the whole length, of which only rows below 2K survive,
- ``Uniform.sample`` (SineGen's phases) returns ``phases`` [9], whose first entry upstream forces to 0,
- ``torch.randn_like`` of 9 channels (SineGen) returns ``noise`` [480F, 9]; the source module's third draw is never used.

Arrays may be longer than needed: a draw is taken by its absolute position. Any other draw raises ``RuntimeError``.
Order of the draws: resemble-ai/chatterbox at commit 5de7a54, tts_turbo.py, t3.py, s3gen.py, flow_matching.py and hifigan.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.distributions.uniform import Uniform


@dataclass(frozen=True)
class Draws:
    """``uniforms`` [steps] float64 in [0, 1), ``flow`` [>= 2(K+N), 80], ``phases`` [9], ``noise`` [>= 480F, 9], all float32."""

    uniforms: np.ndarray | None = None
    flow: np.ndarray | None = None
    phases: np.ndarray | None = None
    noise: np.ndarray | None = None


def inverse_cdf(probabilities: np.ndarray, uniform: float) -> int:
    """The first id whose cumulative probability (float64) exceeds ``uniform`` times the total."""
    cumulative = np.cumsum(probabilities.astype(np.float64))
    found = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
    return min(found, int(np.flatnonzero(probabilities)[-1]))


@contextlib.contextmanager
def injected(draws: Draws) -> Iterator[None]:
    """Makes the official modules use ``draws`` until the context ends. Not for use in several threads."""
    from chatterbox.models.s3gen.flow_matching import CausalConditionalCFM

    original_forward = CausalConditionalCFM.forward
    prompt = 0
    steps = iter(() if draws.uniforms is None else draws.uniforms)

    def multinomial(probabilities: torch.Tensor, num_samples: int) -> torch.Tensor:
        uniform = next(steps, None)
        if uniform is None or num_samples != 1 or probabilities.shape[0] != 1:
            raise RuntimeError("no uniform is left for torch.multinomial")
        return torch.tensor([[inverse_cdf(probabilities[0].numpy(), float(uniform))]])

    def randn(*shape: int, **options: Any) -> torch.Tensor:
        if len(shape) != 3 or shape[:2] != (1, 80):
            raise RuntimeError(f"unexpected torch.randn{shape}")
        return torch.full(shape, float("nan"), dtype=options.get("dtype"))  # filled in by `forward`, which knows where it lies

    def forward(self: Any, mu: torch.Tensor, *rest: Any, noised_mels: torch.Tensor | None = None, **options: Any) -> Any:
        if noised_mels is None:
            raise RuntimeError("expected the noise of the generated region")
        nonlocal prompt
        prompt = mu.shape[2] - noised_mels.shape[2]
        generated = _columns(draws.flow, mu)[:, :, prompt:]
        return original_forward(self, mu, *rest, noised_mels=generated, **options)

    def randn_like(like: torch.Tensor, **_: Any) -> torch.Tensor:
        if like.ndim == 3 and like.shape[1] == 80:
            whole = _columns(draws.flow, like)
            whole[:, :, prompt:] = float("nan")  # upstream must replace these
            return whole
        if like.ndim == 3 and like.shape[1] == 9:
            return _columns(draws.noise, like)
        if like.ndim == 3 and like.shape[2] == 1:
            return torch.zeros_like(like)
        raise RuntimeError(f"unexpected torch.randn_like of shape {tuple(like.shape)}")

    def sample(_: Uniform, sample_shape: Any = ()) -> torch.Tensor:
        if tuple(sample_shape) != (1, 9, 1) or draws.phases is None:
            raise RuntimeError(f"unexpected Uniform.sample{tuple(sample_shape)}")
        return torch.from_numpy(np.array(draws.phases, np.float32)).reshape(1, 9, 1)

    with (
        mock.patch.object(torch, "multinomial", multinomial),
        mock.patch.object(torch, "randn", randn),
        mock.patch.object(torch, "randn_like", randn_like),
        mock.patch.object(Uniform, "sample", sample),
        mock.patch.object(CausalConditionalCFM, "forward", forward),
    ):
        yield


def _columns(rows: np.ndarray | None, like: torch.Tensor) -> torch.Tensor:
    """The first rows of [T, C] as [1, C, T]."""
    length = like.shape[2]
    if rows is None or len(rows) < length or rows.shape[1] != like.shape[1]:
        raise RuntimeError(f"draws for {tuple(like.shape)}: found {None if rows is None else rows.shape}")
    return torch.from_numpy(np.ascontiguousarray(rows[:length].T, np.float32))[None].to(like.dtype)
