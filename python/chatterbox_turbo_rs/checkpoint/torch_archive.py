"""Files of ``torch.save`` without torch: reading through a restricted reader, and writing.

``read(path)`` -> nested dicts (string keys) and lists with NumPy arrays, numbers, strings, booleans and None as leaves.
``save(path, value)`` writes the same kind of value, so that ``torch.load(path, weights_only=True)`` gives it back with
tensors for arrays.

Nothing in a file is ever run: every opcode, global or call that plain data does not need is refused by name.
bfloat16 tensors are read as float32 (NumPy has no such dtype). Format: ``torch/serialization.py`` of PyTorch 2.13.
"""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from .. import _core
from ..audio.files import regular, whole_file
from ..errors import ArgumentError, CheckpointError
from .tensor_file import LFS_POINTER, lfs_pointer

_STORAGES = {
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "float64": "DoubleStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}
_ALIGNMENT = 64
_DEPTH = 64


def read(path: str | Path) -> Any:
    """The value in the archive at ``path``.

    Raises ``FileError`` when the file cannot be read, and ``CheckpointError`` when it is not a complete torch archive, has
    torch's format from before 1.6, or holds anything but tensors (float32, float16, bfloat16, float64, int64, int32, uint8,
    bool) and plain containers.
    """
    regular(path)
    try:
        with open(path, "rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise CheckpointError(lfs_pointer(path))
    except OSError:
        pass  # the reader says what is wrong, in its own words
    return _core.read_torch_archive(os.fspath(path))


def save(path: str | Path, value: Any) -> None:
    """Writes ``value`` to ``path``; the file is replaced whole or not at all.

    Raises ``ArgumentError`` naming the place of a value that cannot be written, ``FileError`` when writing fails.
    """
    pickler = _Pickler()
    pickle = pickler.dump(value)
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        _write(file, pickle, pickler.arrays)


def _write(file: Any, pickle: bytes, arrays: list[np.ndarray]) -> None:
    records: list[tuple[str, Any]] = [("data.pkl", pickle), ("byteorder", b"little")]
    records += [(f"data/{key}", array) for key, array in enumerate(arrays)]
    records.append(("version", b"3\n"))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records:
            data = content.astype(content.dtype.newbyteorder("<"), copy=False).tobytes() if name.startswith("data/") else content
            info = zipfile.ZipInfo(f"archive/{name}")  # dated 1980, so that equal values give equal files
            # torch maps storages into memory: each one begins at a multiple of 64 (30: a local header without its name)
            rest = -(file.tell() + 30 + len(info.filename) + 4) % _ALIGNMENT
            info.extra = b"FB" + struct.pack("<H", rest) + b"Z" * rest
            archive.writestr(info, data)


class _Pickler:
    """Emits the protocol-2 opcodes that torch writes for plain containers and tensors."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []

    def dump(self, value: Any) -> bytes:
        return b"\x80\x02" + self._emit(value, "value", 0) + b"."

    def _emit(self, value: Any, where: str, depth: int) -> bytes:
        if depth > _DEPTH:
            raise ArgumentError(f"{where}: nested deeper than {_DEPTH}")
        if value is None:
            return b"N"
        if isinstance(value, (bool, np.bool_)):
            return b"\x88" if value else b"\x89"
        if isinstance(value, (int, np.integer)):
            return _integer(int(value), where)
        if isinstance(value, (float, np.floating)):
            return b"G" + struct.pack(">d", float(value))
        if isinstance(value, str):
            return _string(value, where)
        if isinstance(value, np.ndarray):
            return self._tensor(value, where)
        if isinstance(value, dict):
            return b"}(" + b"".join(self._item(key, item, where, depth) for key, item in value.items()) + b"u"
        if isinstance(value, (list, tuple)):
            items = b"".join(self._emit(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value))
            return b"](" + items + b"e" if isinstance(value, list) else b"(" + items + b"t"
        kinds = "a dict, list, tuple, array, number, string, bool or None"
        raise ArgumentError(f"{where}: expected {kinds}, got {type(value).__name__}")

    def _item(self, key: Any, item: Any, where: str, depth: int) -> bytes:
        if not isinstance(key, str):
            raise ArgumentError(f"{where}: expected string keys, got {key!r}")
        return _string(key, where) + self._emit(item, f"{where}[{key!r}]", depth + 1)

    def _tensor(self, array: np.ndarray, where: str) -> bytes:
        storage = _STORAGES.get(array.dtype.name)
        if storage is None:
            raise ArgumentError(f"{where}: expected one of {', '.join(_STORAGES)}, got {array.dtype}")
        array = np.ascontiguousarray(array).reshape(array.shape)  # which makes [1] of a scalar
        stride = [int(np.prod(array.shape[axis + 1 :], dtype=np.int64)) for axis in range(array.ndim)]
        key = str(len(self.arrays))
        self.arrays.append(array)
        sizes = [b"(" + b"".join(_integer(n, where) for n in numbers) + b"t" for numbers in (array.shape, stride)]
        return b"".join(
            (
                b"ctorch._utils\n_rebuild_tensor_v2\n(",
                b"(" + _string("storage", where) + f"ctorch\n{storage}\n".encode(),
                _string(key, where) + _string("cpu", where) + _integer(array.size, where) + b"tQ",
                _integer(0, where) + sizes[0] + sizes[1] + b"\x89ccollections\nOrderedDict\n)RtR",
            )
        )


def _integer(value: int, where: str) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    if not -(2**63) <= value < 2**63:
        raise ArgumentError(f"{where}: expected an integer of at most 64 bits, got {value}")
    return b"\x8a\x08" + struct.pack("<q", value)


def _string(value: str, where: str) -> bytes:
    try:
        data = value.encode()
    except UnicodeEncodeError:
        raise ArgumentError(f"{where}: expected text, got a lone surrogate") from None
    return b"X" + struct.pack("<I", len(data)) + data
