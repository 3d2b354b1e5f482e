"""A lock that a forked process has open, whoever held it in its parent."""

from __future__ import annotations

import os
import threading
import weakref

_ALL: weakref.WeakSet[Lock] = weakref.WeakSet()


class Lock:
    """``threading.Lock`` in a ``with`` statement. The threads of a parent are not in its child, and would never let go of theirs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _ALL.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


def _renew() -> None:
    for lock in list(_ALL):
        lock._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
