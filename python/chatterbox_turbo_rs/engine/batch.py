"""Many texts at once: T3 decodes them together, and S3Gen speaks each as soon as its tokens are there.

Together, where both T3 stages are Rust's; in another plan one text after the other. Every text has its own voice, seed and
draws, and the samples are those of ``Pipeline.generate``. S3Gen runs between two steps of T3, in the thread of the call: each
keeps all cores busy by itself, so that a thread of its own would not end sooner. Nothing of a text is kept when it is finished.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..errors import ChatterboxError
from ..options import AnyVoice, GenerationOptions, Many, Result
from ..plan import Plan
from ..voice import Voice
from .observer import Callback, Watch
from .pipeline import Pipeline, Run, Text
from .voices import Voices

Taker = Callable[[int, Result], object]
Again = Callable[[int, Result], "int | None"]
"""The seed with which a text is to be spoken once more, or None."""
WINDOW = 16
"""Texts are begun by so many for each row: what they need (ids, voices, T3's prefixes) does not grow with their number."""


@dataclass(frozen=True)
class Item:
    """One text, ready for T3."""

    index: int
    run: Run
    voice: Voice
    seed: int
    text: Text


class Batch:
    """Many texts of one call. A ``ChatterboxError`` of a text is its result; everything else ends the call."""

    def __init__(self, pipeline: Pipeline, voices: Voices, plan: Plan, options: GenerationOptions, call: Callback | None) -> None:
        self.pipeline, self.voices, self.plan, self.options = pipeline, voices, plan, options
        self.together = plan["t3.decoder"] == plan["t3.sampler"] == "rust"
        self.callback = None if call is None else Watch(call)
        self.past = self.done = self.total = 0

    def open(self, voice: AnyVoice) -> Voice:
        """The voice, when it fits the model."""
        found = self.voices.open(voice, self.plan, self.options.loudness, self.callback)
        found.check(self.pipeline.config, self.pipeline.fingerprint)
        return found

    def speak(self, many: Many, taker: Taker, again: Again | None = None, unit: str = "texts") -> None:
        """Calls ``taker(index, result)`` for every text as soon as it is finished. Raises what is wrong with a voice that all share.

        Where ``again(index, result)`` gives a seed, the text isn't finished: it is spoken again behind those that were begun
        with it. ``unit`` is what ``progress`` calls the texts.
        """
        self.taker, self.again, self.total, self.unit = taker, again, len(many.texts), unit
        self.repeated: list[Item] = []
        if many.shared and many.texts:
            self.open(many.voices[0])
        size = WINDOW * many.rows if self.together else 1
        for start in range(0, self.total, size):
            opened: dict[Any, Voice | ChatterboxError] = {}
            items: dict[int, Item] = {}
            end = min(start + size, self.total)
            for index in range(start, end):
                try:
                    voice = self._opened(many.voices[index], opened)
                    items[len(items)] = self._begin(index, many.texts[index], voice, many.seeds[index])
                except ChatterboxError as error:
                    self._finish(index, self._own(error))
            while items:
                if self.together:
                    self._together(items, many.rows, self.total - end)
                else:
                    for item in items.values():
                        self._sound(item, partial(self._tokens, item))
                items, self.repeated = dict(enumerate(self.repeated)), []

    def _opened(self, voice: AnyVoice, opened: dict[Any, Voice | ChatterboxError]) -> Voice:
        """The voice, opened once for all that name it; so is its error."""
        key = os.fspath(voice) if isinstance(voice, (str, os.PathLike)) else id(voice)
        if key not in opened:
            try:
                opened[key] = self.open(voice)
            except ChatterboxError as error:
                opened[key] = self._own(error)
        found = opened[key]
        if isinstance(found, ChatterboxError):
            raise found
        return found

    def _begin(self, index: int, text: str, voice: Voice, seed: int) -> Item:
        run = Run(self.pipeline, voice.plan(self.plan), self.callback)
        return Item(index, run, voice, seed, self.pipeline.prepare(run, text, self.options))

    def _together(self, items: dict[int, Item], rows: int, behind: int) -> None:
        """Speaks the texts of a window; ``behind`` it are so many more."""

        def take(position: int, outcome: np.ndarray | ChatterboxError, seconds: float) -> None:
            item = items.pop(position)
            item.run.timings["t3"] = seconds
            if isinstance(outcome, ChatterboxError):
                self._finish(item.index, outcome)
            else:
                self._sound(item, lambda: outcome)

        decoder = self.pipeline.stage("t3.decoder", "rust")
        limit = self.options.max_tokens + 1
        past, self.past = self.past, self.past + limit * len(items)

        def report(stage: str, done: int, total: int) -> None:
            assert self.callback is not None
            if stage == "t3":
                done, total = past + done, past + total + limit * behind
            self.callback(stage, done, total)

        options = {"finished": take, "rows": rows, "callback": None if self.callback is None else report}
        decoder.generate_many(self._requests(items.values(), decoder.prefix_of), self.options.sampler, limit - 1, **options)

    @staticmethod
    def _requests(items: Iterable[Item], prefix_of: Callable[[Voice], Any]) -> Iterable[tuple[Any, np.ndarray, int]]:
        """What T3 takes; it alone holds the prefixes, one for each voice."""
        prefixes: dict[int, Any] = {}
        for item in items:
            if id(item.voice) not in prefixes:
                prefixes[id(item.voice)] = prefix_of(item.voice)
            yield prefixes[id(item.voice)], item.text.ids, item.seed

    def _tokens(self, item: Item) -> np.ndarray:
        options = self.options
        return self.pipeline.tokens(item.run, item.voice, item.text.ids, options.sampler, item.seed, options.max_tokens)

    def _sound(self, item: Item, tokens: Callable[[], np.ndarray]) -> None:
        """Speaks T3's ``tokens()``, and ends the text with that or with its error."""
        try:
            options = replace(self.options, seed=item.seed)
            result: Result = self.pipeline.sound(item.run, item.voice, item.text, tokens(), options)
        except ChatterboxError as error:
            result = self._own(error)
        seed = None if self.again is None else self.again(item.index, result)
        if seed is None:
            self._finish(item.index, result)
        else:
            self.repeated.append(replace(item, seed=seed, run=Run(self.pipeline, item.run.plan, self.callback)))

    def _finish(self, index: int, result: Result) -> None:
        self.done += 1
        self.taker(index, result)
        if self.callback is not None:
            self.callback(self.unit, self.done, self.total)

    def _own(self, error: ChatterboxError) -> ChatterboxError:
        """``error``, unless the callback raised it, which ends the call."""
        if self.callback is not None and error is self.callback.raised:
            raise error
        return error
