"""A progress line on stderr, drawn only when stderr is a terminal."""

from __future__ import annotations

import sys
import time


def on_terminal() -> bool:
    """Is stderr a terminal? (A program without a console has none at all.)"""
    return sys.stderr is not None and sys.stderr.isatty()


class Bar:
    """A callable ``(stage, done, total)`` that redraws one line at most ten times a second."""

    def __init__(self) -> None:
        self._terminal = on_terminal()
        self._last = 0.0
        self._width = 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if not self._terminal or (now - self._last < 0.1 and done < total):
            return
        self._last = now
        filled = min(24 * done // max(total, 1), 24)
        line = f"{stage:24} [{'#' * filled}{'.' * (24 - filled)}] {done}/{total}"
        sys.stderr.write("\r" + line.ljust(self._width))
        sys.stderr.flush()
        self._width = len(line)

    def close(self) -> None:
        """Clears the line."""
        if self._terminal and self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()
            self._width = 0
