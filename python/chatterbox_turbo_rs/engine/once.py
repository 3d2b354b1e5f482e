"""Values that are made once for a key, while others are made or asked for."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from ..stages.shared.lock import Lock

V = TypeVar("V")


class Once(Generic[V]):
    """Whoever asks for a key that is being made waits for it; whoever asks for another does not.

    An error is that of its maker alone: the next one tries again. ``most`` bounds the values that are kept: the one that was
    not asked for the longest goes first.
    """

    def __init__(self, most: int | None = None) -> None:
        self.values: OrderedDict[Hashable, V] = OrderedDict()
        self._most = most
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], V]) -> V:
        """The value of ``key``, by ``make()`` if nobody made it before."""
        at = (os.getpid(), key)  # what another thread was making at a fork is nobody's in the child
        with self._lock:
            if key in self.values:
                self.values.move_to_end(key)
                return self.values[key]
            alone = self._making.setdefault(at, threading.Lock())
        with alone:
            with self._lock:
                if key in self.values:
                    return self.values[key]
            try:
                value = make()
                with self._lock:
                    value = self.values.setdefault(key, value)
                    while self._most is not None and len(self.values) > self._most:
                        self.values.popitem(last=False)
            finally:
                with self._lock:
                    self._making.pop(at, None)
        return value
