"""Subtitles of spoken text: SubRip and WebVTT (https://www.w3.org/TR/webvtt1/)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ..errors import ArgumentError

FORMATS = ("srt", "vtt")


class Cue(Protocol):
    """A text from ``start`` to ``end``, in seconds."""

    @property
    def text(self) -> str: ...
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...


def subtitles(cues: Iterable[Cue], format: str) -> str:
    """A whole file. Raises ``ArgumentError`` for another format than ``"srt"`` and ``"vtt"``."""
    if not isinstance(format, str) or format not in FORMATS:
        raise ArgumentError(f"subtitles: expected 'srt' or 'vtt', got {format!r}")
    vtt = format == "vtt"
    blocks = ["WEBVTT\n"] if vtt else []
    for number, cue in enumerate(cues, 1):
        text = " ".join(cue.text.split())
        if vtt:
            text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        times = f"{_time(cue.start, vtt)} --> {_time(cue.end, vtt)}"
        blocks.append(f"{number}\n{times}\n{text}\n")
    return "\n".join(blocks)


def _time(seconds: float, vtt: bool) -> str:
    whole = round(seconds * 1000)
    hours, rest = divmod(whole, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{'.' if vtt else ','}{rest % 1000:03}"
