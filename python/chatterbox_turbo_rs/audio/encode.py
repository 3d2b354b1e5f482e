"""Samples as the bytes of a sound file."""

from __future__ import annotations

import contextlib
import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import ArgumentError, FileError
from . import ogg

_BLOCK = 1 << 16
"""Samples handed to libsndfile at a time: its Vorbis encoder overflows the stack on a long sound in one piece."""
_LOSSLESS = ("WAV", "FLAC", "AIFF")
_PAGE_LATENCY = 0x1302
"""libsndfile's SFC_SET_OGG_PAGE_LATENCY_MS."""
_CONSTANT: dict[str, Any] = {"bitrate_mode": "CONSTANT", "compression_level": 0.4}
"""An MP3 of 96,000 bits a second."""
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


def pcm(samples: np.ndarray) -> bytes:
    """float32 ``samples`` [n], clipped to ±1, as little-endian 16 bit."""
    return _rounded(samples).astype("<i2", copy=False).tobytes()


def wav_header(rate: int) -> bytes:
    """What stands before the samples of a 16 bit mono WAV of unknown length, which is written as 0xFFFFFFFF: for a pipe."""
    unknown = b"\xff\xff\xff\xff"
    layout = struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
    return b"RIFF" + unknown + b"WAVEfmt " + layout + b"data" + unknown


class Encoder:
    """A sound file that grows: ``with Encoder(file, rate, name) as encoder: encoder.write(samples)``, samples as of ``encode``.

    ``file`` is a binary file object that seeks, and reads too for Ogg; ``growing``: what was written is read before the end (see
    ``growing.py``). Raises what ``encode`` does, and the ``OSError`` of a file that takes no more.
    """

    def __init__(self, file: IO[bytes], rate: int, name: str | None, growing: bool = False) -> None:
        known = FORMATS.get(name.lower()) if isinstance(name, str) else None
        if known is None:
            raise ArgumentError(f"format: expected {', '.join(FORMATS)}, got {name!r}")
        kind, subtype = known
        self._name, self._file, self._sound = str(name), _Guarded(file), None
        self._ogg = kind == "OGG" and not growing  # what grows was read with its number
        self._whole = kind in _LOSSLESS  # rounded here: libsndfile rounds for FLAC and cuts off for the others
        if kind != "RAW":
            with self._libsndfile() as soundfile:
                more = _CONSTANT if growing and kind == "MP3" else {}
                self._sound = soundfile.SoundFile(self._file, "w", rate, 1, subtype, format=kind, **more)
                if growing and kind == "OGG":
                    _short_pages(soundfile, self._sound)

    def write(self, samples: np.ndarray) -> None:
        """The next samples."""
        with self._libsndfile():
            for start in range(0, len(samples), _BLOCK):
                block = samples[start : start + _BLOCK]
                if self._sound is None:
                    self._file.write(pcm(block))
                else:
                    self._sound.write(_rounded(block) if self._whole else np.clip(block, -1.0, 1.0))

    def close(self) -> None:
        """Writes what is left."""
        if self._sound is not None:
            with self._libsndfile():
                self._sound.close()
                if self._ogg:
                    ogg.renumber(self._file)

    def __enter__(self) -> Encoder:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is None:
            self.close()
        elif self._sound is not None:
            self._sound.close()

    @contextlib.contextmanager
    def _libsndfile(self) -> Iterator[Any]:
        """The module ``soundfile``; what it refuses is an ``ArgumentError``, what the file refuses the file's own error."""
        import soundfile

        try:
            yield soundfile
        except (soundfile.LibsndfileError, ValueError, AssertionError) as error:  # it asserts that all was written
            if self._file.error is None:
                version = soundfile.__libsndfile_version__
                raise ArgumentError(f"libsndfile {version} cannot write {self._name}: {error}") from None
        if self._file.error is not None:
            raise self._file.error


def _short_pages(soundfile: Any, sound: Any) -> None:
    """Has Ogg pages written every 0.1 s instead of every second. soundfile has no name of its own for it; without it, pages come later."""
    with contextlib.suppress(AttributeError):
        latency = soundfile._ffi.new("double *", 100.0)
        soundfile._snd.sf_command(sound._file, _PAGE_LATENCY, latency, 8)


class _Guarded:
    """A file whose ``OSError`` is kept: libsndfile calls it from C, where an exception would be printed and lost."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        return self._kept(self._file.write, bytes(data))

    def read(self, count: int) -> bytes:
        return self._kept(self._file.read, count) or b""

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._kept(self._file.seek, offset, whence)

    def tell(self) -> int:
        return self._kept(self._file.tell)

    def _kept(self, call: Any, *arguments: Any) -> Any:
        try:
            return call(*arguments) if self.error is None else 0
        except OSError as error:
            self.error = error
            return 0


def encode(samples: np.ndarray, rate: int, name: str | None) -> bytes:
    """A whole file of float32 ``samples`` [n] at ``rate`` Hz, clipped to ±1, in the format ``name`` (a key of ``FORMATS``, in any case).

    Raises ``ArgumentError`` for another name, and for a format that this system's libsndfile cannot write.
    """
    buffer = io.BytesIO()
    with Encoder(buffer, rate, name) as encoder:
        encoder.write(samples)
    return buffer.getvalue()


def _rounded(samples: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(np.clip(samples, -1.0, 1.0) * np.float32(32768)), -32768, 32767).astype(np.int16)


def write_all(file: Any, data: bytes) -> None:
    """Writes ``data`` to a binary file object, which may take it in pieces. Raises ``ArgumentError`` for one in text mode; its own errors pass."""
    if isinstance(file, io.TextIOBase):
        raise ArgumentError('file: expected one opened in binary mode (open(path, "wb")), got one opened in text mode')
    while data:
        taken = file.write(data)
        if (taken is not None and taken <= 0) or (taken is None and isinstance(file, io.RawIOBase)):
            raise FileError("file: it takes nothing more, and does not wait until it can")
        data = b"" if taken is None else data[taken:]
