"""The progress line: drawn on a terminal alone, whole lines over one another, never past its end."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from chatterbox_turbo_rs import progress
from chatterbox_turbo_rs.progress import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    stream = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
    return stream


def test_nothing_is_drawn_into_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (io.StringIO(), None):
        monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
        bar = Bar()
        bar("t3", 1, 2)
        bar.close()
        assert stream is None or stream.getvalue() == ""


def test_a_line_shows_stage_and_share(terminal: Terminal) -> None:
    Bar()("t3.decoder", 3, 6)
    assert terminal.getvalue() == "\rt3.decoder               [############............] 3/6"


@pytest.mark.parametrize(("done", "total", "filled"), [(0, 0, 0), (5, 0, 24), (9, 3, 24), (3, 3, 24), (0, 3, 0)])
def test_odd_counts(terminal: Terminal, done: int, total: int, filled: int) -> None:
    Bar()("x", done, total)
    assert terminal.getvalue().count("#") == filled and terminal.getvalue().count(".") == 24 - filled


def test_ten_lines_a_second_and_every_end(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 10.05, 10.11, 10.12])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    bar = Bar()
    for done, total in [(1, 9), (2, 9), (3, 9), (9, 9)]:
        bar("x", done, total)
    assert [line.rsplit(" ", 1)[1] for line in terminal.getvalue().split("\r")[1:]] == ["1/9", "3/9", "9/9"]


def test_a_shorter_line_covers_a_longer_one_and_closing_clears(terminal: Terminal) -> None:
    bar = Bar()
    bar("x", 1000, 1000)
    bar("x", 1, 1)
    bar.close()
    bar.close()
    _, first, second, blank, rest = terminal.getvalue().split("\r")
    assert len(second) == len(first) and second.endswith("1/1      ")
    assert not blank.strip() and len(blank) >= len(second.rstrip()) and rest == ""
