"""Sound files that are sent while they grow: every byte is final when it is given out.

What a format writes into its beginning at the end (lengths, a digest, MP3's Xing header) is left as it was: unknown. WAV says 0xFFFFFFFF,
FLAC 0 samples and no digest; MP3 has a constant bit rate and no Xing header, so that players count right without one; Ogg pages come with
what is in them.
"""

from __future__ import annotations

import io
from typing import IO, Any, cast

import numpy as np

from ..errors import ArgumentError, BackendError
from . import m4b
from .encode import Encoder, encode, pcm, wav_header

TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
"""Formats and their media types. ``pcm`` is 16 bit, little-endian, mono, without a header."""
AAC_BITS = 96_000
"""Bits a second of AAC."""


class Growing:
    """``feed`` and ``finish`` give the bytes that follow; ``samples`` are those of ``encode``.

    Raises ``ArgumentError`` for a format that is not in ``TYPES``, or that cannot be written here.
    """

    def __init__(self, rate: int, name: str) -> None:
        if name not in TYPES:
            raise ArgumentError(f"format: expected {', '.join(TYPES)}, got {name!r}")
        self._name, self._begun = name, False
        self._head = wav_header(rate) if name == "wav" else b""
        self._file = _Tail()
        self._encoder: Any = None
        if name == "aac":
            if reason := missing(name):
                raise ArgumentError(reason)
            self._encoder = m4b.Writer(cast(IO[bytes], self._file), rate, container="adts", bits=AAC_BITS)
        elif name not in ("wav", "pcm"):
            self._encoder = Encoder(cast(IO[bytes], self._file), rate, name, growing=True)

    @property
    def quick(self) -> bool:
        """Does it take no time worth a thread?"""
        return self._encoder is None

    def feed(self, samples: np.ndarray) -> bytes:
        """What is certain after these samples."""
        if self._encoder is None:
            head, self._head = self._head, b""
            return head + pcm(samples)
        self._encoder.write(samples)
        return self._taken()

    def finish(self) -> bytes:
        """The rest."""
        if self._encoder is None:
            return self.feed(np.zeros(0, np.float32))
        self._encoder.close()
        return self._taken()

    def _taken(self) -> bytes:
        data = self._file.taken()
        if self._name == "mp3" and data and not self._begun:
            data = data[_placeholder(data) :]
        self._begun = self._begun or bool(data)
        return data


def missing(name: str) -> str | None:
    """Why a format of ``TYPES`` cannot be written here, and what to install; None where it can."""
    if name == "aac":
        try:
            m4b.check()
        except BackendError as error:
            return str(error)
    return None


def whole_file(samples: np.ndarray, rate: int, name: str) -> bytes:
    """A file in a format of ``TYPES`` that tells its length, where the format can. Raises as ``Growing`` does."""
    if name != "aac":
        return encode(samples, rate, name)
    out = Growing(rate, name)
    return out.feed(samples) + out.finish()


class _Tail:
    """A file object that gives away what is appended, and forgets what is written over."""

    def __init__(self) -> None:
        self._at = self._end = 0
        self._fresh = bytearray()

    def write(self, data: Any) -> int:
        size = len(data)
        if self._at + size > self._end:
            self._fresh += bytes(data)[max(self._end - self._at, 0) :]
        self._at += size
        self._end = max(self._end, self._at)
        return size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._end}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        return b""

    def flush(self) -> None:
        pass

    def taken(self) -> bytes:
        data, self._fresh = bytes(self._fresh), bytearray()
        return data


def _placeholder(data: bytes) -> int:
    """Bytes of the empty frame that LAME leaves in front, for a Xing header that never comes."""
    after = 4 + len(data[4:]) - len(data[4:].lstrip(b"\0"))
    return after if after > 40 else 0
