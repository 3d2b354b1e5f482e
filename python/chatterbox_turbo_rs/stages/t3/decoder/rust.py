"""`t3.decoder` in Rust."""

from __future__ import annotations

from typing import Any

import numpy as np

from .... import _core
from ....resources import Resources
from ..sampler import SamplerParameters
from . import Callback


def create(resources: Resources) -> Decoder:
    return Decoder(resources)


class Decoder:
    """The contract's ``Decoder``; ``generate`` runs the whole token loop in Rust, ``keep_speech`` the filter after it."""

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
        options: dict[str, Any] = {
            "temperature": parameters.temperature,
            "top_k": min(max(parameters.top_k, 0), 1 << 31),
            "top_p": parameters.top_p,
            "repetition_penalty": parameters.repetition_penalty,
        }
        options |= {"seed": seed, "uniforms": uniforms, "max_tokens": max_tokens, "callback": callback}
        return self._core.generate(speaker_embedding, prompt_tokens, text_ids, **options)
