"""What many workers have to do, handed out by whoever asks: a thread for each worker takes and gives, one goes through what is done."""

from __future__ import annotations

import math
import queue
import threading
from collections import deque
from collections.abc import Collection, Sequence

from ..options import Result
from .plan import Item

TICK = 0.2
"""Seconds between two looks at whether the others are still there."""


class Handout:
    """What is to be done, by whoever asks; and what is done. Parts of a worker that died come back to it."""

    def __init__(self, items: Sequence[Item], workers: int, batch: int) -> None:
        self._left, self._out = deque(items), 0
        self._workers, self._batch = workers, batch
        self._change = threading.Condition()
        self.done: queue.Queue[tuple[Item, Result] | BaseException] = queue.Queue(2 * workers)
        self.closed = False

    def take(self) -> list[Item]:
        """Enough for a worker to decode its rows together for a while, less towards the end; waits for what may come back. Empty: all is done."""
        with self._change:
            while not self._left and self._out and not self.closed:
                self._change.wait(TICK)
            if self.closed:
                return []
            share = math.ceil(len(self._left) / self._workers)
            count = min(share, max(self._batch, min(share // 2, 4 * self._batch)))
            taken = [self._left.popleft() for _ in range(count)]
            self._out += len(taken)
            return taken

    def give(self, item: Item, result: Result) -> None:
        """One is done; waits while nobody takes the results."""
        while not self.closed:
            try:
                self.done.put((item, result), timeout=TICK)
                break
            except queue.Full:
                continue
        with self._change:
            self._out -= 1
            self._change.notify_all()

    def back(self, items: Collection[Item]) -> None:
        """These were taken and are not done."""
        with self._change:
            self._left.extend(items)
            self._out -= len(items)
            self._change.notify_all()

    def fail(self, error: BaseException) -> None:
        """Ends the work with an error."""
        while not self.closed:
            try:
                return self.done.put(error, timeout=TICK)
            except queue.Full:
                continue

    def close(self) -> None:
        """Nobody wants more of it."""
        with self._change:
            self.closed = True
            self._change.notify_all()
