"""Many texts at once: T3 decodes them together, and S3Gen speaks each as soon as its tokens are there.

Together, where both T3 stages are Rust's; in another plan one text after the other. Every text has its own voice, seed and
draws, and the samples are those of ``Pipeline.generate``. S3Gen runs between two steps of T3, in the caller's thread: each
keeps all cores busy by itself, so that a thread of its own would not end sooner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Union

import numpy as np

from ..errors import ChatterboxError
from ..plan import Plan
from ..speech import Speech
from ..stages.t3.sampler import SamplerParameters
from ..voice import Voice
from .observer import Callback, Watch
from .pipeline import Pipeline, Run

AnyVoice = Union[Voice, str, Path, None]
Result = Union[Speech, ChatterboxError]
Taker = Callable[[int, Result], Any]


@dataclass(frozen=True)
class Speaking:
    """What all texts of a call share."""

    plan: Plan
    parameters: SamplerParameters
    max_tokens: int
    watermark: str | None
    loudness: str | None


@dataclass(frozen=True)
class Item:
    """One text, ready for T3."""

    index: int
    run: Run
    voice: Voice
    seed: int
    normalized: str
    text_ids: np.ndarray
    prefix: Any
    """What T3 shares among the texts of a voice, where they are decoded together."""


class Batch:
    """One call of ``generate_many``. A ``ChatterboxError`` of a text stands in its place; everything else ends the call."""

    def __init__(self, pipeline: Pipeline, speaking: Speaking, rows: int, call: Callback | None, taker: Taker | None) -> None:
        self.pipeline = pipeline
        self.speaking = speaking
        self.rows = rows
        self.together = speaking.plan["t3.decoder"] == speaking.plan["t3.sampler"] == "rust"
        self.callback = None if call is None else Watch(call)
        self.taker = taker
        self.results: dict[int, Result] = {}
        self.total = 0

    def open(
        self, voices: Iterable[AnyVoice], opener: Callable[[AnyVoice, Any], Voice], shared: bool
    ) -> list[Voice | ChatterboxError]:
        """The voices, each opened once. The error of one that all texts share is raised; of another, it stands in its place."""
        opened: dict[Any, Voice | ChatterboxError] = {}
        keys = []
        for voice in voices:
            keys.append(str(voice) if isinstance(voice, (str, Path)) else id(voice))
            if keys[-1] in opened:
                continue
            try:
                found = opener(voice, self.callback)
                found.check(self.pipeline.config, self.pipeline.fingerprint)
                opened[keys[-1]] = found
            except ChatterboxError as error:
                if shared:
                    raise
                opened[keys[-1]] = self._own(error)
        return [opened[key] for key in keys]

    def speak(self, texts: Sequence[str], voices: Sequence[Voice | ChatterboxError], seeds: Sequence[int]) -> list[Result]:
        """Results in the order of the texts, which are as many as ``voices`` and ``seeds``; an error as voice is that of its text."""
        self.total = len(texts)
        items = []
        for index, (text, voice, seed) in enumerate(zip(texts, voices, seeds)):
            try:
                items.append(self._begin(index, text, voice, seed))
            except ChatterboxError as error:
                self._finish(index, self._own(error))
        if self.together:
            self._together(items)
        else:
            for item in items:
                self._sound(item, partial(self._tokens, item))
        return [self.results[index] for index in range(self.total)]

    def _begin(self, index: int, text: str, voice: Voice | ChatterboxError, seed: int) -> Item:
        if isinstance(voice, ChatterboxError):
            raise voice
        run = Run(self.pipeline, voice.plan(self.speaking.plan), self.callback)
        normalized = run("text.normalize", text)
        text_ids = run("text.tokenize", normalized)
        prefix = self.pipeline.stage("t3.decoder", "rust").prefix_of(voice) if self.together else None
        return Item(index, run, voice, seed, normalized, text_ids, prefix)

    def _together(self, items: Sequence[Item]) -> None:
        def take(position: int, outcome: np.ndarray | ChatterboxError, seconds: float) -> None:
            item = items[position]
            item.run.timings["t3"] = seconds
            if isinstance(outcome, ChatterboxError):
                self._finish(item.index, outcome)
            else:
                self._sound(item, lambda: outcome)

        decoder = self.pipeline.stage("t3.decoder", "rust")
        requests = [(item.prefix, item.text_ids, item.seed) for item in items]
        options = {"finished": take, "rows": self.rows, "callback": self.callback}
        decoder.generate_many(requests, self.speaking.parameters, self.speaking.max_tokens, **options)

    def _tokens(self, item: Item) -> np.ndarray:
        speaking = self.speaking
        return self.pipeline.tokens(item.run, item.voice, item.text_ids, speaking.parameters, item.seed, speaking.max_tokens)

    def _sound(self, item: Item, tokens: Callable[[], np.ndarray]) -> None:
        """Speaks T3's ``tokens()``, and ends the text with that or with its error."""
        try:
            result: Result = self.pipeline.sound(
                item.run, item.voice, item.normalized, tokens(), item.seed, self.speaking.watermark
            )
        except ChatterboxError as error:
            result = self._own(error)
        self._finish(item.index, result)

    def _finish(self, index: int, result: Result) -> None:
        self.results[index] = result
        if self.taker is not None:
            self.taker(index, result)
        if self.callback is not None:
            self.callback("texts", len(self.results), self.total)

    def _own(self, error: ChatterboxError) -> ChatterboxError:
        """``error``, unless the callback raised it, which ends the call."""
        if self.callback is not None and error is self.callback.raised:
            raise error
        return error
