"""Results of a worker thread, one by one, to whoever goes through them."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from typing import TypeVar

from ..errors import CancelledError, InternalError

T = TypeVar("T")

AHEAD = 2
"""Results that wait at most for somebody to take them; then the work does."""
TICK = 0.05
"""Seconds between two looks at whether the other side is still there."""


def hand_over(
    work: Callable[[Callable[[T], None], Callable[[], None]], None], look: Callable[[T], None], ahead: int = AHEAD
) -> Generator[T, None, None]:
    """Yields what ``work(give, check)`` gives in a thread of its own, after ``look`` at it, and raises what either raises.

    When the generator is closed, or the program ends, ``give`` and ``check`` raise ``CancelledError``. When ``ahead`` results wait,
    ``give`` does.
    """
    ready: queue.Queue[T] = queue.Queue(ahead)
    closed = threading.Event()
    outcome: list[BaseException | None] = []

    def check() -> None:
        if closed.is_set() or not threading.main_thread().is_alive():
            raise CancelledError("nobody takes the results any more")

    def give(result: T) -> None:
        while True:
            check()
            try:
                return ready.put(result, timeout=TICK)
            except queue.Full:
                continue

    def run() -> None:
        try:
            work(give, check)
            outcome.append(None)
        except BaseException as error:
            outcome.append(error)

    worker = threading.Thread(target=run, name="chatterbox-turbo-rs")
    worker.start()
    taken: list[T] = []
    try:
        while worker.is_alive() or not ready.empty():
            try:
                taken.append(ready.get(timeout=TICK))
            except queue.Empty:
                continue
            look(taken[0])
            yield taken.pop()  # no name holds it here
        if not outcome:
            raise InternalError("the work's thread is gone: a process that forks does not take it along")
        if outcome[0] is not None:
            raise outcome[0]
    finally:
        closed.set()
        worker.join()
        outcome.clear()  # a traceback holds the frames of the work


async def asynchronous(results: Generator[T, None, None], stop: threading.Event) -> AsyncGenerator[T, None]:
    """Yields ``results``, which a thread of its own waits for, so that the event loop does not. ``stop``, when set, ends their work soon.

    It is set when this generator is closed or its task is cancelled, which then waits for the end of the work.
    """
    loop = asyncio.get_running_loop()
    ready: asyncio.Queue[T | None] = asyncio.Queue()  # None: that was the last
    over, room = asyncio.Event(), threading.Semaphore(AHEAD)
    outcome: list[BaseException] = []

    def tell(what: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
            loop.call_soon_threadsafe(what, *arguments)

    def wanted() -> bool:
        while not stop.is_set() and threading.main_thread().is_alive():
            if room.acquire(timeout=TICK):
                return True
        return False

    def run() -> None:
        try:
            while wanted():
                tell(ready.put_nowait, next(results))
        except StopIteration:
            pass
        except BaseException as error:
            outcome.append(error)
        finally:
            results.close()
            tell(ready.put_nowait, None)
            tell(over.set)

    reader = threading.Thread(target=run, name="chatterbox-turbo-rs")
    reader.start()
    try:
        while (taken := await ready.get()) is not None:
            room.release()
            yield taken
        if outcome:
            raise outcome[0]
    finally:
        stop.set()
        cancelled = None
        while not (over.is_set() or loop.is_closed()):  # a closed loop tells nobody
            try:
                await over.wait()
            except asyncio.CancelledError as error:
                cancelled = error
        reader.join()  # it has said that it is over
        outcome.clear()  # a traceback holds the frames of the work
        if cancelled is not None:
            raise cancelled
