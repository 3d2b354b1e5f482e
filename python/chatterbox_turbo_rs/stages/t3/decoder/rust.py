"""`t3.decoder` in Rust."""

from __future__ import annotations

from typing import Any

import numpy as np

from .... import _core
from ....resources import Resources
from ..sampler import SamplerParameters
from .prefixes import Prefixes


def create(resources: Resources) -> Decoder:
    return Decoder(resources)


class Decoder:
    """The contract's ``Decoder``; ``generate`` runs the whole token loop in Rust, ``keep_speech`` the filter after it."""

    def __init__(self, resources: Resources) -> None:
        self.start_token, self.stop_token = (resources.config["t3"][name] for name in ("start_token", "stop_token"))
        self._core = _core.T3Decoder(resources.core, resources.device, resources.precision)
        self.start, self.start_from, self.prefix = self._core.start, self._core.start_from, self._core.prefix
        self.keep_speech, self.hyperparameters = self._core.keep_speech, self._core.hyperparameters
        self.prefix_of = Prefixes(self.prefix).of

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
        p = parameters
        source |= {"temperature": p.temperature, "top_p": p.top_p, "repetition_penalty": p.repetition_penalty}
        source |= {"top_k": min(max(p.top_k, 0), 1 << 31), "max_tokens": max_tokens}
        return self._core.generate(prefix or self.prefix(speaker_embedding, prompt_tokens), text_ids, **source)
