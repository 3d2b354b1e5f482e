"""T3's rows for requests that come and go: what joins takes its next step with those that are there.

Where both T3 stages are Rust's, the rows step together (``stages/t3/many.rs``); in another plan one utterance follows the other, whole.
The tokens are those of ``Pipeline.tokens`` either way. Used by one thread, but for ``interrupt``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ChatterboxError
from ..options import GenerationOptions
from ..voice import Voice
from .pipeline import Pipeline, Run, Text


@dataclass(frozen=True)
class Utterance:
    """What T3 needs to speak: the tokens are to be drawn with ``seed``."""

    run: Run
    voice: Voice
    text: Text
    options: GenerationOptions
    seed: int


Outcome = tuple[int, "np.ndarray | ChatterboxError"]
"""The key of an utterance and its raw tokens, or what is wrong with it."""


class Rows:
    """At most ``most`` utterances at a time."""

    def __init__(self, pipeline: Pipeline, most: int) -> None:
        self.pipeline, self.most = pipeline, most
        self._alone: dict[int, Utterance] = {}
        self._together: dict[int, Utterance] = {}
        self._batch: Any = None
        self.over: list[Outcome] = []
        """What ``run`` is to give next."""

    def __len__(self) -> int:
        return len(self._alone) + len(self._together)

    def admit(self, key: int, utterance: Utterance) -> None:
        """Begins an utterance: with its prefill, where rows step together. What is wrong with it, ``run`` tells."""
        plan = utterance.run.plan
        decoder = self.pipeline.stage("t3.decoder", plan["t3.decoder"])
        if not plan["t3.decoder"] == plan["t3.sampler"] == "rust":
            self._alone[key] = utterance
            return
        self._batch = self._batch or decoder.open_batch()
        self._together[key] = utterance
        options, begun = utterance.options, time.perf_counter()
        try:
            prefix = decoder.prefix_of(utterance.voice)
            request = {"prefix": prefix, "text_ids": utterance.text.ids, "seed": utterance.seed, "max_tokens": options.max_tokens}
            over = self._batch.admit(key, request | options.sampler.for_core(), utterance.run.callback)
        except ChatterboxError as error:
            over = [(key, error, 0.0)]
        utterance.run.timings["t3"] = utterance.run.timings.get("t3", 0.0) + time.perf_counter() - begun
        self._take(over)

    def run(self, seconds: float) -> list[Outcome]:
        """Steps for about so long, or until an utterance is over or ``interrupt`` is called; those that are over."""
        if self._together and not self.over:
            try:
                self._take(self._batch.run(seconds))
            except ChatterboxError as error:  # of a step that all rows take
                self.over += [(key, error) for key in self._together]
                self._together, self._batch = {}, None
        elif self._alone and not self.over:
            key = next(iter(self._alone))
            one = self._alone.pop(key)
            options = one.options
            try:
                tokens = self.pipeline.tokens(one.run, one.voice, one.text.ids, options.sampler, one.seed, options.max_tokens)
                self.over.append((key, tokens))
            except ChatterboxError as error:
                self.over.append((key, error))
        over, self.over = self.over, []
        return over

    def leave(self, key: int) -> None:
        """Frees the row of an utterance that nobody wants any more."""
        self._alone.pop(key, None)
        if self._together.pop(key, None) is not None and self._batch is not None:
            self._batch.leave(key)
        self.over = [(other, outcome) for other, outcome in self.over if other != key]

    def interrupt(self) -> None:
        """Ends a ``run`` of another thread after the step that is under way."""
        batch = self._batch
        if batch is not None:
            batch.interrupt()

    def _take(self, over: list[tuple[int, Any, float]]) -> None:
        for key, outcome, seconds in over:
            timings = self._together.pop(key).run.timings
            timings["t3"] = timings.get("t3", 0.0) + seconds
            self.over.append((key, outcome))
