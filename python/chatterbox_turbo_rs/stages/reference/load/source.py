"""Sorts what a caller may hand over as a clip: a path, encoded bytes, or float32 samples ``[n, channels]`` with their rate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ....errors import ArgumentError, AudioError
from . import MAX_CHANNELS, RATES

# As libsndfile reads them: offset and full scale.
INTEGERS = {"int8": (0, 2.0**7), "uint8": (128, 2.0**7), "int16": (0, 2.0**15), "int32": (0, 2.0**31)}


class Samples(NamedTuple):
    """float32 ``[n, channels]`` at ``rate`` Hz."""

    data: np.ndarray
    rate: int


def sort(source: Any) -> Path | bytes | Samples:
    """The clip behind ``source`` in one of three forms."""
    if isinstance(source, (str, os.PathLike)):
        return Path(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if isinstance(source, tuple) and len(source) == 2:
        rate = check_rate(source[1])
        return Samples(to_float(source[0]), rate)
    if hasattr(source, "read"):
        content = source.read()
        if isinstance(content, bytes):
            return content
        raise ArgumentError(f"source: expected a file object opened in binary mode, its read() gave {type(content).__name__}")
    got = type(source).__name__
    raise ArgumentError(f"source: expected a path, bytes, a binary file object or (array, rate), got {got}")


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
    array = np.asarray(array)
    kind = array.dtype.name
    if array.dtype.kind != "f" and kind not in INTEGERS:
        raise AudioError(f"reference clip: expected float, int8, uint8, int16 or int32 samples, got {kind}")
    if array.ndim not in (1, 2):
        raise AudioError(f"reference clip: expected an array [n] or [n, channels], got shape {array.shape}")
    array = array.reshape(len(array), -1) if array.size else array.reshape(0, 1)
    if array.shape[1] > MAX_CHANNELS:
        raise AudioError(
            f"reference clip: expected [n, channels] with at most {MAX_CHANNELS} channels, got shape {array.shape}; "
            "the time axis comes first"
        )
    if kind in INTEGERS:
        offset, scale = INTEGERS[kind]
        array = (array.astype(np.float64) - offset) / scale
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is refused as such
        return np.ascontiguousarray(array, dtype=np.float32)
