"""Sorts what a caller may hand over as sound: a path, an encoded file's bytes, or float32 samples ``[n, channels]`` with their rate."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import ArgumentError, AudioError, FileError

RATES = range(1_000, 768_001)
"""Sample rates that are accepted, in Hz."""
MAX_CHANNELS = 64
"""An array with more channels than this has its axes swapped."""
# As libsndfile reads them: offset and full scale.
INTEGERS = {"int8": (0, 2.0**7), "uint8": (128, 2.0**7), "int16": (0, 2.0**15), "int32": (0, 2.0**31)}
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|(https?|ftp|s3|gs):/")
"""What URLs begin with, also when they became a ``Path``, which takes one slash away."""


class Samples(NamedTuple):
    """float32 ``[n, channels]`` at ``rate`` Hz."""

    data: np.ndarray
    rate: int


def sort(source: Any) -> Path | bytes | Samples:
    """The clip behind ``source`` in one of three forms. A file object is read from where it stands to its end; it need not be seekable.

    Raises ``ArgumentError`` for a source of another type, ``AudioError`` for an array that is no sound, ``FileError`` for a URL
    and when a file object cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        return local(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if isinstance(source, tuple) and len(source) == 2:
        if isinstance(source[0], (int, np.integer)) and not isinstance(source[1], (int, float, np.integer, np.floating)):
            raise ArgumentError("source: expected (array, rate), got the rate first: (rate, array)")
        rate = check_rate(source[1])
        return Samples(to_float(source[0]), rate)
    if hasattr(source, "read"):
        return _content(source)
    got = type(source).__name__
    raise ArgumentError(f"source: expected a path, bytes, a binary file object or (array, rate), got {got}")


def local(path: str | os.PathLike[Any]) -> Path:
    """``path`` as a ``Path``. Raises ``FileError`` that repeats a URL."""
    path = os.fsdecode(path)
    if URL.match(path):
        raise FileError(f"{re.sub(':/(?!/)', '://', path, count=1)}: expected a file, got a URL; download it first")
    return Path(path)


def _content(file: Any) -> bytes:
    text = 'source: expected a file object opened in binary mode (open(path, "rb"))'
    if isinstance(file, io.TextIOBase):
        raise ArgumentError(f"{text}, got one opened in text mode")
    try:
        content = file.read()
    except UnicodeDecodeError:
        raise ArgumentError(f"{text}, got one that decodes text") from None
    except OSError as error:
        raise FileError(f"{getattr(file, 'name', 'source')}: {error.strerror or error}") from error
    except ValueError as error:  # a closed file
        raise ArgumentError(f"source: {error}") from None
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise ArgumentError(f"{text}, its read() gave {type(content).__name__}")
    return bytes(content)


def check_rate(rate: Any) -> int:
    """``rate`` as an int when it is a whole number of Hz in the accepted range."""
    expected = f"expected a sample rate of {RATES.start} to {RATES.stop - 1} Hz"
    if isinstance(rate, (bool, np.bool_)) or not isinstance(rate, (int, float, np.integer, np.floating)):
        raise AudioError(f"reference clip: {expected}, got {type(rate).__name__}")
    if rate not in RATES:
        raise AudioError(f"reference clip: {expected}, got {rate} Hz")
    return int(rate)


def to_float(array: Any) -> np.ndarray:
    """``array`` ``[n]`` or ``[n, channels]`` of a float or integer type as float32 ``[n, channels]``."""
    try:
        array = np.asarray(array)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists; tensors on a GPU or with a gradient
        raise AudioError(f"reference clip: expected an array [n] or [n, channels]: {error}") from None
    kind = array.dtype.name
    if array.dtype.kind != "f" and kind not in INTEGERS:
        raise AudioError(f"reference clip: expected float, int8, uint8, int16 or int32 samples, got {kind}")
    if array.ndim not in (1, 2):
        raise AudioError(f"reference clip: expected an array [n] or [n, channels], got shape {array.shape}")
    array = array.reshape(len(array), -1) if array.size else array.reshape(0, 1)
    if array.shape[1] > MAX_CHANNELS:
        raise AudioError(
            f"reference clip: expected [n, channels] with at most {MAX_CHANNELS} channels, got shape {array.shape}; "
            "the time axis comes first (array.T)"
        )
    if kind in INTEGERS:
        offset, scale = INTEGERS[kind]
        array = (array.astype(np.float64) - offset) / scale
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is refused as such
        return np.ascontiguousarray(array, dtype=np.float32)


def to_mono(data: np.ndarray) -> np.ndarray:
    """The mean over the channels: float32 ``[n, channels]`` to ``[n]``."""
    with np.errstate(all="ignore"):
        return data.mean(axis=1, dtype=np.float32) if data.shape[1] > 1 else data[:, 0]
