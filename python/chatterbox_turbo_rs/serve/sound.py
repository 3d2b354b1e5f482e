"""What is looked at of a sound that is sent, before it is decoded."""

from __future__ import annotations

import io

from .errors import ApiError


def check_length(data: bytes, most: float, name: str) -> None:
    """Raises ``ApiError`` for a sound file whose header says that it is longer than ``most`` seconds."""
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            seconds = file.frames / file.samplerate if file.frames < 1 << 60 else 0.0
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError):
        return  # the reader says what it is
    if seconds > most:
        raise ApiError(400, f"{name}: expected at most {most:g} s of sound, got {seconds:.0f} s", name, "sound_too_long")
