"""Reading upstream's safetensors files on the Python side (float32 out)."""

from __future__ import annotations

import json
import math
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np

from ..audio.files import regular
from ..errors import CheckpointError, FileError

_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
}
_OTHER_SIZES = {"F64": 8, "U64": 8, "C64": 8, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Bytes of a value of the dtypes that a file may hold but no stage reads."""
LFS_POINTER = b"version "
"""The first eight bytes of what git writes in place of a large file, unless git-lfs fetches it."""
LARGEST_HEADER = 100_000_000
"""safetensors' own limit."""


class TensorFile:
    """A safetensors file (format: https://github.com/huggingface/safetensors, README at v0.8.0).

    Not mapped: a file that is cut off while it is mapped ends the process. Every tensor is read from the file as it was
    when this object was made; one that has changed since is a ``CheckpointError``.

    Raises ``FileError`` when the file cannot be opened and ``CheckpointError`` when it is not a complete safetensors file
    or its header says what cannot be: data that overlaps, has holes, lies outside, or does not have its tensor's size.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        regular(self.path)
        try:
            with open(self.path, "rb") as file:
                head = file.read(8)
                size = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
                self._state = _state(file.fileno())
                total = file.seek(0, 2)
                file.seek(8)
                text = file.read(size) if size <= min(total - 8, LARGEST_HEADER) else None
        except (OSError, ValueError) as error:
            raise FileError(f"{self.path}: {getattr(error, 'strerror', None) or error}") from None
        try:
            if head == LFS_POINTER:
                raise CheckpointError(lfs_pointer(self.path))
            if text is None:
                raise ValueError(f"expected a header of {size} bytes (at most {LARGEST_HEADER}), the file has {total}")
            if len(head) < 8:
                raise ValueError(f"expected at least 8 bytes, found {total}")
            header = json.loads(text, object_pairs_hook=_once)
            self.metadata, self._entries = _entries(header)
            end = max((entry[3] for entry in self._entries.values()), default=0)
            if 8 + size + end != total:
                raise ValueError(f"expected {8 + size + end} bytes, found {total}")
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{self.path}: not a complete safetensors file: {error}") from None
        self._data = 8 + size

    def names(self) -> list[str]:
        """Tensor names, sorted."""
        return sorted(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of tensor ``name``."""
        return self._entry(name)[1]

    def dtype(self, name: str) -> str:
        """safetensors' dtype name, such as ``"F32"``."""
        return self._entry(name)[0]

    def place(self, name: str) -> tuple[int, int]:
        """Where in the file the values of tensor ``name`` begin and end, in bytes."""
        start, stop = self._entry(name)[2:]
        return self._data + start, self._data + stop

    def _entry(self, name: str) -> tuple[str, tuple[int, ...], int, int]:
        try:
            return self._entries[name]
        except KeyError:
            raise CheckpointError(f"{self.path}: tensor {name} is missing") from None

    def get(self, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """Tensor ``name`` as a new array: float32 for floating-point tensors, int64 for integers.

        Raises ``CheckpointError`` for a missing tensor, another shape, an unknown dtype, or NaN or infinity.
        """
        dtype, found, start, stop = self._entry(name)
        if shape is not None and found != tuple(shape):
            raise CheckpointError(f"{self.path}: tensor {name}: expected shape {list(shape)}, found {list(found)}")
        if dtype not in _DTYPES:
            raise CheckpointError(f"{self.path}: tensor {name}: expected dtype {', '.join(_DTYPES)}, found {dtype}")
        raw = self._read(start, stop).view(_DTYPES[dtype]).reshape(found)
        if dtype in ("I64", "I32"):
            return np.ascontiguousarray(raw.astype(np.int64)).reshape(found)
        value = (raw.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else raw.astype(np.float32)
        if not np.isfinite(value).all():
            raise CheckpointError(f"{self.path}: tensor {name}: expected finite numbers, found NaN or infinity")
        return np.ascontiguousarray(value).reshape(found)

    def _read(self, start: int, stop: int) -> np.ndarray:
        raw = np.empty(stop - start, np.uint8)
        try:
            with open(self.path, "rb") as file:
                file.seek(self._data + start)
                count = file.readinto(raw.data)
                if count != len(raw) or _state(file.fileno()) != self._state:
                    raise CheckpointError(f"{self.path}: the file has changed since it was opened; load the model again")
        except OSError as error:
            raise FileError(f"{self.path}: {error.strerror or error}") from None
        return raw


def _state(descriptor: int) -> tuple[int, ...]:
    """What changes with a file's content."""
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def lfs_pointer(path: str | Path) -> str:
    """What to say of a file that begins with ``LFS_POINTER``."""
    return f"{path}: expected the file itself, found a git-lfs pointer to it; run `git lfs pull` where it was cloned"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    items = dict(pairs)
    if len(items) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)} stands in the header twice")
    return items


def _entries(header: Any) -> tuple[dict[str, str], dict[str, tuple[str, tuple[int, ...], int, int]]]:
    """The metadata, and name → (dtype, shape, first byte, byte behind the last); raises ``ValueError``."""
    if not isinstance(header, dict):
        raise ValueError(f"expected an object as its header, found {type(header).__name__}")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("__metadata__: expected texts")
    entries = {name: _entry(name, described) for name, described in header.items()}
    place = 0
    for name, (_, _, start, stop) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if start != place:
            raise ValueError(f"tensor {name}: expected data from byte {place} on, found {start}")
        place = stop
    return metadata, entries


def _entry(name: str, described: Any) -> tuple[str, tuple[int, ...], int, int]:
    if not isinstance(described, dict) or described.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name}: expected dtype, shape and data_offsets")
    dtype, shape, offsets = described["dtype"], described["shape"], described["data_offsets"]
    if not _whole_numbers(shape) or not _whole_numbers(offsets) or len(offsets) != 2:
        raise ValueError(f"tensor {name}: expected whole numbers as its shape and its two offsets")
    size = _DTYPES[dtype].itemsize if dtype in _DTYPES else _OTHER_SIZES.get(dtype) if isinstance(dtype, str) else None
    if size is None:
        raise ValueError(f"tensor {name}: expected a dtype of whole bytes, found {dtype!r}")
    if offsets[1] - offsets[0] != size * math.prod(shape):
        raise ValueError(
            f"tensor {name}: {dtype} of shape {shape} has {size * math.prod(shape)} bytes, its offsets are {offsets}"
        )
    return dtype, tuple(shape), offsets[0], offsets[1]


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in value)
