"""`reference.load` with soundfile and soxr: any clip to float32 ``[L]``, mono, at one rate and longer than it has to be.

The same libraries in the same order as ``librosa.load(path, sr=rate)``, which upstream calls in ``tts_turbo.py`` and ``vc.py``
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


def create(resources: Any) -> Callable[..., np.ndarray]:
    """A pure function: nothing is taken from ``resources``."""
    return load


def load(source: Any, rate: int = RATE, longer_than: float = MIN_SECONDS) -> np.ndarray:
    """See the contract."""
    clip = sort(source)
    mono, own = (to_mono(clip.data), clip.rate) if isinstance(clip, Samples) else decode(clip)
    name = str(clip) if isinstance(clip, Path) else CLIP
    bad = np.flatnonzero(~np.isfinite(mono))
    if len(bad):
        raise AudioError(f"{name}: expected finite samples, got {mono[bad[0]]} at {bad[0]}")
    samples = soxr_hq(mono, own, rate)
    seconds = len(samples) / rate
    if not seconds > longer_than:
        got = f"got {seconds:.3f} s ({len(samples)} samples at {rate} Hz)"
        raise AudioError(f"{name}: must be longer than {longer_than:.1f} s, {got}")
    return samples
