"""The result of one request: samples and everything that says how they were made; and, of a stream, a piece of it."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, overload

import numpy as np
from numpy.typing import DTypeLike

from .audio.encode import Encoder, encode, format_of, write_all
from .audio.files import whole_file
from .audio.subtitles import subtitles
from .constants import SAMPLE_RATE
from .errors import ArgumentError
from .plan import Plan

FinishReason = Literal["stop", "length"]
Fault = Literal["no stop", "too short", "stuck", "cut end"]
"""What may be wrong with a segment: T3 did not end it; it has too few tokens for its text; 25 equal or silent tokens follow each
other; it is loud where it ends."""


@dataclass(frozen=True)
class SpokenSegment:
    """One segment of a speech: ``start`` and ``end`` are seconds of the samples, ``seed`` is the one that it was spoken with.

    ``attempts`` is how often it was spoken, ``faults`` what is wrong with the attempt that was kept (nothing, mostly). Its
    ``text`` with its ``seed`` gives the same sound again.
    """

    text: str
    start: float
    end: float
    tokens: int
    seed: int
    attempts: int = 1
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, eq=False)
class Speech:
    """``samples`` float32 [n] at ``sample_rate`` Hz, and how they came about.

    ``seed`` and ``plan`` reproduce them; ``timings`` are seconds a stage (of ``generate_many``, see there); ``tokens`` int64 [N] are the speech tokens that
    were vocoded (of a text with the closing silence); ``text`` is the normalised text, empty after a conversion. ``finish_reason``
    is ``"stop"`` where T3 ended
    the speech itself, ``"length"`` where ``max_tokens`` cut it or a segment of it. ``segments`` are the pieces of a long text.
    """

    samples: np.ndarray
    sample_rate: int
    seed: int
    plan: Plan
    timings: Mapping[str, float] = field(default_factory=dict)
    tokens: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    watermarked: bool = False
    text: str = ""
    finish_reason: FinishReason = "stop"
    segments: tuple[SpokenSegment, ...] = ()

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return len(self.samples) / self.sample_rate

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.samples, dtype=dtype) if copy is None else np.array(self.samples, dtype=dtype, copy=copy)

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        cut = ", cut at max_tokens" if self.finish_reason == "length" else ""
        return f"Speech({self.seconds:.2f} s at {self.sample_rate} Hz{cut}, seed={self.seed}, plan={str(self.plan)!r})"

    @overload
    def save(self, target: str | os.PathLike[str], *, format: str | None = None) -> Path: ...
    @overload
    def save(self, target: IO[bytes], *, format: str) -> None: ...
    def save(self, target: str | os.PathLike[str] | IO[bytes], *, format: str | None = None) -> Path | None:
        """Writes a file, whole or not at all, and returns its path; or writes to a binary file object, whose ``format`` must be named.

        Formats are ``wav``, ``flac`` and ``aiff`` (16 bit), ``ogg`` (Vorbis), ``opus`` (in Ogg), ``mp3`` and ``pcm`` (16 bit
        little-endian at ``sample_rate``, mono, no header); a path's ending says which, unless ``format`` does.
        Raises ``ArgumentError`` for another format, or one that this system's libsndfile cannot write, and ``FileError`` when
        the system refuses the file; what a file object raises passes.
        """
        if not isinstance(target, (str, os.PathLike)):
            if not hasattr(target, "write"):
                raise ArgumentError(f"path: expected str, os.PathLike or a binary file object, got {type(target).__name__}")
            write_all(target, encode(self.samples, self.sample_rate, format))
            return None
        kind = format_of(target) if format is None else format
        with whole_file(target) as temporary, open(temporary, "w+b") as file:
            try:
                with Encoder(file, self.sample_rate, kind) as encoder:
                    encoder.write(self.samples)
            except ArgumentError as error:
                raise ArgumentError(f"{os.fspath(target)}: {error}") from None
        return Path(target)

    def subtitles(self, format: str = "srt") -> str:
        """The segments' texts with their times, as SubRip (``"srt"``) or WebVTT (``"vtt"``). Raises ``ArgumentError``."""
        return subtitles(self.segments, format)

    def wav_bytes(self) -> bytes:
        """A whole WAV file, 16 bit mono."""
        return encode(self.samples, self.sample_rate, "wav")

    def _repr_html_(self) -> str:
        audio = base64.b64encode(self.wav_bytes()).decode("ascii")
        return f'<audio controls src="data:audio/wav;base64,{audio}"></audio><br><code>{html.escape(repr(self))}</code>'


@dataclass(frozen=True, eq=False)
class Chunk:
    """A piece of a stream: ``samples`` float32 [n] at ``sample_rate`` Hz, n >= 1, the first of which is number ``start`` of the stream.

    ``segment`` counts the parts that the text was cut into, from 0, and ``text`` is that part, normalised. ``final``: there is no
    chunk after this one. ``finish_reason`` is that of ``Speech``, at the end of a segment, and None before.
    """

    samples: np.ndarray
    start: int
    segment: int
    text: str
    final: bool
    finish_reason: FinishReason | None = None

    @property
    def sample_rate(self) -> int:
        """24,000 Hz."""
        return SAMPLE_RATE

    @property
    def seconds(self) -> float:
        """Where this chunk ends, in seconds from the start of the stream."""
        return (self.start + len(self.samples)) / SAMPLE_RATE

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        end = f", final, {self.finish_reason}" if self.final else ""
        return f"Chunk({self.start / SAMPLE_RATE:.2f} to {self.seconds:.2f} s, segment {self.segment}{end})"
