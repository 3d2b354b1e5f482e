"""What the utterances of a voice share in one decoder: keys and values of ``[speaker | prompt tokens]``."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

import numpy as np

from .... import _core
from ....voice import Voice
from ...shared.lock import Lock

KEPT = 4
"""Prefixes that a decoder keeps. At Turbo's size each takes 36.5 MB with int8 or int4 and 75.8 MB in float32 (376 positions)."""


class Prefixes:
    """The prefixes of the voices that spoke last. One goes when its voice does, and all go with the decoder."""

    def __init__(self, make: Callable[[np.ndarray, np.ndarray], _core.T3Prefix]) -> None:
        self._make = make
        self._known: WeakKeyDictionary[Voice, _core.T3Prefix] = WeakKeyDictionary()  # the last used stands last
        self._lock = Lock()

    def of(self, voice: Voice) -> _core.T3Prefix:
        """The same one while it is kept. The first prefill with it computes it; later ones are those of their text alone."""
        with self._lock:
            known = self._known.pop(voice, None)
            prefix = self._make(voice.speaker_embedding, voice.t3_prompt_tokens) if known is None else known
            self._known[voice] = prefix
            while len(self._known) > KEPT:
                self._known.pop(next(iter(self._known)), None)
            return prefix
