"""A book from its plan to its file: what is missing is spoken, then all parts are assembled; as often as it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..audio.files import whole_file
from ..audio.subtitles import subtitles as as_subtitles
from ..errors import ChatterboxError
from .assemble import Times, assemble
from .estimate import Estimate
from .job import Job, Report, Speaker
from .manifest import Manifest, line_of
from .parts import DamagedPart
from .read.document import Book


@dataclass(frozen=True)
class Made:
    """``times`` of the book. Attempts that were ``spoken`` now and ``found`` before, and parts that were ``damaged``."""

    times: Times
    spoken: int
    found: int
    damaged: int


class FailedPieces(ChatterboxError):
    """Some segments cannot be spoken: no book is written, and the parts of the others stay."""


def make(
    job: Job,
    book: Book,
    output: Path,
    speaker: Speaker,
    *,
    pause: float,
    subtitles: Path | None,
    report: Report,
    about: Mapping[str, Any],
) -> Made:
    """Makes the book (see ``assemble``), subtitles and the manifest, whose first line is ``about``. The folder is this process's alone.

    Raises ``FailedPieces``, ``FileError`` and whatever ends the speaker's work; what was spoken stays.
    """
    manifest = Manifest(job.store.folder, about)
    estimate = Estimate()
    job.look(report)
    found = job.found
    manifest.write(line_of(job, number) for number in range(len(job.plan.pieces)) if job.missing(number) is None)
    while True:
        job.speak(speaker, report, lambda number: manifest.add(line_of(job, number)), estimate)
        if job.failed:
            number, error = next(iter(sorted(job.failed.items())))
            piece = job.plan.pieces[number]
            where = f"chapter {piece.chapter + 1}, segment {piece.segment.index} ({piece.segment.text[:40]!r})"
            raise FailedPieces(f"{len(job.failed)} of {len(job.plan.pieces)} segments cannot be spoken; {where}: {error}")
        try:
            times = assemble(job, book, output, pause, report)
            break
        except DamagedPart as error:
            job.store.drop(error.address)
            job.damaged += 1
            job.look(report)
    if subtitles is not None:
        with whole_file(subtitles) as temporary:
            cues = [times.segments[number] for number in sorted(times.segments)]
            temporary.write_text(as_subtitles(cues, subtitles.suffix.lower()[1:]), encoding="utf-8")
    manifest.write(line_of(job, number, times.segments[number]) for number in sorted(times.segments))
    return Made(times, job.spoken, found, job.damaged)
