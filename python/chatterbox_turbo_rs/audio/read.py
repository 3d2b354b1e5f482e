"""Reading a sound file as it is: mono, its own sample rate."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import AudioError, FileError


def read(path: str | Path) -> tuple[np.ndarray, int]:
    """float32 samples [n] (mean over channels) and the sample rate. Raises ``FileError`` and ``AudioError``."""
    import soundfile

    try:
        with open(path, "rb") as file:
            samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from None
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path}: not a sound file that can be read: {error}") from None
    return np.ascontiguousarray(samples.mean(axis=1, dtype=np.float32)), int(rate)
