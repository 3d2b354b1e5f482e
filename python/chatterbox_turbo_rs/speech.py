"""The result of one request: samples and everything that says how they were made."""

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

from .audio.encode import encode, format_of, write_all
from .audio.files import whole_file
from .errors import ArgumentError
from .plan import Plan

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, eq=False)
class Speech:
    """``samples`` float32 [n] at ``sample_rate`` Hz, and how they came about.

    ``seed`` and ``plan`` reproduce them; ``timings`` are seconds a stage (of ``generate_many``, see there); ``tokens`` int64 [N] are the speech tokens that
    were vocoded (of a text with the closing silence); ``text`` is the normalised text, empty after a conversion. ``finish_reason`` is ``"stop"`` where T3 ended
    the speech itself, ``"length"`` where ``max_tokens`` cut it.
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
        try:
            data = encode(self.samples, self.sample_rate, kind)
        except ArgumentError as error:
            raise ArgumentError(f"{os.fspath(target)}: {error}") from None
        with whole_file(target) as temporary:
            temporary.write_bytes(data)
        return Path(target)

    def wav_bytes(self) -> bytes:
        """A whole WAV file, 16 bit mono."""
        return encode(self.samples, self.sample_rate, "wav")

    def _repr_html_(self) -> str:
        audio = base64.b64encode(self.wav_bytes()).decode("ascii")
        return f'<audio controls src="data:audio/wav;base64,{audio}"></audio><br><code>{html.escape(repr(self))}</code>'
