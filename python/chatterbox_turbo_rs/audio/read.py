"""Reading sound: one set of formats for everything that takes a clip.

Rust (Symphonia) reads first; what it does not know goes to libsndfile. Whichever reads, a damaged clip is an error.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .. import _core
from ..errors import AudioError, FileError, UnsupportedAudioError
from .formats import HEAD, name_of, refusal
from .source import RATES, Samples, sort, to_mono

CLIP = "reference clip"
"""What errors call a clip that has no path."""
FULL_RATE = 48_000
"""Hz. A limit of seconds is one of samples at this rate too."""
BLOCK = 1 << 20
"""Frames read at a time of a codec that cannot tell how many there are."""
_NOT_KNOWN_TO_LIBSNDFILE = (1, 4, 18)
"""Its error codes: format not recognised, encoding not supported, format not implemented."""


def read(source: Any, most: float | None = None) -> tuple[np.ndarray, int]:
    """float32 samples ``[n]`` (mean over the channels) and their rate in Hz, of anything that ``source.sort`` takes.

    Of a file longer than ``most`` seconds, or than their samples at ``FULL_RATE``, a little more is read and no more: an hour of silence
    may be a few hundred kilobytes.

    Raises ``FileError`` when a file cannot be read, ``AudioError`` with its path when it is damaged or no audio
    (``UnsupportedAudioError`` where it may be audio that neither reader knows), ``ArgumentError`` for a source of another type.
    """
    clip = sort(source)
    if isinstance(clip, Samples):
        return to_mono(clip.data), clip.rate
    try:
        with explained(clip):
            return _core.reference_load_decode(clip, most)
    except UnsupportedAudioError:
        return decode(clip, most)


@contextlib.contextmanager
def explained(clip: Path | bytes) -> Iterator[None]:
    """What the core says of a format that it does not know, as all readers say it (see ``formats.refusal``)."""
    try:
        yield
    except UnsupportedAudioError as error:
        raise _refusal(clip, "the Rust side") from error


def decode(clip: Path | bytes, most: float | None = None) -> tuple[np.ndarray, int]:
    """``read`` with libsndfile alone; integers are divided by full scale."""
    import soundfile

    content = _content(clip) if isinstance(clip, Path) else clip
    rate = 0
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            if file.samplerate not in RATES:
                expected = f"expected a sample rate of {RATES.start} to {RATES.stop - 1} Hz"
                raise AudioError(f"{_name(clip)}: {expected}, got {file.samplerate} Hz")
            rate, samples = file.samplerate, to_mono(_frames(file, most))
            if (
                file.format == "OGG" and len(samples) != file.frames and most is None
            ):  # libsndfile skips damaged pages without telling
                raise AudioError(f"{_name(clip)}: damaged: {file.frames} samples expected, {len(samples)} found")
            return samples, rate
    except AudioError:
        raise
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError, MemoryError) as error:
        reason = getattr(error, "error_string", str(error)).rstrip(".")
        unknown = rate == 0 and name_of(content[:HEAD]) is None
        if unknown or getattr(error, "code", None) in _NOT_KNOWN_TO_LIBSNDFILE:
            raise _refusal(clip, f"libsndfile {soundfile.__libsndfile_version__}", reason) from error
        raise AudioError(f"{_name(clip)}: damaged ({reason})") from error


def _frames(file: Any, most: float | None) -> np.ndarray:
    """float32 ``[n, channels]``: all of a sound file, in one piece. Between two pieces soundfile seeks, which hides what damage took away."""
    options = {"dtype": "float32", "always_2d": True}
    count = -1 if most is None else int(most * min(file.samplerate, FULL_RATE)) + 1
    if file.seekable():
        return file.read(count, **options)
    blocks = [file.read(BLOCK, **options)]
    while len(blocks[-1]) and (most is None or sum(map(len, blocks)) < count):
        blocks.append(file.read(BLOCK, **options))
    return np.concatenate(blocks)


def _name(clip: Path | bytes) -> str:
    return str(clip) if isinstance(clip, Path) else CLIP


def _refusal(clip: Path | bytes, reader: str, reason: str = "") -> AudioError:
    if isinstance(clip, bytes):
        return refusal(CLIP, clip[:HEAD], reader, reason)
    with open(clip, "rb") as file:
        return refusal(str(clip), file.read(HEAD), reader, reason, clip)


def _content(path: Path) -> bytes:
    """The content of the regular file ``path``."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("is a directory" if path.is_dir() else "is not a regular file")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
