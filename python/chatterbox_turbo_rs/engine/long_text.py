"""Texts of any length: their segments spoken together, the ones that went wrong again, and joined.

A text of one segment is spoken as it is. The joined speech depends on text, seed and options alone, not on what else is spoken.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..constants import SAMPLE_RATE
from ..errors import ChatterboxError
from ..options import ROWS, GenerationOptions, Many, Result
from ..speech import Speech, SpokenSegment
from ..voice import Voice
from . import draws
from .batch import Batch, Taker
from .joins import Edges, silence
from .segments import Segment, segments

ATTEMPT = "attempt"
"""Stream of the seeds with which a segment is spoken again."""
_NOTHING = np.empty(0, np.float32)


class Pieces:
    """The segments of many texts: ``many`` are their spoken ones, and ``take`` and ``again`` what ``Batch.speak`` is given."""

    def __init__(self, many: Many, options: GenerationOptions, taker: Taker) -> None:
        self._taker, self._attempts = taker, options.split.attempts if options.split else 0
        self._plans: dict[int, list[Segment]] = {}
        self._where: list[tuple[int, int]] = []  # text and segment of every one that is spoken
        self._spoken: dict[int, dict[int, Speech]] = defaultdict(dict)
        self._best: dict[int, Speech] = {}
        self._tried: dict[int, int] = defaultdict(int)
        texts, voices, seeds = [], [], []
        for i, (text, voice, seed) in enumerate(zip(many.texts, many.voices, many.seeds)):
            try:
                plan = plan_of(text, seed, options)
            except ChatterboxError as error:
                taker(i, error)
                continue
            self._plans[i] = plan
            for segment in plan:
                if segment.text or len(plan) == 1:
                    self._where.append((i, segment.index))
                    texts.append(segment.text)
                    voices.append(voice)
                    seeds.append(segment.seed)
        self.many = many.but(texts, voices, seeds)

    def again(self, index: int, result: Result) -> int | None:
        """The seed of the next attempt at a segment that went wrong; meanwhile the best one is kept."""
        text, number = self._where[index]
        if isinstance(result, ChatterboxError) or len(self._plans[text]) == 1:
            return None
        best = self._best.get(index)
        if best is None or len(result.segments[0].faults) < len(best.segments[0].faults):
            self._best[index] = result
        self._tried[index] += 1
        if not self._best[index].segments[0].faults or self._tried[index] > self._attempts:
            return None
        return draws.derived(self._plans[text][number].seed, self._tried[index], ATTEMPT)

    def take(self, index: int, result: Result) -> None:
        """Hands a text on when all of its segments are there, or one has failed."""
        text, number = self._where[index]
        if text not in self._plans:
            return  # another segment of it has failed
        plan = self._plans[text]
        if isinstance(result, ChatterboxError) or len(plan) == 1:
            self._done(text, result)
            return
        spoken = self._best.pop(index, result)
        [only] = spoken.segments
        self._spoken[text][number] = replace(spoken, segments=(replace(only, attempts=self._tried.pop(index, 1)),))
        if len(self._spoken[text]) == sum(1 for segment in plan if segment.text):
            self._done(text, joined(plan, self._spoken[text]))

    def _done(self, text: int, result: Result) -> None:
        del self._plans[text]
        self._spoken.pop(text, None)
        self._taker(text, result)


def plan_of(text: str, seed: int, options: GenerationOptions) -> list[Segment]:
    """The segments of a text, one where it is not to be split."""
    if options.split is None:
        return [Segment(0, text, 0.0, seed, True)]
    return segments(text, seed=seed, split=options.split)


def speak(batch: Batch, many: Many, taker: Taker) -> None:
    """``Batch.speak`` for texts of any length."""
    pieces = Pieces(many, batch.options, taker)
    batch.speak(pieces.many, pieces.take, pieces.again, "texts" if len(pieces.many.texts) <= len(many.texts) else "segments")


def speak_one(batch: Batch, text: str, voice: Voice, seed: int) -> Speech:
    """``speak`` for one text; raises what is wrong with it."""
    found: list[Speech] = []

    def take(_: int, result: Result) -> None:
        if isinstance(result, ChatterboxError):
            raise result
        found.append(result)

    speak(batch, Many([text], voice, [seed], ROWS, "raise"), take)
    return found[0]


def joined(plan: list[Segment], spoken: dict[int, Speech]) -> Speech:
    """One speech of a plan's segments, by their numbers, whose samples are let go; segments without text are silence."""
    parts: list[np.ndarray] = []
    reports: list[SpokenSegment] = []
    length = 0
    for segment in plan:
        if segment.index in spoken:
            edges = Edges()
            parts += [edges.feed(spoken[segment.index].samples), edges.finish()]
            start, length = length, length + len(parts[-2]) + len(parts[-1])
            [only] = spoken[segment.index].segments
            spoken[segment.index] = replace(spoken[segment.index], samples=_NOTHING)
            reports.append(replace(only, start=start / SAMPLE_RATE, end=length / SAMPLE_RATE))
        parts.append(silence(segment.pause_after))
        length += len(parts[-1])
    return _whole(plan, spoken, np.concatenate(parts), tuple(reports))


def _whole(plan: list[Segment], spoken: Mapping[int, Speech], samples: np.ndarray, reports: tuple[SpokenSegment, ...]) -> Speech:
    speeches = [spoken[number] for number in sorted(spoken)]
    timings: dict[str, float] = {}
    for speech in speeches:
        for key, seconds in speech.timings.items():
            timings[key] = timings.get(key, 0.0) + seconds
    return replace(
        speeches[0],
        samples=samples,
        seed=plan[0].seed,
        timings=timings,
        tokens=np.concatenate([speech.tokens for speech in speeches]),
        text=" ".join(speech.text for speech in speeches),
        finish_reason="length" if any(speech.finish_reason == "length" for speech in speeches) else "stop",
        segments=reports,
    )
