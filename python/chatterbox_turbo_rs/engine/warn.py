"""Warnings about speech, which point at the program that asked for it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping

from ..errors import TruncatedSpeechWarning
from ..options import MAX_TOKENS
from ..speech import Chunk, Speech


def of_cuts(results: Mapping[str, object], max_tokens: int) -> None:
    """One ``TruncatedSpeechWarning`` for all speeches among ``results``, by their names, that ``max_tokens`` cut; a chunk speaks for all before."""
    cut = {
        name: found.seconds
        for name, found in results.items()
        if isinstance(found, (Speech, Chunk)) and found.finish_reason == "length"
    }
    if cut:
        names = ", ".join(f"{name} ({seconds:.1f} s)" for name, seconds in cut.items())
        remedy = "speak the text in shorter parts" if max_tokens == MAX_TOKENS else "raise max_tokens, or speak shorter parts"
        message = f"{names}: cut off at max_tokens={max_tokens} before the text was over; {remedy}"
        warnings.warn(TruncatedSpeechWarning(message), stacklevel=_outside())


def _outside() -> int:
    """The ``stacklevel`` for ``of_cuts`` of the first frame that is not this package's."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(f"{__package__.partition('.')[0]}."):
        level, frame = level + 1, frame.f_back
    return level
