"""Parts into one sound file: a segment at a time, joined as ``generate`` joins them, with the times of chapters and segments."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from ..audio import m4b
from ..audio.encode import FORMATS, Encoder
from ..audio.files import whole_file
from ..constants import SAMPLE_RATE
from ..engine.joins import Edges, silence
from ..errors import ArgumentError, FileError
from ..speech import SpokenSegment
from .job import Job, Report
from .read.document import Book

OUTPUTS = (*FORMATS, m4b.NAME)
"""Endings of a book's name."""
_LARGEST = {"wav": 2**32 - 1, "aiff": 2**32 - 1}
"""Bytes that a file of the format can name."""


@dataclass(frozen=True)
class Mark:
    """A chapter from ``start`` to ``end``, in samples."""

    title: str
    start: int
    end: int


@dataclass
class Times:
    """Where everything is, known when the sound is assembled: ``samples`` in all, chapters, and segments by the numbers of their pieces."""

    samples: int = 0
    chapters: list[Mark] = field(default_factory=list)
    segments: dict[int, SpokenSegment] = field(default_factory=dict)


class Sink(Protocol):
    """What takes the sound: ``Encoder`` and ``m4b.Writer``."""

    def write(self, samples: np.ndarray) -> None: ...


def output_format(path: Path) -> str:
    """The format of a book's name. Raises ``ArgumentError`` for an ending that is none, ``BackendError`` for M4B without PyAV."""
    name = path.suffix.lower()[1:]
    if name not in OUTPUTS:
        raise ArgumentError(f"{path}: expected a name ending in {', '.join(f'.{name}' for name in OUTPUTS)}, got {path.suffix!r}")
    if name == m4b.NAME:
        m4b.check()
    return name


def assemble(job: Job, book: Book, output: Path, pause: float, report: Report) -> Times:
    """Writes the book, whole or not at all, and says where everything is. ``pause`` is seconds between chapters.

    Raises ``DamagedPart`` for a part that cannot be read, ``FileError`` when the system refuses, and where the format ends before the book.
    """
    kind, times = output_format(output), Times()
    with whole_file(output, f"{output.name[:100]}.{name_of(job.store.folder)}") as temporary:
        with _sink(temporary, kind, book, times) as sink:
            for samples in sound(job, times, pause, report):
                if 2 * times.samples + 4096 > _LARGEST.get(kind, 2**62):
                    raise FileError(
                        f"{output}: longer than {kind.upper()} holds ({times.samples / 3600 / SAMPLE_RATE:.1f} h); .flac has no such limit"
                    )
                sink.write(samples)
    return times


def name_of(folder: Path) -> str:
    """A short name of a folder, the same in every process: two jobs with one output do not write into one file."""
    return f"{zlib.crc32(str(folder.resolve()).encode('utf-8', 'surrogateescape')):08x}"


def sound(job: Job, times: Times, pause: float, report: Report) -> Iterator[np.ndarray]:
    """The samples of the book in its order, at most a segment at a time; ``times`` is filled on the way."""
    number = 0
    for index, (chapter, segments) in enumerate(job.plan.chapters):
        start = times.samples
        for segment in segments:
            if segment.text:
                begun = times.samples
                item, verdict = job.best(number)
                for samples in _joined(job.store.read(item.address)[0], len(segments) > 1):
                    times.samples += len(samples)
                    yield samples
                span = (begun / SAMPLE_RATE, times.samples / SAMPLE_RATE)
                times.segments[number] = SpokenSegment(
                    segment.text, *span, verdict.tokens, item.seed, len(job.tried[number]), verdict.faults
                )
                number += 1
                report("assemble", number, len(job.plan.pieces))
            yield from _silent(segment.pause_after, times)
        if index + 1 < len(job.plan.chapters):
            yield from _silent(pause, times)
        times.chapters.append(Mark(chapter.title or f"Chapter {index + 1}", start, times.samples))


def _joined(samples: np.ndarray, several: bool) -> Iterator[np.ndarray]:
    """As ``long_text.joined`` has it: a text of one segment stays as it is."""
    if not several:
        yield samples
        return
    edges = Edges()
    yield edges.feed(samples)
    yield edges.finish()


def _silent(seconds: float, times: Times) -> Iterator[np.ndarray]:
    samples = silence(seconds)
    times.samples += len(samples)
    if len(samples):
        yield samples


@contextlib.contextmanager
def _sink(path: Path, kind: str, book: Book, times: Times) -> Iterator[Sink]:
    """What takes the sound; it raises ``OSError`` when the file does not take it."""
    if kind == m4b.NAME:
        with m4b.Writer(path, SAMPLE_RATE, book.title, book.author) as writer:
            yield writer
            writer.chapters([(mark.title, mark.start, mark.end) for mark in times.chapters])
        return
    with open(path, "w+b") as file, Encoder(file, SAMPLE_RATE, kind) as encoder:
        yield encoder
