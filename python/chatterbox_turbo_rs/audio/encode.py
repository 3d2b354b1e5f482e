"""Samples as the bytes of a sound file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from ..errors import ArgumentError

_BLOCK = 1 << 16
"""Samples handed to libsndfile at a time: its Vorbis encoder overflows the stack on a long sound in one piece."""
_LOSSLESS = ("WAV", "FLAC", "AIFF")
_FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3", ".aiff": "AIFF"}


def format_of(path: str | Path) -> str:
    """The file format that a name's ending stands for; raises ``ArgumentError`` for another ending."""
    if not isinstance(path, (str, Path)):
        raise ArgumentError(f"path: expected str or Path, got {type(path).__name__}")
    ending = Path(path).suffix
    if ending.lower() not in _FORMATS:
        raise ArgumentError(f"{path}: expected a name ending in {', '.join(_FORMATS)}, got {ending!r}")
    return _FORMATS[ending.lower()]


def encode(samples: np.ndarray, rate: int, kind: str) -> bytes:
    """A whole file of format ``kind`` (see ``format_of``) with float32 ``samples`` [n], clipped to ±1."""
    import soundfile

    buffer = io.BytesIO()
    samples = np.clip(samples, -1.0, 1.0)
    if kind in _LOSSLESS:  # rounded here: libsndfile rounds for FLAC and cuts off for WAV and AIFF
        samples = np.clip(np.rint(samples * np.float32(32768)), -32768, 32767).astype(np.int16)
    with soundfile.SoundFile(buffer, "w", rate, 1, format=kind) as file:
        for start in range(0, len(samples), _BLOCK):
            file.write(samples[start : start + _BLOCK])
    return buffer.getvalue()
