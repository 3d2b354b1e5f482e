"""One engine, many callers: two threads that take requests as they come and share their time out among them.

- **T3's thread** opens a request (its voice, its segments) and keeps ``rows`` segments of all requests stepping together; whoever's row comes
  free, the next segment joins the others within a step. A request has at most a quarter of the rows, and one that had a row lately waits behind
  those that did not: a book leaves room.
- **S3Gen's thread** goes by turns (``open_job.py``), each the mel of one segment or one window of the vocoder, round robin; every other turn goes
  to a request that nothing was heard of yet. It alone gives sound, reports and errors.

They work at the same time: T3 waits for memory while S3Gen computes. A request whose sound isn't taken (``ahead`` seconds of it) has no turns
until it is. What is wrong with one ends that one.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import numpy as np

from ..errors import BusyError, CancelledError, ChatterboxError, InternalError
from ..options import Order, between, whole
from ..speech import Chunk
from .open_job import Event, Job, Report, Speaking
from .open_rows import Rows
from .pipeline import Pipeline
from .voices import Voices

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..options import StreamArguments

logger = logging.getLogger(__name__)

TICK = 0.2
"""Seconds between two looks around, at most."""
MOST = 10_000
"""Requests that may wait, whatever is asked for."""


class OpenBatch:
    """See the module. ``with tts.open_batch() as batch: for chunk in batch.stream(text): …``, from any number of threads."""

    def __init__(
        self,
        pipeline: Pipeline,
        voices: Voices,
        order: Callable[..., Order],
        rows: int = 8,
        waiting: int = 100,
        ahead: float = 10.0,
    ) -> None:
        self.pipeline, self.voices, self._order = pipeline, voices, order
        self.rows = whole("rows", rows, 1, 1024)
        self.waiting = whole("waiting", waiting, 0, MOST)
        self.ahead = between("ahead", ahead, 0.5, 600, "seconds")
        self.share = max(1, self.rows // 4)
        self._t3 = Rows(pipeline, self.rows)
        self._wake = threading.Condition()  # for all that follows
        self._arrived: list[Job] = []
        self._jobs: list[Job] = []  # the one that had the last turn is the last
        self._segments: dict[int, tuple[Job, Speaking]] = {}  # in T3, by key
        self._leaving: list[int] = []  # keys whose rows are wanted back
        self._admissions = self._count = self._ended = self._refused = self.news = 0
        self._fresh = False
        self._closed: BaseException | None = None
        self._mean = 1.0  # seconds between two requests that are finished, while there is work
        self._last = time.monotonic()
        self._process = os.getpid()
        self._threads = [_Worker(self, self._t3_round), _Worker(self, self._s3gen_round)]
        for thread in self._threads:
            thread.start()

    def submit(self, text: str, give: Callable[[Event], object], **arguments: Unpack[StreamArguments]) -> Job:
        """Begins to speak ``text``; ``arguments`` are those of ``ChatterboxTurbo.stream`` (without ``progress`` and ``cancel``).

        ``give`` is called in the batch's thread, which it must not hold up, with every chunk, and at the end with a ``Report``, or with
        the error that ended the work. The sound of more than ``ahead`` seconds is made when ``took`` of the result says that others were sent on.
        Raises ``BusyError`` when all rows are taken and ``waiting`` requests wait; ``ArgumentError`` and what ``stream`` raises at once.
        """
        order = self._order(text, **arguments)
        if self._forked:
            raise _left_behind()
        with self._wake:
            if self._closed is not None:
                raise CancelledError("the batch is closed")
            if self._count >= self.rows + self.waiting:
                self._refused += 1
                raise BusyError(f"{self._count} requests are being spoken or wait, and no more may")
            job = Job(self, order, give)
            if not self._count:
                self._last = time.monotonic()
            self._arrived.append(job)
            self._count += 1
        self.look()
        return job

    def stream(self, text: str, **arguments: Unpack[StreamArguments]) -> Generator[Chunk, None, Report]:
        """The chunks of ``ChatterboxTurbo.stream``; the generator returns the report. Raises what ``submit`` does, and the error of the work."""
        ready: queue.SimpleQueue[Event] = queue.SimpleQueue()
        job = self.submit(text, ready.put, **arguments)
        try:
            while not self._forked:
                event = ready.get()
                if isinstance(event, Report):
                    return event
                if isinstance(event, ChatterboxError):
                    raise event
                job.took(len(event))
                yield event
            raise _left_behind()
        finally:
            if not self._forked:
                job.cancel()

    @property
    def _forked(self) -> bool:
        """Is this a process that was forked since? It has none of the threads, and locks that one of them may hold for ever."""
        return os.getpid() != self._process

    @property
    def load(self) -> tuple[int, int]:
        """Requests that are here, and segments in T3."""
        return self._count, len(self._t3)

    @property
    def retry_after(self) -> int:
        """Seconds, 1 to 120, after which a place is probably free, if those that were refused before take theirs first."""
        return min(max(math.ceil(self._mean * self._refused), 1), 120)

    def stuck(self) -> float:
        """For how many seconds there was work and nothing of it was done; infinite when a thread has ended."""
        return max(thread.stuck() for thread in self._threads)

    def beat(self) -> None:
        """Something was done, by the thread that says so."""
        for thread in self._threads:
            if thread is threading.current_thread():
                thread.beat()

    def look(self) -> None:
        """Has the threads look at what changed, after the step and the turn that are under way."""
        self.tell()
        self._t3.interrupt()

    def tell(self) -> None:
        """The same, but that T3 steps on."""
        with self._wake:
            self.news += 1
            self._wake.notify_all()

    def idle(self, news: int) -> None:
        """Waits until something changes, unless something has since ``news`` was read."""
        with self._wake:
            if self.news == news:
                self._wake.wait(TICK)

    @property
    def closed(self) -> bool:
        """Is nothing spoken any more?"""
        return self._closed is not None or not threading.main_thread().is_alive()

    def close(self) -> None:
        """Ends all requests with a ``CancelledError``, within a step, and the threads."""
        if self._forked:
            return
        self.ended(CancelledError("the batch was closed"))
        for thread in self._threads:
            thread.join()

    def ended(self, error: ChatterboxError) -> None:
        """Nothing is spoken any more. The thread that is the last to hear of it tells those that wait."""
        with self._wake:
            self._closed = self._closed or error
        self.look()

    def __enter__(self) -> OpenBatch:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def left(self) -> None:
        """Called by a thread at its end: the last one ends all requests."""
        with self._wake:
            self._ended += 1
            if self._ended < len(self._threads):
                return
            left, error = [*self._jobs, *self._arrived], self._closed
        assert isinstance(error, ChatterboxError)
        for job in left:
            self._over(job, error)

    def _t3_round(self) -> bool:
        """Opens who came, admits who waits, and steps; False when there is nothing to be done."""
        with self._wake:
            arrived, self._arrived = self._arrived, []
            self._jobs += arrived
            leaving, self._leaving = self._leaving, []
        for key in leaving:
            self._t3.leave(key)
        for job in arrived:
            try:
                job.open()
            except Exception as error:
                job.failed = _own(error)
            self.beat()
        admitted = len(self._t3) < self.rows and self._admit()
        if len(self._t3) or self._t3.over:
            for key, outcome in self._t3.run(0.0 if admitted else TICK):
                self._spoken(key, outcome)
        elif not (leaving or arrived or admitted):
            return False
        self.tell()
        return True

    def _admit(self) -> bool:
        """Gives a free row of T3 to a segment that waits: fewest rows first, then who waited longest."""
        with self._wake:
            wanting = [
                (job.rows, job.served, job.number, job, one)
                for job in self._jobs
                if job.rows < self.share and not job.over
                for one in list(job.making.values())
                if one.wanted is not None and not one.in_t3
            ]
            if not wanting:
                return False
            *_, job, one = min(wanting, key=lambda found: found[:3])
            self._admissions += 1
            job.served, job.rows, one.in_t3 = self._admissions, job.rows + 1, True
            self._segments[one.key] = job, one
        try:
            self._t3.admit(one.key, one.utterance())
        except Exception as error:
            self._t3.leave(one.key)
            self._spoken(one.key, _own(error))
        return True

    def _spoken(self, key: int, outcome: np.ndarray | ChatterboxError) -> None:
        with self._wake:
            job, one = self._segments.pop(key, (None, None))
            if job is None or one is None:  # nobody wants it any more
                return
            job.rows, one.in_t3, one.wanted = job.rows - 1, False, None
            if isinstance(outcome, ChatterboxError):
                job.failed = outcome
            else:
                one.tokens = outcome

    def _s3gen_round(self) -> bool:
        """One turn; False when there is nothing to be done."""
        with self._wake:
            ended = [job for job in self._jobs if job.cancelled.is_set() or job.failed is not None]
            able = [job for job in self._jobs if job.able()] if not ended else []
            self._fresh = not self._fresh
            job = next((job for job in able if not job.begun), None) if self._fresh else None
            job = job or next(iter(able), None)
            if job is not None:
                self._jobs.remove(job)
                self._jobs.append(job)
        for one in ended:
            self._over(one, one.failed or CancelledError("nobody takes the results any more"))
        if job is None:
            return bool(ended)
        wanted = job.wants()
        try:
            job.turn()
        except Exception as error:
            self._over(job, _own(error))
            return True
        if job.over:
            self._gone(job)
        elif job.wants() and not wanted:
            self.look()
        return True

    def _over(self, job: Job, error: ChatterboxError) -> None:
        """Ends a request with an error."""
        with contextlib.suppress(Exception):
            job.end(error)
        self._gone(job)

    def _gone(self, job: Job) -> None:
        """Forgets a request; its rows are wanted back."""
        with self._wake:
            keys = [key for key, (owner, _) in self._segments.items() if owner is job]
            for key in keys:
                del self._segments[key]
            self._leaving += keys
            for jobs in (self._jobs, self._arrived):
                if job in jobs:
                    jobs.remove(job)
                    now = time.monotonic()
                    self._mean, self._last = 0.8 * self._mean + 0.2 * (now - self._last), now
                    self._count, self._refused = self._count - 1, max(self._refused - 1, 0)
        if keys:
            self.look()


class _Worker(threading.Thread):
    """Calls ``turn`` until the batch is closed, and waits while it has nothing to do."""

    def __init__(self, batch: OpenBatch, turn: Callable[[], bool]) -> None:
        super().__init__(name="chatterbox-turbo-rs")
        self._batch, self._turn = batch, turn
        self._busy, self._beat = False, time.monotonic()

    def beat(self) -> None:
        """It has done something."""
        self._beat = time.monotonic()

    def stuck(self) -> float:
        """See ``OpenBatch.stuck``."""
        if not self.is_alive():
            return math.inf
        return time.monotonic() - self._beat if self._busy else 0.0

    def run(self) -> None:
        try:
            while not self._batch.closed:
                self._beat, self._busy, news = time.monotonic(), True, self._batch.news
                if not self._turn():
                    self._busy = False
                    self._batch.idle(news)
            error: ChatterboxError = CancelledError("the batch was closed")
        except BaseException as raised:
            logger.exception("a thread of the engine has ended")
            error = InternalError(f"a thread of the engine has ended: {type(raised).__name__}: {raised}")
        self._batch.ended(error)
        self._batch.left()


def _left_behind() -> InternalError:
    return InternalError("the batch's threads are gone: a process that forks does not take them along")


def _own(error: Exception) -> ChatterboxError:
    if isinstance(error, ChatterboxError):
        return error
    logger.error("a request ended with a defect", exc_info=error)
    return InternalError(f"a defect, please report it: {type(error).__name__}: {error}")
