"""Reading upstream's safetensors files on the Python side (memory-mapped, float32 out)."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

from .errors import CheckpointError, FileError

_DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2"), "I64": np.dtype("<i8"), "I32": np.dtype("<i4")}


class TensorFile:
    """A memory-mapped safetensors file (format: https://github.com/huggingface/safetensors, README at v0.8.0).

    Raises ``FileError`` when the file cannot be opened and ``CheckpointError`` when it is not a complete safetensors file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with open(self.path, "rb") as file:
                head = file.read(8)
                size = struct.unpack("<Q", head)[0] if len(head) == 8 else -1
                total = file.seek(0, 2)
                file.seek(8)
                text = file.read(size) if 0 < size <= min(total - 8, 100_000_000) else b""
        except OSError as error:
            raise FileError(f"{self.path}: {error.strerror or error}") from None
        try:
            header = json.loads(text)
            self.metadata: dict[str, str] = header.pop("__metadata__", {})
            self._entries = {name: (e["dtype"], tuple(e["shape"]), *e["data_offsets"]) for name, e in header.items()}
            end = max((e[3] for e in self._entries.values()), default=0)
            if 8 + size + end != total:
                raise ValueError(f"expected {8 + size + end} bytes, found {total}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{self.path}: not a complete safetensors file: {error}") from None
        self._map = np.memmap(self.path, mode="r", offset=8 + size) if end else np.zeros(0, np.uint8)

    def names(self) -> list[str]:
        """Tensor names, sorted."""
        return sorted(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of tensor ``name``."""
        return self._entry(name)[1]

    def dtype(self, name: str) -> str:
        """safetensors' dtype name, such as ``"F32"``."""
        return self._entry(name)[0]

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
        raw = self._map[start:stop].view(_DTYPES[dtype]).reshape(found)
        if dtype in ("I64", "I32"):
            return np.ascontiguousarray(raw.astype(np.int64))
        value = (raw.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else raw.astype(np.float32)
        if not np.isfinite(value).all():
            raise CheckpointError(f"{self.path}: tensor {name}: expected finite numbers, found NaN or infinity")
        return np.ascontiguousarray(value)
