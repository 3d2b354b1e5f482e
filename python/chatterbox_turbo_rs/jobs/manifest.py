"""What became of a job, for whoever wants to know: JSON Lines, the job first, then its segments. Nothing is read from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..audio.files import whole_file
from ..errors import FileError
from ..speech import SpokenSegment
from .job import Job

NAME = "manifest.jsonl"


class Manifest:
    """Whole when the job begins and when it ends; between the two a line is added for every segment that is finished."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self._path, self._about = folder / NAME, dict(about)

    def write(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Replaces the file. Raises ``FileError``."""
        with (
            whole_file(self._path) as temporary,
            open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
        ):
            for line in (self._about, *lines):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def add(self, line: Mapping[str, Any]) -> None:
        """Adds a line. Raises ``FileError``."""
        try:
            with open(self._path, "a", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            raise FileError(f"{self._path}: cannot be written: {error.strerror or error}") from None


def line_of(job: Job, number: int, spoken: SpokenSegment | None = None) -> dict[str, Any]:
    """A segment's line; ``start`` and ``end`` in seconds of the book are known when it is assembled."""
    piece = job.plan.pieces[number]
    told: dict[str, Any] = {"chapter": piece.chapter + 1, "segment": piece.segment.index, "text": piece.segment.text}
    if number in job.failed:
        return told | {"error": str(job.failed[number])}
    item, verdict = job.best(number)
    return told | {
        "seed": item.seed,
        "attempts": len(job.tried[number]),
        "faults": list(verdict.faults),
        "finish_reason": verdict.reason,
        "tokens": verdict.tokens,
        "start": spoken.start if spoken else None,
        "end": spoken.end if spoken else None,
        "part": item.address,
    }
