"""Contract of stage `t3.decoder`: logits of the next speech token, one row a step.

``create(resources)`` gives a ``Decoder``, immutable and to be shared by threads; ``start`` gives a ``Session``, which one
thread uses at a time. The sequence is ``[speaker | prompt tokens | text ids | start token | generated tokens]`` with absolute
positions from 0: the first generated token stands at 2 + P + T.

Source: ``prepare_input_embeds`` and ``inference_turbo`` of ``src/chatterbox/models/t3/t3.py`` of resemble-ai/chatterbox at
5de7a54, over ``GPT2Model`` of transformers 5.2.0 (24 layers, ``gelu_new``). The token loop itself is ``token_loop.py``.

With int8 or int4 in ``resources.precision`` the Rust side holds its large weights in 8 or 4 bits (``docs/precision.md``); the Python side is
float32 at any.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

Callback = Callable[[str, int, int], Any]  # (stage, done, total); what it raises stops the work


class Session(Protocol):
    """One utterance."""

    def prefill(self, callback: Callback | None = None) -> np.ndarray:
        """Logits [speech_vocab] float32 after the start token; called again, the utterance begins anew."""

    def step(self, token: int) -> np.ndarray:
        """Appends ``token``; logits [speech_vocab] float32 after it.

        Raises ``ArgumentError`` before ``prefill``, for a token outside the vocabulary, and after ``max_tokens`` steps.
        """


class Decoder(Protocol):
    """The loaded network. ``start_token`` and ``stop_token`` are those of its configuration."""

    start_token: int
    stop_token: int

    def start(self, speaker_embedding: np.ndarray, prompt_tokens: np.ndarray, text_ids: np.ndarray, max_tokens: int) -> Session:
        """Prepares one utterance with room for ``max_tokens`` steps.

        ``speaker_embedding`` float32 [256], ``prompt_tokens`` int64 [0 to 375], ``text_ids`` int64 [1 or more].
        Raises ``ArgumentError`` for wrong sizes or dtypes, numbers that are not finite, ids outside their tables, and more
        positions (2 + P + T + ``max_tokens``) than the position table has.
        """
