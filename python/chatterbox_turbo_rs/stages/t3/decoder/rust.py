"""`t3.decoder` in Rust."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .... import _core
from ....resources import Resources
from ..sampler import SamplerParameters
from . import Callback


def create(resources: Resources) -> Decoder:
    return Decoder(resources)


class Decoder:
    """The contract's ``Decoder``; ``generate`` and ``generate_many`` run the whole token loop in Rust, ``keep_speech`` the filter."""

    def __init__(self, resources: Resources) -> None:
        self.start_token, self.stop_token = (resources.config["t3"][name] for name in ("start_token", "stop_token"))
        self._core = _core.T3Decoder(resources.core, resources.device, resources.precision)
        self.start, self.keep_speech = self._core.start, self._core.keep_speech
        self.hyperparameters = self._core.hyperparameters

    def generate(
        self,
        speaker_embedding: np.ndarray,
        prompt_tokens: np.ndarray,
        text_ids: np.ndarray,
        parameters: SamplerParameters,
        max_tokens: int,
        *,
        seed: int | None = None,
        uniforms: np.ndarray | None = None,
        callback: Callback | None = None,
    ) -> np.ndarray:
        """``token_loop.generate`` with the Rust sampler; draws are stream ``t3`` of ``seed``, or ``uniforms`` float64 [n]."""
        options: dict[str, Any] = {"seed": seed, "uniforms": uniforms, "max_tokens": max_tokens, "callback": callback}
        return self._core.generate(speaker_embedding, prompt_tokens, text_ids, **parameters.for_core(), **options)

    def generate_many(self, requests: Iterable[tuple], parameters: SamplerParameters, max_tokens: int, **options: Any) -> None:
        """``generate`` of every (speaker_embedding, prompt_tokens, text_ids, seed); ``options`` are those of ``_core``."""
        names = ("speaker_embedding", "prompt_tokens", "text_ids", "seed")
        shared = {**parameters.for_core(), "max_tokens": max_tokens}
        mappings: list[Any] = [{**shared, **dict(zip(names, request))} for request in requests]
        self._core.generate_many(mappings, **options)
