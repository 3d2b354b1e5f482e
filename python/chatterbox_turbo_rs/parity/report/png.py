"""PNG with a palette, from an array of indices, with zlib and NumPy alone; and the colour maps of the plots."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np

# Indices 0 to LEVELS - 1 are the colour map (an odd number, so that the middle of a diverging map has one), then the special ones.
LEVELS = 253
NOT_FINITE = 253
NOTHING = 254

# Anchors at equal distances: viridis, and the red-blue map of ColorBrewer from blue (negative) to red (positive).
VIRIDIS = "440154 482878 3e4989 31688e 26828e 1f9e89 35b779 6ece58 b5de2b fde725"
RED_BLUE = "053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f"
MAGENTA = (255, 0, 255)


def palette(anchors: str) -> np.ndarray:
    """uint8 [255, 3]: the map, the colour of numbers that are not finite, and that of places without data (drawn transparent)."""
    colours = np.array([list(bytes.fromhex(anchor)) for anchor in anchors.split()], np.float64)  # [anchors, 3]
    at = np.linspace(0, len(colours) - 1, LEVELS)
    levels = np.stack([np.interp(at, np.arange(len(colours)), channel) for channel in colours.T], axis=1)  # [LEVELS, 3]
    return np.concatenate([np.rint(levels), [MAGENTA, (0, 0, 0)]]).astype(np.uint8)


def levels(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """uint8 indices of float values of any shape, for the range ``low`` to ``high``."""
    finite = np.isfinite(values)
    scale = (LEVELS - 1) / (high - low) if high > low else 0.0
    index = np.rint((np.where(finite, values, low).astype(np.float64) - low) * scale).clip(0, LEVELS - 1)
    return np.where(finite, index, NOT_FINITE).astype(np.uint8)


def encode(indices: np.ndarray, colours: np.ndarray) -> bytes:
    """A PNG file of uint8 indices [height, width] into ``colours`` [n, 3]; ``NOTHING`` is transparent."""
    if indices.ndim != 2 or indices.size == 0 or indices.dtype != np.uint8:
        raise ValueError(f"indices: expected uint8 [height, width], not empty, found {indices.dtype} {list(indices.shape)}")
    if int(indices.max()) >= len(colours):
        raise ValueError(f"indices: expected below {len(colours)}, found {indices.max()}")
    height, width = indices.shape
    lines = np.zeros((height, width + 1), np.uint8)  # every line starts with its filter, 0: none
    lines[:, 1:] = indices
    alpha = np.full(len(colours), 255, np.uint8)
    alpha[NOTHING:] = 0
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", colours.astype(np.uint8).tobytes()),
        (b"tRNS", alpha.tobytes()),
        (b"IDAT", zlib.compress(lines.tobytes(), 9)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def spectra(mels: Sequence[np.ndarray], floor: float) -> bytes:
    """A PNG of log-mels [frames, bands] one below the other, low bands at the bottom, from ``floor`` below the first one's loudest up."""
    high, longest = float(mels[0].max()), max(map(len, mels))
    rows = [np.full((mel.shape[1], longest), NOTHING, np.uint8) for mel in mels]
    for row, mel in zip(rows, mels):
        row[:, : len(mel)] = levels(mel, high - floor, high).T[::-1]
    return encode(np.repeat(np.repeat(np.concatenate(rows), 4, axis=0), 3, axis=1), palette(VIRIDIS))


def data_uri(png: bytes) -> str:
    """The file as a ``data:`` address."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
