"""A text's sound in chunks, as it is made.

With the latency ``"sentence"`` T3 runs to the end of a segment, encoder and flow run once; from there on the sound comes in windows
(``windows.py``), with the samples that ``Pipeline.generate`` gives. ``"low"`` is in ``low_latency.py``. The work has a thread of its
own and does not wait for whoever takes the chunks, until it is ``AHEAD`` of them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from ..constants import HOP, SAMPLE_RATE
from ..errors import CancelledError
from ..options import GenerationOptions, Order, StreamOptions
from ..plan import Plan
from ..speech import Chunk, Fault, FinishReason
from ..voice import Voice
from . import draws, long_text, low_latency, token_loop, warn
from .hand_over import hand_over
from .joins import Edges, silence
from .observer import Callback, Onlooker, Watch
from .pipeline import Pipeline, Run, Text
from .segments import Segment
from .speed import stretch
from .voices import Voices
from .windows import vocoder_windows, watermark_windows

logger = logging.getLogger(__name__)

AHEAD = 60
"""Seconds of sound that wait at most for somebody to take them; then the work does."""


def stream(pipeline: Pipeline, voices: Voices, order: Order, onlooker: Onlooker) -> Generator[Chunk, None, None]:
    """The chunks of a text. Nothing begins before the first is asked for; closing the generator stops the work."""
    options = order.options

    def work(give: Callable[[Chunk], None], check: Callable[[], None]) -> None:
        with onlooker as call:

            def look_on(stage: str, done: int, total: int) -> None:
                check()
                if call is not None:
                    call(stage, done, total)

            watched = Watch(look_on)
            opened = voices.open(order.voice, order.plan, options.loudness, watched)
            logger.info("plan %s, seed %d", order.plan, options.seed)
            for chunk in speak(pipeline, order.text, opened, order.plan, options, order.how, watched):
                give(chunk)

    def look(chunk: Chunk) -> None:
        warn.of_cuts({"the speech": chunk}, options.max_tokens)

    return hand_over(work, look, round(AHEAD / order.how.chunk))


def speak(
    pipeline: Pipeline, text: str, voice: Voice, plan: Plan, options: GenerationOptions, how: StreamOptions, callback: Callback
) -> Iterator[Chunk]:
    """The chunks of ``text``, segment by segment, made as they are asked for."""
    voice.check(pipeline.config, pipeline.fingerprint)
    segments = long_text.plan_of(text, options.seed, options)
    several = len(segments) > 1
    more = options.split.attempts if several and options.split else 0

    def make(segment: Segment, callback: Callback) -> Made:
        run, own = Run(pipeline, voice.plan(plan), callback), replace(options, seed=segment.seed)
        read = pipeline.prepare(run, segment.text, options)
        if how.latency == "low":
            return Made(read.normalized, low_latency.sound(pipeline, run, voice, read, own))
        spoken = attempt(pipeline, run, voice, read, own, more)
        return Made(read.normalized, parts_of(pipeline, run, spoken, own))

    chunks = Chunks(round(how.chunk * SAMPLE_RATE))
    with Beside(make, [segment for segment in segments if segment.text or not several], callback) as beside:
        for segment in segments:
            made = beside.take() if segment.text or not several else Made("", silent())
            for part, reason in joined(made.parts, silence(segment.pause_after)) if several else made.parts:
                yield from chunks.of(part, reason, segment.index, made.text, segment is segments[-1])
                if chunks.length and how.latency == "sentence":  # the first sound waits for nothing else
                    beside.begin()


class Chunks:
    """Numbers the samples of a text's segments and cuts them into chunks of at most ``longest``."""

    def __init__(self, longest: int) -> None:
        self._longest, self._cut = longest, False
        self.length = 0
        """Samples so far."""

    def of(self, part: np.ndarray, reason: FinishReason | None, segment: int, words: str, final: bool) -> Iterator[Chunk]:
        """The chunks of a part of ``segment``, in which ``words`` are spoken; with the last part its ``reason``. ``final``: no segment follows."""
        self._cut = self._cut or reason == "length"
        for samples, last in pieces(part, self._longest):
            ends = last and reason is not None
            told = ("length" if self._cut and final else reason) if ends else None
            yield Chunk(samples, self.length, segment, words, ends and final, told)
            self.length += len(samples)


Part = tuple[np.ndarray, "FinishReason | None"]
"""Samples, and with the last ones of a segment why T3 ended."""


def silent() -> Iterator[Part]:
    """The parts of a segment that is a pause alone."""
    yield np.zeros(0, np.float32), "stop"


@dataclass(frozen=True)
class Made:
    """A segment's text, normalised, and its sound, which is made as it is asked for."""

    text: str
    parts: Iterator[Part]


class Beside:
    """What ``make`` gives for one segment after the other; from ``begin`` on in a thread, so that T3 reads a segment while the one
    before it sounds. That takes 0.73 to 0.90 of the time that taking turns does: T3 waits for memory while S3Gen computes.
    """

    def __init__(self, make: Callable[[Segment, Callback], Made], segments: Iterable[Segment], callback: Callback) -> None:
        self._make, self._left, self._callback = make, iter(segments), callback
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chatterbox-turbo-rs")
        self._over = threading.Event()
        self._next: Future[Made] | None = None

    def begin(self) -> None:
        """Begins the next segment, if there is one and it isn't begun."""
        if self._next is None and (segment := next(self._left, None)) is not None:
            self._next = self._thread.submit(self._make, segment, self._look)

    def take(self) -> Made:
        """The next segment, or what was wrong with it."""
        begun, self._next = self._next, None
        return self._make(next(self._left), self._callback) if begun is None else begun.result()

    def _look(self, stage: str, done: int, total: int) -> None:
        if self._over.is_set():
            raise CancelledError("the segment before this one has ended the work")
        self._callback(stage, done, total)

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()  # what is begun ends at its next look
        self._thread.shutdown(cancel_futures=True)


def parts_of(pipeline: Pipeline, run: Run, spoken: Attempt, options: GenerationOptions) -> Iterator[Part]:
    """The parts of a segment whose mel is there."""
    done, length = 0, round(HOP * len(spoken.mel) / options.speed)
    for part in sound(pipeline, run, spoken, options):
        done += len(part)
        yield part, spoken.reason if done == length else None


@dataclass(frozen=True)
class Attempt:
    """A segment up to its mel, and what is wrong with it; ``tokens`` are T3's, ``number`` counts from 1."""

    seed: int
    reason: FinishReason
    mel: np.ndarray
    faults: tuple[Fault, ...]
    tokens: int = 0
    number: int = 1


def attempt(pipeline: Pipeline, run: Run, voice: Voice, text: Text, options: GenerationOptions, more: int) -> Attempt:
    """What ``attempts`` returns, with T3's tokens made as it asks for them."""
    made = attempts(pipeline, run, voice, text, options, more)
    seed = next(made)
    while True:
        try:
            seed = made.send(pipeline.tokens(run, voice, text.ids, options.sampler, seed, options.max_tokens))
        except StopIteration as done:
            return done.value


def attempts(
    pipeline: Pipeline, run: Run, voice: Voice, text: Text, options: GenerationOptions, more: int
) -> Generator[int, np.ndarray, Attempt]:
    """Yields the seed of an attempt and is sent T3's tokens of it, until one is without a fault or ``more`` were made after the first.

    Returns the best of them: the one that ``Pieces`` keeps.
    """
    found: Attempt | None = None
    for k in range(more + 1):
        seed = draws.derived(options.seed, k, long_text.ATTEMPT)
        raw = yield seed
        reason = token_loop.finish_reason(raw, options.max_tokens)
        mel = pipeline.mel(run, voice, token_loop.keep_speech(raw, pipeline.config["s3gen"]), seed)
        made = Attempt(seed, reason, mel, pipeline.faults(text, raw, reason, mel), len(raw), k + 1)
        if found is None or len(made.faults) < len(found.faults):
            found = made
        if not found.faults:
            break
    assert found is not None  # there is one attempt at least
    return replace(found, number=k + 1)


def sound(pipeline: Pipeline, run: Run, spoken: Attempt, options: GenerationOptions) -> Iterator[np.ndarray]:
    """Its samples in parts, made as they are asked for: together those of ``Pipeline.sound``. Another pace is one part."""
    config, callback = pipeline.config["s3gen"]["vocoder"], run.callback
    if options.speed != 1.0:
        whole = stretch(pipeline.vocode(run, spoken.mel, spoken.seed), options.speed)
        yield whole if options.watermark is None else run("watermark", whole)
        return
    excitation = pipeline.excitation(run, spoken.seed, len(spoken.mel))
    parts = vocoder_windows(run.clocked("s3gen.vocoder"), spoken.mel, *excitation, config, callback)
    if options.watermark is not None:
        parts = watermark_windows(run.clocked("watermark"), parts, config["audio_limit"], callback)
    yield from parts


def joined(parts: Iterable[Part], pause: np.ndarray) -> Iterator[Part]:
    """A segment's parts with its edges cut and faded, and the pause behind it: what ``long_text.joined`` makes of the whole."""
    edges, reason = Edges(), None
    for part, ended in parts:
        reason = ended
        yield edges.feed(part), None
    yield np.concatenate([edges.finish(), pause]), reason


def pieces(part: np.ndarray, longest: int) -> Iterator[tuple[np.ndarray, bool]]:
    """``part`` cut into equal pieces of at most ``longest`` samples, each an array of its own; and: is it the last?"""
    count = -(-len(part) // longest)
    for index, piece in enumerate(np.array_split(part, count) if count else ()):
        yield piece.copy(), index == count - 1
