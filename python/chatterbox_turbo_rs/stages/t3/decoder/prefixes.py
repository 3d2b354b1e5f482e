"""What the utterances of a voice share in one decoder: keys and values of ``[speaker | prompt tokens]``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from weakref import WeakKeyDictionary

import numpy as np

from .... import _core
from ....voice import Voice


class Prefixes:
    """The prefixes of the voices that a decoder has met. One goes when its voice does, and all go with the decoder."""

    def __init__(self, make: Callable[[np.ndarray, np.ndarray], _core.T3Prefix]) -> None:
        self._make = make
        self._known: WeakKeyDictionary[Voice, _core.T3Prefix] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def of(self, voice: Voice) -> _core.T3Prefix:
        """The same one at every call. The first prefill with it computes it; later ones are those of their text alone."""
        with self._lock:
            if voice not in self._known:
                self._known[voice] = self._make(voice.speaker_embedding, voice.t3_prompt_tokens)
            return self._known[voice]
