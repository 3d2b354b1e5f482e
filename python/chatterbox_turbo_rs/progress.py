"""A progress bar by tqdm, drawn where somebody sees it: on a terminal or in a notebook."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol, Union

Progress = Union[bool, Callable[[str, int, int], object], None]
"""What ``progress=`` takes: True for a bar, or a callable ``(stage, done, total)`` that may return False to stop the work."""


class Event(Protocol):
    """What ``cancel=`` takes: ``threading.Event`` and its like."""

    def is_set(self) -> bool: ...


def on_terminal() -> bool:
    """Is stderr a terminal? (A program without a console has none at all.)"""
    return sys.stderr is not None and sys.stderr.isatty()


def in_notebook() -> bool:
    """Does a notebook's kernel run this program?"""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return "IPKernelApp" in getattr(shell, "config", ())


class Bar:
    """A callable ``(stage, done, total)`` that shows the stage at work in one bar; ``close`` takes it away."""

    def __init__(self) -> None:
        self._drawn = on_terminal() or in_notebook()
        self._stage = ""
        self._bar: Any = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if not self._drawn:
            return
        if self._bar is None:
            from tqdm.auto import tqdm

            style = "{desc:24} |{bar:24}| {n_fmt}/{total_fmt}"
            self._bar = tqdm(total=total, initial=done, desc=stage, leave=False, bar_format=style, file=sys.stderr)
        elif stage != self._stage or done < self._bar.n:
            self._bar.set_description_str(stage, refresh=False)
            self._bar.reset(total=total)
        self._stage, self._bar.total = stage, total
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Clears the bar; a later call begins another one."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
