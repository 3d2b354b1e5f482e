"""Samples as the bytes of a sound file."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, FileError

_BLOCK = 1 << 16
"""Samples handed to libsndfile at a time: its Vorbis encoder overflows the stack on a long sound in one piece."""
_LOSSLESS = ("WAV", "FLAC", "AIFF")
FORMATS: dict[str, tuple[str, str | None]] = {
    "wav": ("WAV", None),
    "flac": ("FLAC", None),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", None),
    "aiff": ("AIFF", None),
    "pcm": ("RAW", "PCM_16"),
}
"""Name, which is the ending of a file's name too → libsndfile's format and subtype. ``pcm`` is 16 bit, little-endian, no header."""


def format_of(path: str | os.PathLike[str]) -> str:
    """The format (a key of ``FORMATS``) that a name's ending stands for; raises ``ArgumentError`` for another ending."""
    if not isinstance(path, (str, os.PathLike)):
        raise ArgumentError(f"path: expected str or os.PathLike, got {type(path).__name__}")
    ending = Path(path).suffix
    if ending.lower()[1:] not in FORMATS:
        raise ArgumentError(f"{path}: expected a name ending in {', '.join(f'.{name}' for name in FORMATS)}, got {ending!r}")
    return ending.lower()[1:]


def encode(samples: np.ndarray, rate: int, name: str | None) -> bytes:
    """A whole file of float32 ``samples`` [n] at ``rate`` Hz, clipped to ±1, in the format ``name`` (a key of ``FORMATS``, in any case).

    Raises ``ArgumentError`` for another name, and for a format that this system's libsndfile cannot write.
    """
    import soundfile

    known = FORMATS.get(name.lower()) if isinstance(name, str) else None
    if known is None:
        raise ArgumentError(f"format: expected {', '.join(FORMATS)}, got {name!r}")
    kind, subtype = known
    samples = np.clip(samples, -1.0, 1.0)
    if kind in _LOSSLESS or subtype == "PCM_16":  # rounded here: libsndfile rounds for FLAC and cuts off for the others
        samples = np.clip(np.rint(samples * np.float32(32768)), -32768, 32767).astype(np.int16)
    if kind == "RAW":
        return samples.astype("<i2", copy=False).tobytes()
    buffer = io.BytesIO()
    try:
        with soundfile.SoundFile(buffer, "w", rate, 1, subtype, format=kind) as file:
            for start in range(0, len(samples), _BLOCK):
                file.write(samples[start : start + _BLOCK])
    except (soundfile.LibsndfileError, ValueError) as error:
        raise ArgumentError(f"libsndfile {soundfile.__libsndfile_version__} cannot write {name}: {error}") from None
    return buffer.getvalue()


def write_all(file: Any, data: bytes) -> None:
    """Writes ``data`` to a binary file object, which may take it in pieces. Raises ``ArgumentError`` for one in text mode; its own errors pass."""
    if isinstance(file, io.TextIOBase):
        raise ArgumentError('file: expected one opened in binary mode (open(path, "wb")), got one opened in text mode')
    while data:
        taken = file.write(data)
        if (taken is not None and taken <= 0) or (taken is None and isinstance(file, io.RawIOBase)):
            raise FileError("file: it takes nothing more, and does not wait until it can")
        data = b"" if taken is None else data[taken:]
