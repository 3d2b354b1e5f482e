"""Results of a worker thread, one by one, to whoever goes through them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from typing import TypeVar

from ..errors import CancelledError, InternalError

T = TypeVar("T")

AHEAD = 2
"""Results that wait at most for somebody to take them; then the work does."""
TICK = 0.05
"""Seconds between two looks at whether the other side is still there."""


def hand_over(
    work: Callable[[Callable[[T], None], Callable[[], None]], None], look: Callable[[T], None]
) -> Generator[T, None, None]:
    """Yields what ``work(give, check)`` gives in a thread of its own, after ``look`` at it, and raises what either raises.

    When the generator is closed, or the program ends, ``give`` and ``check`` raise ``CancelledError``.
    """
    ready: queue.Queue[T] = queue.Queue(AHEAD)
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
            raise InternalError("iter_many: its thread is gone: a process that forks does not take it along")
        if outcome[0] is not None:
            raise outcome[0]
    finally:
        closed.set()
        worker.join()
        outcome.clear()  # a traceback holds the frames of the work
