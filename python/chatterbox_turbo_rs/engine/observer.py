"""Who looks on while a request runs: ``progress=``, ``cancel=``, and a callback that remembers what it raised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ArgumentError, CancelledError
from ..progress import Bar

Callback = Callable[[str, int, int], None]


def callback(progress: Any, cancel: Any) -> Callback | None:
    """Joins ``progress=`` (True or a callable ``(stage, done, total)``) and ``cancel=`` (an event with ``is_set()``)."""
    if progress is None or progress is False:
        report: Callable[[str, int, int], Any] | None = None
    elif progress is True:
        report = Bar()
    elif callable(progress):
        report = progress
    else:
        raise ArgumentError(f"progress: expected True or a callable (stage, done, total), got {type(progress).__name__}")
    if cancel is not None and not hasattr(cancel, "is_set"):
        raise ArgumentError(f"cancel: expected an event with is_set(), got {type(cancel).__name__}")
    if report is None and cancel is None:
        return None

    def call(stage: str, done: int, total: int) -> None:
        if cancel is not None and cancel.is_set():
            raise CancelledError(f"cancelled during {stage} ({done} of {total})")
        if report is not None and report(stage, done, total) is False:
            raise CancelledError(f"cancelled during {stage} ({done} of {total})")

    return call


class Watch:
    """A callback that remembers what it raised, so that it is not taken for the error of a text."""

    def __init__(self, callback: Callback) -> None:
        self.callback = callback
        self.raised: BaseException | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        try:
            self.callback(stage, done, total)
        except BaseException as error:
            self.raised = error
            raise
