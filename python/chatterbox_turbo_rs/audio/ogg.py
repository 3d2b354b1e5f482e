"""The serial number of an Ogg stream (RFC 3533): libsndfile draws one by the clock, so that the same sound would never be the same file."""

from __future__ import annotations

import zlib
from typing import Any, Protocol

SERIAL = 1
"""What streams get: one alone in its file may have any number."""
_HEADER = 27
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class File(Protocol):
    def read(self, count: int) -> bytes: ...
    def write(self, data: Any) -> int: ...
    def seek(self, offset: int, whence: int = 0) -> int: ...


def renumber(file: File, serial: int = SERIAL) -> None:
    """Gives all pages of a file, which reads, writes and seeks, this serial number and the checksums that follow from it."""
    at = 0
    while True:
        file.seek(at)
        head = file.read(_HEADER)
        if len(head) < _HEADER or head[:4] != b"OggS":
            break
        sizes = file.read(head[26])
        body = file.read(sum(sizes))
        page = bytearray(head + sizes + body)
        page[14:18] = serial.to_bytes(4, "little")
        page[22:26] = bytes(4)
        page[22:26] = checksum(bytes(page)).to_bytes(4, "little")
        file.seek(at)
        file.write(page[:_HEADER])
        at += len(page)
    file.seek(0, 2)


def checksum(page: bytes) -> int:
    """Ogg's CRC-32: zlib's polynomial with the bits the other way round, from 0 and not inverted."""
    found = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{found:032b}"[::-1], 2)
