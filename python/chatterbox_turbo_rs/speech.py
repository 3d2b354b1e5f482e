"""The result of one request: samples and everything that says how they were made."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping

import numpy as np

from .backends import Plan
from .errors import ArgumentError
from .files import whole_file

_FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3", ".aiff": "AIFF"}


def format_of(path: str | Path) -> str:
    """The file format that a name's ending stands for; raises ``ArgumentError`` for another ending."""
    if not isinstance(path, (str, Path)):
        raise ArgumentError(f"path: expected str or Path, got {type(path).__name__}")
    ending = Path(path).suffix
    if ending.lower() not in _FORMATS:
        raise ArgumentError(f"{path}: expected a name ending in {', '.join(_FORMATS)}, got {ending!r}")
    return _FORMATS[ending.lower()]


@dataclass(frozen=True, eq=False)
class Speech:
    """``samples`` float32 [n] at ``sample_rate`` Hz, and how they came about.

    ``seed`` and ``plan`` reproduce them; ``timings`` are seconds a stage; ``tokens`` int64 [N] are the speech tokens that
    were vocoded (with the closing silence); ``text`` is the normalised text.
    """

    samples: np.ndarray
    sample_rate: int
    seed: int
    plan: Plan
    timings: Mapping[str, float] = field(default_factory=dict)
    tokens: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    watermarked: bool = False
    text: str = ""

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return len(self.samples) / self.sample_rate

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.samples, dtype=dtype, copy=True if copy is None else copy)

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        return f"Speech({self.seconds:.2f} s at {self.sample_rate} Hz, seed={self.seed}, plan={str(self.plan)!r})"

    def save(self, path: str | Path) -> None:
        """Writes WAV (16 bit), FLAC, OGG, MP3 or AIFF by the file's ending; whole or not at all.

        Raises ``ArgumentError`` for another ending and ``FileError`` when the system refuses.
        """
        kind = format_of(path)
        data = self._encode(kind)
        with whole_file(path) as temporary:
            temporary.write_bytes(data)

    def _encode(self, kind: str) -> bytes:
        import soundfile

        buffer = io.BytesIO()
        soundfile.write(buffer, np.clip(self.samples, -1.0, 1.0), self.sample_rate, format=kind)
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        audio = base64.b64encode(self._encode("WAV")).decode("ascii")
        return f'<audio controls src="data:audio/wav;base64,{audio}"></audio><br><code>{self!r}</code>'
