"""`reference.load` with soundfile and soxr: any clip to float32 ``[L]``, mono, 24 kHz, longer than 5.0 s.

The same libraries in the same order as ``librosa.load(path, sr=24000)``, which upstream calls in ``tts_turbo.py``
(resemble-ai/chatterbox at commit 5de7a54).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from ....errors import AudioError, FileError
from ..soxr_hq import soxr_hq
from . import MIN_SECONDS, RATE, RATES
from .source import Samples, sort


def create(resources: Any) -> Callable[[Any], np.ndarray]:
    """A pure function: nothing is taken from ``resources``."""
    return load


def load(source: Any) -> np.ndarray:
    """See the contract."""
    clip = sort(source)
    name = "reference clip"
    if isinstance(clip, Path):
        name, clip = str(clip), read(clip)
    try:
        if isinstance(clip, bytes):
            clip = decode(clip)
        return finish(clip)
    except AudioError as e:
        raise AudioError(f"{name}: {e}") from e.__cause__


def read(path: Path) -> bytes:
    """The content of the regular file ``path``."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("is a directory" if path.is_dir() else "is not a regular file")
        return path.read_bytes()
    except (OSError, ValueError) as e:
        raise FileError(f"{path}: {getattr(e, 'strerror', None) or e}") from e


def decode(content: bytes) -> Samples:
    """Float32 ``[n, channels]`` of an encoded file, at its own rate; integers divided by full scale."""
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            data, rate = file.read(dtype="float32", always_2d=True), file.samplerate
            promised = file.frames if file.format == "OGG" else len(data)
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as e:
        reason = getattr(e, "error_string", e)
        raise AudioError(f"not an audio file of a known format, or damaged ({reason})") from e
    if len(data) != promised:  # libsndfile skips damaged Ogg pages without telling
        raise AudioError(f"damaged: {promised} samples expected, {len(data)} found")
    if rate not in RATES:
        raise AudioError(f"expected a sample rate of {RATES.start} to {RATES.stop - 1} Hz, got {rate} Hz")
    return Samples(data, rate)


def finish(clip: Samples) -> np.ndarray:
    """Mono, finite, at 24 kHz, long enough."""
    with np.errstate(all="ignore"):
        mono = clip.data.mean(axis=1) if clip.data.shape[1] > 1 else clip.data[:, 0]  # (n, channels) -> (n,)
    bad = np.flatnonzero(~np.isfinite(mono))
    if len(bad):
        raise AudioError(f"expected finite samples, got {mono[bad[0]]} at {bad[0]}")
    samples = soxr_hq(mono, clip.rate, RATE)
    seconds = len(samples) / RATE
    if not seconds > MIN_SECONDS:
        raise AudioError(f"must be longer than {MIN_SECONDS} s, got {seconds:.3f} s ({len(samples)} samples at {RATE} Hz)")
    return samples
