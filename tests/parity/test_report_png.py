"""The pictures of the report: every pixel comes back from the file, and the colour maps say what they should."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
import pytest

from chatterbox_turbo_rs.parity.report.png import (
    LEVELS,
    NOT_FINITE,
    NOTHING,
    RED_BLUE,
    VIRIDIS,
    data_uri,
    encode,
    levels,
    palette,
)


def decode(file: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(indices [height, width], palette [n, 3], alpha [n]) of a PNG without filters; every checksum is verified."""
    assert file[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(file):
        (size,) = struct.unpack(">I", file[at : at + 4])
        name, data = file[at + 4 : at + 8], file[at + 8 : at + 8 + size]
        assert struct.unpack(">I", file[at + 8 + size : at + 12 + size])[0] == zlib.crc32(name + data), name
        chunks[name] = data
        at += 12 + size
    assert list(chunks) == [b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"]
    width, height, depth, kind, compression, filtering, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, kind, compression, filtering, interlaced) == (8, 3, 0, 0, 0)
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not lines[:, 0].any(), "a line has a filter"
    return lines[:, 1:], np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3), np.frombuffer(chunks[b"tRNS"], np.uint8)


@pytest.mark.parametrize("shape", [(1, 1), (80, 3), (2, 700), (80, 501)])
def test_the_file_decodes_to_the_pixels(shape: tuple[int, int]) -> None:
    indices = np.random.default_rng(1).integers(0, NOTHING + 1, shape).astype(np.uint8)
    colours = palette(VIRIDIS)
    found, table, alpha = decode(encode(indices, colours))
    assert np.array_equal(found, indices) and np.array_equal(table, colours)
    assert alpha[NOTHING] == 0 and (alpha[:NOTHING] == 255).all()


@pytest.mark.parametrize(
    "indices", [np.zeros((0, 4), np.uint8), np.zeros(4, np.uint8), np.zeros((2, 2)), np.full((2, 2), 255, np.uint8)]
)
def test_what_is_no_picture_is_refused(indices: np.ndarray) -> None:
    with pytest.raises(ValueError, match="indices: expected"):
        encode(indices, palette(VIRIDIS))


def test_the_address_holds_the_file() -> None:
    png = encode(np.zeros((2, 3), np.uint8), palette(VIRIDIS))
    head, _, body = data_uri(png).partition(",")
    assert head == "data:image/png;base64" and base64.b64decode(body) == png


def test_levels_go_from_the_lowest_to_the_highest_and_mark_what_is_not_finite() -> None:
    values = np.array([-2.0, 0.0, 2.0, np.nan, np.inf, -np.inf, -9.0, 9.0])
    top = LEVELS - 1
    assert levels(values, -2, 2).tolist() == [0, top // 2, top, NOT_FINITE, NOT_FINITE, NOT_FINITE, 0, top]
    assert levels(np.ones((2, 2)), 1, 1).tolist() == [[0, 0], [0, 0]]
    assert levels(np.zeros((0, 80)), 0, 0).shape == (0, 80)


def test_viridis_gets_lighter_and_the_diverging_map_is_lightest_at_zero() -> None:
    def lightness(anchors: str) -> np.ndarray:
        return palette(anchors)[:LEVELS].astype(float) @ np.array([0.2126, 0.7152, 0.0722])

    assert (np.diff(lightness(VIRIDIS)) > -1).all() and lightness(VIRIDIS)[-1] - lightness(VIRIDIS)[0] > 150
    diverging = lightness(RED_BLUE)
    assert diverging.argmax() == LEVELS // 2 == (LEVELS - 1) / 2
    red, _, blue = palette(RED_BLUE)[[0, LEVELS - 1]].astype(int).T
    assert blue[0] > red[0] and red[1] > blue[1], "negative is blue, positive red"
