"""The token loop over any `t3.decoder` and `t3.sampler`, and the filter after it.

``generate`` returns the tokens as upstream does; ``keep_speech`` makes of them what S3Gen is given.

Source: ``inference_turbo`` of ``src/chatterbox/models/t3/t3.py`` and ``generate`` of ``src/chatterbox/tts_turbo.py`` of
resemble-ai/chatterbox at 5de7a54; ``stages/t3/generate.rs`` is the same loop in Rust.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ..speech import FinishReason
from ..stages.t3.decoder import Callback, Decoder, Session
from ..stages.t3.sampler import SamplerParameters

SILENCE_TOKENS = 3  # copies of S3Gen's silence token that end every utterance


def generate(
    decoder: Decoder,
    sampler: Callable[..., int | None],
    speaker_embedding: np.ndarray,
    prompt_tokens: np.ndarray,
    text_ids: np.ndarray,
    parameters: SamplerParameters,
    uniforms: Callable[[int], float],
    max_tokens: int,
    callback: Callback | None = None,
) -> np.ndarray:
    """Tokens of one utterance, int64 [n], n at most 1 + ``max_tokens``; ``uniforms(step)`` is the number a step draws with.

    The first token comes from the prefill, with the start token alone as history, and is never compared with the stop token.
    Then at most ``max_tokens`` steps follow, each with all generated tokens as history. A step that samples the stop token
    ends the loop, as does a row of -inf alone (which adds no token). A stop token at the end is taken off.

    ``callback("t3", tokens so far, 1 + max_tokens)`` is called after every token; what it raises stops the loop.
    """
    session = decoder.start(speaker_embedding, prompt_tokens, text_ids, max_tokens)
    tokens = list(steps(decoder, session, sampler, parameters, uniforms, max_tokens, callback))
    if tokens and tokens[-1] == decoder.stop_token:
        tokens.pop()
    return np.array(tokens, np.int64)


def steps(
    decoder: Decoder,
    session: Session,
    sampler: Callable[..., int | None],
    parameters: SamplerParameters,
    uniforms: Callable[[int], float],
    max_tokens: int,
    callback: Callback | None = None,
) -> Iterator[int]:
    """The same tokens one by one, as they are drawn, and the stop token where one ended the loop."""
    tokens: list[int] = []
    logits, history = session.prefill(callback), [decoder.start_token]
    while (token := sampler(logits, np.array(history, np.int64), parameters, uniforms(len(tokens)))) is not None:
        tokens.append(token)
        if callback:
            callback("t3", len(tokens), 1 + max_tokens)
        yield token
        if len(tokens) > max_tokens or (len(tokens) > 1 and token == decoder.stop_token):
            break
        logits, history = session.step(token), tokens


def finish_reason(tokens: np.ndarray, max_tokens: int) -> FinishReason:
    """Why the loop that returned ``tokens`` ended, in Python or in Rust.

    Only the limit leaves 1 + ``max_tokens`` of them: a stop token at the end is taken off, and a row of -inf adds none.
    """
    return "length" if len(tokens) > max_tokens else "stop"


def keep_speech(tokens: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """The tokens that S3Gen knows (no start, no stop), then three silences: int64 [n + 3]. ``config`` is section ``s3gen``."""
    known = tokens[(tokens >= 0) & (tokens < config["vocab"])]
    return np.concatenate([known, np.full(SILENCE_TOKENS, config["silence_token"], np.int64)])
