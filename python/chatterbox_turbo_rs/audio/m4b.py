"""AAC by PyAV (FFmpeg), which is optional: audio books for players, in MPEG-4 with chapters, and bare frames that are sent as they come."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import BackendError

NAME = "m4b"
OLDEST = (16, 1)
"""PyAV's version: older ones have no chapters, or crash where these are set behind the sound."""
BIT_RATE = 64_000
"""Bits a second; of mono speech at 24 kHz little is lost."""
CONTAINER = "ipod"
"""FFmpeg's name of M4B."""
_BLOCK = 1 << 16


def check() -> Any:
    """PyAV's module. Raises ``BackendError`` where it is not installed, or too old."""
    try:
        import av
    except ImportError as error:
        raise BackendError(
            f"PyAV, which writes M4B and AAC, is missing ({error}); pip install 'chatterbox-turbo-rs[book]'"
        ) from None
    if tuple(int(number) for number in re.findall(r"\d+", av.__version__)[:2]) < OLDEST:
        raise BackendError(f"PyAV: expected version {OLDEST[0]}.{OLDEST[1]} or newer, found {av.__version__}; pip install -U av")
    return av


class Writer:
    """``with Writer(path, rate, title, author) as writer: writer.write(samples); writer.chapters(…)``; samples float32 [n], clipped to ±1.

    Raises ``OSError`` when the system refuses the file.
    """

    def __init__(
        self,
        file: Path | IO[bytes],
        rate: int,
        title: str = "",
        author: str = "",
        container: str = CONTAINER,
        bits: int = BIT_RATE,
    ) -> None:
        av = check()
        self._rate, self._av = rate, av
        self._at = 0
        try:
            target = str(file) if isinstance(file, Path) else file
            self._file = av.open(target, "w", format=container, container_options={"fflags": "+bitexact"})
            self._stream = self._file.add_stream("aac", rate=rate, layout="mono", options={"flags": "+bitexact"})
            self._stream.bit_rate = bits
        except (av.FFmpegError, OSError) as error:
            raise self._refused(error) from None
        told = {"title": title, "album": title, "artist": author, "genre": "Audiobook"}
        self._file.metadata.update({key: value for key, value in told.items() if value})

    def write(self, samples: np.ndarray) -> None:
        """The next samples."""
        samples = np.clip(samples, -1.0, 1.0).astype(np.float32)
        for start in range(0, len(samples), _BLOCK):
            frame = self._av.AudioFrame.from_ndarray(samples[None, start : start + _BLOCK].copy(), "fltp", "mono")
            frame.sample_rate, frame.pts = self._rate, self._at
            self._at += frame.samples
            self._pass(frame)

    def chapters(self, marks: Sequence[tuple[str, int, int]]) -> None:
        """Title, first sample and the one behind the last of each chapter; once, when they are known."""
        from fractions import Fraction

        self._file.set_chapters(
            [
                {"id": number, "start": start, "end": end, "time_base": Fraction(1, self._rate), "metadata": {"title": title}}
                for number, (title, start, end) in enumerate(marks)
            ]
        )

    def close(self) -> None:
        """Writes what is left."""
        self._pass(None)
        try:
            self._file.close()
        except (self._av.FFmpegError, OSError) as error:
            raise self._refused(error) from None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is None:
            self.close()
            return
        with contextlib.suppress(self._av.FFmpegError, OSError):
            self._file.close()

    def _pass(self, frame: Any) -> None:
        try:
            for packet in self._stream.encode(frame):
                self._file.mux(packet)
        except (self._av.FFmpegError, OSError) as error:
            raise self._refused(error) from None

    def _refused(self, error: Any) -> OSError:
        return OSError(getattr(error, "errno", None) or 0, getattr(error, "strerror", None) or str(error))
