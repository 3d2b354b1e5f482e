"""Who looks on while a request runs: ``progress=``, ``cancel=``, and a callback that remembers what it raised."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..errors import ArgumentError, CancelledError
from ..progress import Bar, Event, Progress

Callback = Callable[[str, int, int], None]


class Onlooker:
    """``progress=`` (True or a callable ``(stage, done, total)``) and ``cancel=`` joined: ``with`` gives the callback, or None.

    The bar of ``progress=True`` is gone when the ``with`` ends, however it does.
    """

    def __init__(self, progress: Progress, cancel: Event | None) -> None:
        self._bar = Bar() if progress is True else None
        report = self._bar if progress is True else None if progress is False else progress
        if report is not None and not callable(report):
            raise ArgumentError(f"progress: expected True or a callable (stage, done, total), got {type(progress).__name__}")
        self._report, self._cancel = report, checked_event(cancel)

    def __enter__(self) -> Callback | None:
        return None if self._report is None and self._cancel is None else self._call

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def _call(self, stage: str, done: int, total: int) -> None:
        cancelled = self._cancel is not None and self._cancel.is_set()
        if cancelled or (self._report is not None and self._report(stage, done, total) is False):
            raise CancelledError(f"cancelled during {stage} ({done} of {total})")


def checked_event(cancel: Event | None) -> Event | None:
    """``cancel=``, when it is one; else ``ArgumentError``."""
    if cancel is not None and (isinstance(cancel, type) or not callable(getattr(cancel, "is_set", None))):
        raise ArgumentError(f"cancel: expected an event with is_set(), got {cancel!r}")
    return cancel


class Either:
    """An event that is set when one of two is."""

    def __init__(self, own: Event, cancel: Event | None) -> None:
        self._events = (own,) if checked_event(cancel) is None else (own, cancel)

    def is_set(self) -> bool:
        return any(event is not None and event.is_set() for event in self._events)


class Watch:
    """A callback that remembers what it raised, so that it is not taken for the error of a text, and raises that again: it ends all
    threads of a call. They call it one at a time.
    """

    def __init__(self, callback: Callback) -> None:
        self.callback = callback
        self.raised: BaseException | None = None
        self._one = threading.RLock()

    def __call__(self, stage: str, done: int, total: int) -> None:
        with self._one:
            if self.raised is not None:
                raise self.raised
            try:
                self.callback(stage, done, total)
            except BaseException as error:
                self.raised = error
                raise
