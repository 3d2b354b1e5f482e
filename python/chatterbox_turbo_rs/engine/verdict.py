"""Whether a segment was spoken as it should be, from its tokens and its mel: T3 sometimes does not stop, stops at once, or gets stuck."""

from __future__ import annotations

import numpy as np

from ..speech import Fault, FinishReason

FEWEST = 3.0
"""Speech tokens for a text token at least, where a text token is four characters:"""
FEWEST_FOR_CHARACTER = FEWEST / 4
"""characters count where text tokens are shorter (25 tokens a second: this is 33 characters a second)."""
STUCK = 25
"""Equal or silent tokens in a row, a second of them."""
CUT_END = 12.0
"""Decibels below the loudest frame within which an end is loud; speech has died away further by then."""


def of_tokens(tokens: np.ndarray, reason: FinishReason, text_tokens: int, characters: int, silence: int) -> tuple[Fault, ...]:
    """What is wrong with T3's ``tokens`` int64 ``[n]`` for a text of so many tokens and characters; ``silence`` is S3Gen's token."""
    faults: list[Fault] = []
    if reason == "length":
        faults.append("no stop")
    if len(tokens) < min(FEWEST * text_tokens, FEWEST_FOR_CHARACTER * characters):
        faults.append("too short")
    if max(_longest(tokens[1:] == tokens[:-1]) + 1, _longest(tokens == silence)) >= STUCK:
        faults.append("stuck")
    return tuple(faults)


def of_mel(mel: np.ndarray, closing: int) -> tuple[Fault, ...]:
    """What is wrong with the end of a log-mel ``[F, 80]`` (natural logarithm of magnitudes) before ``closing`` frames of silence."""
    levels = np.log(np.exp(mel[: len(mel) - closing].astype(np.float64)).mean(1)) * 20 / np.log(10)
    return ("cut end",) if len(levels) > 2 and levels[-2:].min() > levels.max() - CUT_END else ()


def _longest(flags: np.ndarray) -> int:
    """The longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return int((edges[1::2] - edges[::2]).max(initial=0))
