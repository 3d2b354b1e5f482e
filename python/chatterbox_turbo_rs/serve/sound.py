"""What is looked at of a sound that is sent, before it is decoded."""

from __future__ import annotations

import io

from .errors import ApiError

UNTOLD = 4_000_000
"""Bytes of a sound whose length libsndfile does not tell (AAC, WebM): they may be an hour, but not ten."""


def check_length(data: bytes, most: float, name: str) -> None:
    """Raises ``ApiError`` for a sound file whose header says that it is longer than ``most`` seconds, and for a large one that doesn't say."""
    import soundfile

    seconds = None
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            seconds = file.frames / file.samplerate if 0 < file.frames < 1 << 60 else None
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError):
        pass  # the reader says what it is
    if seconds is None and len(data) > UNTOLD:
        expected = f"at most {UNTOLD} bytes of a sound that does not say how long it is (WAV, FLAC, MP3 and Ogg do)"
        raise ApiError(400, f"{name}: expected {expected}, got {len(data)}", name, "sound_too_long")
    if seconds is not None and seconds > most:
        raise ApiError(400, f"{name}: expected at most {most:g} s of sound, got {seconds:.0f} s", name, "sound_too_long")
