"""The result of one request: samples and everything that says how they were made."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike

from .audio.encode import encode, format_of
from .audio.files import whole_file
from .errors import ArgumentError
from .plan import Plan

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, eq=False)
class Speech:
    """``samples`` float32 [n] at ``sample_rate`` Hz, and how they came about.

    ``seed`` and ``plan`` reproduce them; ``timings`` are seconds a stage (of ``generate_many``, see there); ``tokens`` int64 [N] are the speech tokens that
    were vocoded (with the closing silence); ``text`` is the normalised text. ``finish_reason`` is ``"stop"`` where T3 ended
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

    def save(self, path: str | Path) -> None:
        """Writes WAV, FLAC or AIFF (16 bit), OGG or MP3 by the file's ending; whole or not at all.

        Raises ``ArgumentError`` for another ending, or one that this system's libsndfile cannot write, and ``FileError``
        when the system refuses.
        """
        kind = format_of(path)
        import soundfile

        try:
            data = encode(self.samples, self.sample_rate, kind)
        except (soundfile.LibsndfileError, ValueError) as error:
            raise ArgumentError(f"{path}: libsndfile {soundfile.__libsndfile_version__} cannot write {kind}: {error}") from None
        with whole_file(path) as temporary:
            temporary.write_bytes(data)

    def wav_bytes(self) -> bytes:
        """A whole WAV file, 16 bit mono."""
        return encode(self.samples, self.sample_rate, "WAV")

    def _repr_html_(self) -> str:
        audio = base64.b64encode(encode(self.samples, self.sample_rate, "WAV")).decode("ascii")
        return f'<audio controls src="data:audio/wav;base64,{audio}"></audio><br><code>{html.escape(repr(self))}</code>'
