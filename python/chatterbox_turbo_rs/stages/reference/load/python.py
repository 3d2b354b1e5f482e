"""`reference.load` with soundfile and soxr: any clip to float32 ``[L]``, mono, 24 kHz, longer than 5.0 s.

The same libraries in the same order as ``librosa.load(path, sr=24000)``, which upstream calls in ``tts_turbo.py``
(resemble-ai/chatterbox at commit 5de7a54).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ....audio.read import CLIP, decode
from ....audio.source import Samples, sort, to_mono
from ....errors import AudioError
from ..soxr_hq import soxr_hq
from . import MIN_SECONDS, RATE


def create(resources: Any) -> Callable[[Any], np.ndarray]:
    """A pure function: nothing is taken from ``resources``."""
    return load


def load(source: Any) -> np.ndarray:
    """See the contract."""
    clip = sort(source)
    mono, rate = (to_mono(clip.data), clip.rate) if isinstance(clip, Samples) else decode(clip)
    name = str(clip) if isinstance(clip, Path) else CLIP
    bad = np.flatnonzero(~np.isfinite(mono))
    if len(bad):
        raise AudioError(f"{name}: expected finite samples, got {mono[bad[0]]} at {bad[0]}")
    samples = soxr_hq(mono, rate, RATE)
    seconds = len(samples) / RATE
    if not seconds > MIN_SECONDS:
        got = f"got {seconds:.3f} s ({len(samples)} samples at {RATE} Hz)"
        raise AudioError(f"{name}: must be longer than {MIN_SECONDS} s, {got}")
    return samples
