"""`t3.decoder` in Rust."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .... import _core
from ....checkpoint.resources import Resources
from ..sampler import SamplerParameters
from .prefixes import Prefixes


def create(resources: Resources) -> Decoder:
    return Decoder(resources)


class Decoder:
    """The contract's ``Decoder``; ``generate`` and ``generate_many`` run the whole token loop in Rust, ``keep_speech`` the filter."""

    def __init__(self, resources: Resources) -> None:
        self.start_token, self.stop_token = (resources.config["t3"][name] for name in ("start_token", "stop_token"))
        self._core = _core.T3Decoder(resources.core, resources.device, resources.precision)
        self.start, self.start_from, self.prefix = self._core.start, self._core.start_from, self._core.prefix
        self.keep_speech, self.step_bytes, self.open_batch = self._core.keep_speech, self._core.step_bytes, self._core.open_batch
        self.hyperparameters, self.prefix_of = self._core.hyperparameters, Prefixes(self.prefix).of

    def generate(
        self,
        speaker_embedding: np.ndarray,
        prompt_tokens: np.ndarray,
        text_ids: np.ndarray,
        parameters: SamplerParameters,
        max_tokens: int,
        *,
        prefix: _core.T3Prefix | None = None,
        **source: Any,
    ) -> np.ndarray:
        """``token_loop.generate`` with the Rust sampler. ``source``: ``seed`` (draws are its stream ``t3``) or ``uniforms`` float64
        [n], and ``callback``; ``prefix``: that of the first two, which begin no other utterance without it."""
        prefix = prefix or self.prefix(speaker_embedding, prompt_tokens)
        return self._core.generate(prefix, text_ids, **parameters.for_core(), max_tokens=max_tokens, **source)

    def generate_many(self, requests: Iterable[tuple], parameters: SamplerParameters, max_tokens: int, **options: Any) -> None:
        """``generate`` of every (prefix, text_ids, seed); ``options`` are those of ``_core``."""
        shared = {**parameters.for_core(), "max_tokens": max_tokens}
        mappings: Any = ({**shared, **dict(zip(("prefix", "text_ids", "seed"), request))} for request in requests)
        self._core.generate_many(mappings, **options)  # which keeps a prefix until its last text is finished
