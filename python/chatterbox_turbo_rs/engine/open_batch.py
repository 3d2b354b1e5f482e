"""One engine, many callers: a thread that takes requests as they come and shares its time out among them.

- **T3** is shared by ``rows`` segments, of all requests; whoever's row comes free, the next segment joins the others within a step. A
  request has at most a quarter of the rows, and one that had a row lately waits behind those that did not: a book leaves room.
- **S3Gen** goes by turns (``open_job.py``), each the mel of one segment or one window of the vocoder, round robin; every other turn goes
  to a request that nothing was heard of yet.
- **Both** have the same time where both have work: after a turn of S3Gen T3 steps for as long as that took.

A request whose sound isn't taken (``ahead`` seconds of it) has no turns until it is. What is wrong with one ends that one.
"""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from ..errors import BusyError, CancelledError, ChatterboxError, InternalError
from ..options import between, whole
from ..speech import Chunk
from .open_job import Event, Job, Order, Report
from .open_rows import Rows
from .pipeline import Pipeline
from .voices import Voices

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..options import StreamArguments

logger = logging.getLogger(__name__)

TICK = 0.2
"""Seconds between two looks around, at most."""
LEAST = 0.005
"""Seconds that T3 steps at least before S3Gen has its turn."""
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
        self._wake = threading.Condition()
        self._looked = True
        self._arrived: list[Job] = []
        self._jobs: list[Job] = []  # the one that had the last turn is the last
        self._segments: dict[int, tuple[Job, Any]] = {}  # in T3, by key
        self._admissions = 0
        self._fresh = False
        self._closed: BaseException | None = None
        self._count = 0
        self._mean = 1.0  # seconds between two requests that are finished, while there is work
        self._last = self._beat = time.monotonic()
        self._busy = False
        self._thread = threading.Thread(target=self._run, name="chatterbox-turbo-rs")
        self._thread.start()

    def submit(self, text: str, give: Callable[[Event], object], **arguments: Unpack[StreamArguments]) -> Job:
        """Begins to speak ``text``; ``arguments`` are those of ``ChatterboxTurbo.stream`` (without ``progress`` and ``cancel``).

        ``give`` is called in the batch's thread, which it must not hold up, with every chunk, and at the end with a ``Report``, or with
        the error that ended the work. The sound of more than ``ahead`` seconds is made when ``took`` of the result says that others were sent on.
        Raises ``BusyError`` when all rows are taken and ``waiting`` requests wait; ``ArgumentError`` and what ``stream`` raises at once.
        """
        order = self._order(text, **arguments)
        with self._wake:
            if self._closed is not None:
                raise CancelledError("the batch is closed")
            if self._count >= self.rows + self.waiting:
                raise BusyError(f"{self._count} requests are being spoken or wait, and no more may")
            job = Job(self, order, give)
            if not self._busy:
                self._last = self._beat = time.monotonic()
            self._arrived.append(job)
            self._count, self._busy = self._count + 1, True
        self.look()
        return job

    def stream(self, text: str, **arguments: Unpack[StreamArguments]) -> Generator[Chunk, None, Report]:
        """The chunks of ``ChatterboxTurbo.stream``; the generator returns the report. Raises what ``submit`` does, and the error of the work."""
        ready: queue.SimpleQueue[Event] = queue.SimpleQueue()
        job = self.submit(text, ready.put, **arguments)
        try:
            while True:
                event = ready.get()
                if isinstance(event, Report):
                    return event
                if isinstance(event, ChatterboxError):
                    raise event
                job.took(len(event))
                yield event
        finally:
            job.cancel()

    @property
    def load(self) -> tuple[int, int]:
        """Requests that are here, and segments in T3."""
        return self._count, len(self._t3)

    @property
    def retry_after(self) -> int:
        """Seconds, 1 to 120, after which one of the requests that are here is probably over."""
        return min(max(math.ceil(self._mean), 1), 120)

    def stuck(self) -> float:
        """For how many seconds there was work and nothing of it was done; infinite when the thread has ended."""
        if not self._thread.is_alive():
            return math.inf
        return time.monotonic() - self._beat if self._busy else 0.0

    def beat(self) -> None:
        """Something was done."""
        self._beat = time.monotonic()

    def look(self) -> None:
        """Has the thread look at what changed, after the step that is under way."""
        with self._wake:
            self._looked = False
            self._wake.notify()
        self._t3.interrupt()

    @property
    def closed(self) -> bool:
        """Is nothing spoken any more?"""
        return self._closed is not None or not threading.main_thread().is_alive()

    def close(self) -> None:
        """Ends all requests with a ``CancelledError``, within a step, and the thread."""
        with self._wake:
            self._closed = self._closed or CancelledError("the batch was closed")
        self.look()
        self._thread.join()

    def __enter__(self) -> OpenBatch:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self) -> None:
        try:
            while self._round():
                pass
            error: ChatterboxError = CancelledError("the batch was closed")
        except BaseException as raised:
            logger.exception("the engine's thread has ended")
            error = InternalError(f"the engine's thread has ended: {type(raised).__name__}: {raised}")
        with self._wake:
            self._closed = self._closed or error
            left = [*self._jobs, *self._arrived]
        for job in left:
            self._over(job, error)

    def _round(self) -> bool:
        """One turn of S3Gen, and T3's steps beside it; False when the batch is closed."""
        self._welcome()
        if self.closed:
            return False
        self._admit()
        spent, job = 0.0, self._choose()
        self._busy = job is not None or len(self._t3) > 0
        if job is not None:
            begun = time.perf_counter()
            self._turn(job)
            spent = time.perf_counter() - begun
            self._admit()
        if len(self._t3):
            waits = any(job.able() for job in self._jobs)
            for key, outcome in self._t3.run(max(spent, LEAST) if waits else TICK):
                self._spoken(key, outcome)
            self.beat()
        elif job is None:
            with self._wake:
                if self._looked:  # and nothing has changed since
                    self._wake.wait(TICK)
        return True

    def _welcome(self) -> None:
        """Takes those that came, and lets go of those that nobody wants any more."""
        with self._wake:
            arrived, self._arrived, self._looked = self._arrived, [], True
        self._jobs += arrived
        for job in [job for job in self._jobs if job.cancelled.is_set()]:
            self._over(job, CancelledError("nobody takes the results any more"))

    def _admit(self) -> None:
        """Gives free rows of T3 to segments that wait: fewest rows first, then who waited longest."""
        while len(self._t3) < self.rows:
            wanting = [
                (job.rows, job.served, job.number, job, one)
                for job in self._jobs
                if job.rows < self.share
                for one in job.making.values()
                if one.wanted is not None and not one.in_t3
            ]
            if not wanting:
                return
            *_, job, one = min(wanting, key=lambda found: found[:3])
            self._admissions += 1
            job.served, job.rows, one.in_t3 = self._admissions, job.rows + 1, True
            self._segments[one.key] = job, one
            try:
                self._t3.admit(one.key, one.utterance())
            except Exception as error:
                self._over(job, self._own(error))
            self.beat()

    def _spoken(self, key: int, outcome: Any) -> None:
        job, one = self._segments.pop(key)
        job.rows, one.in_t3, one.wanted = job.rows - 1, False, None
        if isinstance(outcome, ChatterboxError):
            self._over(job, outcome)
        else:
            one.tokens = outcome

    def _choose(self) -> Job | None:
        """Whose turn it is."""
        able = [job for job in self._jobs if job.able()]
        if not able:
            return None
        self._fresh = not self._fresh
        chosen = next((job for job in able if not job.begun), able[0]) if self._fresh else able[0]
        self._jobs.remove(chosen)
        self._jobs.append(chosen)
        return chosen

    def _turn(self, job: Job) -> None:
        try:
            job.turn()
        except Exception as error:
            self._over(job, self._own(error))
        else:
            if job.over:
                self._gone(job)
        self.beat()

    def _over(self, job: Job, error: ChatterboxError) -> None:
        """Ends a request with an error."""
        with contextlib.suppress(Exception):
            job.end(error)
        self._gone(job)

    def _gone(self, job: Job) -> None:
        for key in [key for key, (owner, _) in self._segments.items() if owner is job]:
            del self._segments[key]
            self._t3.drop(key)
        with self._wake:
            if job in self._jobs:
                self._jobs.remove(job)
                now = time.monotonic()
                self._mean, self._last = 0.8 * self._mean + 0.2 * (now - self._last), now
                self._count -= 1

    @staticmethod
    def _own(error: Exception) -> ChatterboxError:
        if isinstance(error, ChatterboxError):
            return error
        logger.error("a request ended with a defect", exc_info=error)
        return InternalError(f"a defect, please report it: {type(error).__name__}: {error}")
