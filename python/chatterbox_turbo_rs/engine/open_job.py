"""One text on its way through the open batch: a state that advances by turns, each a bounded piece of work.

A turn makes the mel of one segment or speaks one window of the vocoder, while T3 has the segments that follow. What is given are the chunks of
``stream``, to the bit. ``open`` is called by T3's thread of the batch, what comes after it by S3Gen's.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Union

import numpy as np

from ..constants import SAMPLE_RATE
from ..errors import CancelledError, ChatterboxError
from ..options import Order
from ..speech import Chunk, FinishReason, SpokenSegment
from ..voice import Voice
from . import long_text, low_latency, stream
from .joins import silence
from .open_rows import Utterance
from .pipeline import Run, Text
from .segments import Segment

if TYPE_CHECKING:
    from .open_batch import OpenBatch

_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Report:
    """How a text was spoken, when all its chunks were given: ``segments`` and ``finish_reason`` are those of ``Speech``.

    ``text_tokens`` is the number of T3's text tokens, ``tokens`` that of the speech tokens that are heard, ``seconds`` the sound's length.
    """

    seed: int
    segments: tuple[SpokenSegment, ...]
    finish_reason: FinishReason
    text_tokens: int
    tokens: int
    seconds: float


Event = Union[Chunk, Report, ChatterboxError]
"""What a job gives: chunks, then its report; or the error that ended it."""


class Speaking:
    """One segment between its text and its mel: it asks T3 for ``wanted`` (a seed), is given ``tokens``, and is ``done``."""

    def __init__(self, job: Job, segment: Segment, voice: Voice) -> None:
        order, pipeline = job.order, job.batch.pipeline
        self.segment, self.voice = segment, voice
        self.run = Run(pipeline, voice.plan(order.plan), job.watched)
        self.options = replace(order.options, seed=segment.seed)
        self.text: Text = pipeline.prepare(self.run, segment.text, order.options)
        self.key = next(_NUMBERS)
        self.in_t3 = False
        self.tokens: np.ndarray | None = None
        self.done: stream.Attempt | None = None
        split = order.options.split
        more = split.attempts if split is not None and job.several else 0
        self._attempts = stream.attempts(pipeline, self.run, voice, self.text, self.options, more)
        self.wanted: int | None = next(self._attempts) if order.how.latency == "sentence" else None

    def utterance(self) -> Utterance:
        """What T3 is to speak."""
        assert self.wanted is not None
        return Utterance(self.run, self.voice, self.text, self.options, self.wanted)

    def advance(self) -> None:
        """Makes the mel of T3's tokens: the segment is done, or wants another attempt."""
        tokens, self.tokens = self.tokens, None
        assert tokens is not None
        try:
            self.wanted = self._attempts.send(tokens)
        except StopIteration as over:
            self.done = over.value


class Job:
    """A request. ``cancel`` and ``took`` are for whoever ordered it, in any thread; the rest is the batch's, in its own."""

    def __init__(self, batch: OpenBatch, order: Order, give: Callable[[Event], object]) -> None:
        self.batch, self.order, self._give = batch, order, give
        self.number = next(_NUMBERS)
        self.served = 0  # the number of the last admission of a segment to T3
        self.rows = 0  # segments in T3
        self.opened = self.begun = self.over = False
        self.failed: ChatterboxError | None = None
        """What T3's thread found wrong with it."""
        self.several = False
        self.cancelled = threading.Event()
        self.making: dict[int, Speaking] = {}  # segments that are begun, up to the one that is heard
        self._segments: list[Segment] | None = None
        self._voice: Voice | None = None
        self._at = self._next = 0
        self._parts: Iterator[stream.Part] | None = None
        self._chunks = stream.Chunks(round(order.how.chunk * SAMPLE_RATE))
        self._start = self._taken = self._text_tokens = 0
        self._spoken: list[SpokenSegment] = []
        self._reason: FinishReason = "stop"

    @property
    def seed(self) -> int:
        """The seed that it is spoken with."""
        return self.order.options.seed

    def cancel(self) -> None:
        """Ends the work within a step; nothing is given any more."""
        self.cancelled.set()
        self.batch.look()

    def took(self, samples: int) -> None:
        """So many samples of the chunks were sent on: there is room for more."""
        full = not self._room()
        self._taken += samples
        if full:
            self.batch.tell()

    def watched(self, stage: str, done: int, total: int) -> None:
        """The callback of its stages."""
        self.batch.beat()
        if self.cancelled.is_set() or self.batch.closed:
            raise CancelledError(f"cancelled during {stage} ({done} of {total})")

    def able(self) -> bool:
        """Is there something to be done by a turn?"""
        if self.over or not self.opened:
            return False
        return any(one.tokens is not None for one in self.making.values()) or self._sounds()

    def wants(self) -> bool:
        """Does a segment wait for a row of T3?"""
        return any(one.wanted is not None and not one.in_t3 for one in self.making.values())

    def turn(self) -> None:
        """One turn. Raises what is wrong with the request."""
        if self._sounds():
            self._speak()
        else:
            waiting = min(index for index, one in self.making.items() if one.tokens is not None)
            self.making[waiting].advance()

    def end(self, event: Event) -> None:
        """The last that is given."""
        self.over, self._parts = True, None
        self.making.clear()
        if not self.cancelled.is_set():
            self._give(event)

    def _room(self) -> bool:
        """May more sound wait to be taken?"""
        return self._chunks.length - self._taken < self.batch.ahead * SAMPLE_RATE

    def _sounds(self) -> bool:
        """Can sound be made now?"""
        return self._room() and (self._parts is not None or self._heard())

    def open(self) -> None:
        """Opens the voice, finds the segments and begins the first ones. Raises what is wrong with them."""
        order, pipeline = self.order, self.batch.pipeline
        self._voice = self.batch.voices.open(order.voice, order.plan, order.options.loudness, self.watched)
        self._voice.check(pipeline.config, pipeline.fingerprint)
        self._segments = long_text.plan_of(order.text, order.options.seed, order.options)
        self.several = len(self._segments) > 1
        self._begin()
        self.opened = True

    def _begin(self) -> None:
        """Begins segments, so that T3 has the next one while one is heard."""
        assert self._segments is not None and self._voice is not None
        while self._next < len(self._segments) and len(self.making) <= self.batch.share:
            segment = self._segments[self._next]
            if segment.text or not self.several:
                self.making[self._next] = one = Speaking(self, segment, self._voice)
                self._text_tokens += len(one.text.ids)
            self._next += 1

    def _heard(self) -> bool:
        """Can the next segment be heard?"""
        assert self._segments is not None
        one = self.making.get(self._at)
        return self._at < self._next and (one is None or one.done is not None or self.order.how.latency == "low")

    def _speak(self) -> None:
        """Gives the next part of the sound."""
        assert self._segments is not None
        segment, one = self._segments[self._at], self.making.get(self._at)
        pause = silence(segment.pause_after) if self.several else np.zeros(0, np.float32)
        if self._parts is None:
            self._start, self._parts = self._chunks.length, self._begun_parts(one)
            if self.several:
                self._parts = stream.joined(self._parts, pause)
        part, reason = next(self._parts, (None, None))
        final = self._at == len(self._segments) - 1
        if part is not None:
            words = "" if one is None else one.text.normalized
            for chunk in self._chunks.of(part, reason, segment.index, words, final):
                self.begun = True
                self._give(chunk)
        if reason is None and part is not None:
            return
        self._reason = "length" if reason == "length" else self._reason
        if one is not None:
            self._spoken.append(self._told(one, segment, (self._chunks.length - len(pause)) / SAMPLE_RATE))
        self.making.pop(self._at, None)
        self._parts, self._at = None, self._at + 1
        if not final:
            self._begin()
            return
        tokens = sum(spoken.tokens for spoken in self._spoken)
        seconds = self._chunks.length / SAMPLE_RATE
        self.end(Report(self.seed, tuple(self._spoken), self._reason, self._text_tokens, tokens, seconds))

    def _begun_parts(self, one: Speaking | None) -> Iterator[stream.Part]:
        pipeline = self.batch.pipeline
        if one is None:
            return stream.silent()
        if one.done is None:
            return low_latency.sound(pipeline, one.run, one.voice, one.text, one.options)
        return stream.parts_of(pipeline, one.run, one.done, one.options)

    def _told(self, one: Speaking, segment: Segment, end: float) -> SpokenSegment:
        start, done = self._start / SAMPLE_RATE, one.done
        if done is None:
            return SpokenSegment(segment.text, start, end, one.run.drawn, segment.seed)
        return SpokenSegment(segment.text, start, end, done.tokens, done.seed, done.number, done.faults)
