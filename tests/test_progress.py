"""The progress bar: drawn where somebody sees it, whatever is counted, and gone when the work is over, however it ended."""

from __future__ import annotations

import io
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from chatterbox_turbo_rs import ChatterboxTurbo, progress
from chatterbox_turbo_rs.engine import observer
from chatterbox_turbo_rs.errors import CancelledError, ChatterboxError
from chatterbox_turbo_rs.progress import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    stream = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream, modules={}))
    return stream


def last(stream: io.StringIO) -> str:
    return stream.getvalue().split("\r")[-1]


def test_nothing_is_drawn_into_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (io.StringIO(), None):
        monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream, modules={}))
        bar = Bar()
        bar("t3", 1, 2)
        bar.close()
        assert stream is None or stream.getvalue() == ""


def test_a_notebook_has_a_bar_though_it_has_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for config, drawn in (({"IPKernelApp": {}}, True), ({"TerminalIPythonApp": {}}, False)):
        shell, stream = SimpleNamespace(config=config), io.StringIO()
        modules = {"IPython": SimpleNamespace(get_ipython=lambda shell=shell: shell)}
        monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream, modules=modules))
        Bar()("t3", 1, 2)
        assert ("1/2" in stream.getvalue()) is drawn


def test_a_line_shows_stage_and_share(terminal: Terminal) -> None:
    bar = Bar()
    bar("t3.decoder", 3, 6)
    assert last(terminal).startswith("t3.decoder  ") and last(terminal).endswith(" 3/6")
    assert last(terminal).count("█") == 12 or last(terminal).count("#") == 12


@pytest.mark.parametrize(("done", "total"), [(0, 0), (5, 0), (9, 3), (3, 3), (0, 3)])
def test_odd_counts(terminal: Terminal, done: int, total: int) -> None:
    bar = Bar()
    bar("x", done, total)
    bar("x", 0, 1)
    bar("y", done, total)
    bar.close()
    assert terminal.getvalue()


def test_stages_follow_each_other_in_one_line(terminal: Terminal) -> None:
    bar = Bar()
    for stage, done, total in [("t3", 1, 9), ("t3", 2, 9), ("s3gen.flow", 0, 2), ("s3gen.flow", 2, 2), ("t3", 3, 9)]:
        bar(stage, done, total)
    lines = terminal.getvalue().split("\r")
    assert "\n" not in terminal.getvalue()
    assert any(line.startswith("s3gen.flow") and "0/2" in line for line in lines)
    assert lines[-1].startswith("t3 ")


def test_closing_clears_and_may_be_done_twice(terminal: Terminal) -> None:
    bar = Bar()
    bar("x", 1000, 1000)
    bar.close()
    bar.close()
    assert last(terminal) == "" and not terminal.getvalue().split("\r")[-2].strip()
    Bar().close()


class Recorded:
    """In place of the bar."""

    made: list[Recorded] = []

    def __init__(self) -> None:
        self.closed, self.calls = 0, 0
        self.made.append(self)

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.calls += 1

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    monkeypatch.setattr(observer, "Bar", Recorded)
    monkeypatch.setattr(Recorded, "made", [])
    return Recorded.made


def test_the_bar_is_closed_however_the_work_ends(toy: ChatterboxTurbo, bars: list[Recorded], clip: Any) -> None:
    short: dict[str, Any] = {"max_tokens": 4, "watermark": None, "progress": True}
    cancel = threading.Event()
    cancel.set()
    toy.generate("Hello.", **short)
    toy.generate_many(["One.", "Two."], **short)
    list(toy.iter_many(["One.", "Two."], **short))
    list(toy.stream("Hello.", **short))
    toy.voice(clip, progress=True)
    iteration = toy.iter_many(["One.", "Two.", "Three.", "Four."], **short)
    next(iteration)
    iteration.close()
    for call in (
        lambda: toy.generate("\udcff", **short),
        lambda: toy.generate_many(["One."], cancel=cancel, **short),
        lambda: list(toy.iter_many(["One."], cancel=cancel, **short)),
        lambda: list(toy.stream("One.", cancel=cancel, **short)),
        lambda: toy.voice((np.zeros(9, np.float32), 24_000), progress=True),
    ):
        with pytest.raises(ChatterboxError) as caught:
            call()
        assert cancel.is_set() or not isinstance(caught.value, CancelledError)
    assert len(bars) == 11
    assert [bar.closed for bar in bars] == [1] * 11
    assert all(bar.calls for bar in bars[:6])
