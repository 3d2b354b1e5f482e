"""Faster or slower speech at the same pitch: WSOLA (Verhelst and Roelands, "An overlap-add technique based on waveform similarity
(WSOLA) for high quality time-scale modification of speech", ICASSP 1993)."""

from __future__ import annotations

import numpy as np

WINDOW, HOP, SEARCH = 960, 480, 240
"""Samples at 24 kHz of a window (40 ms), between two of the output, and by which one of the input may lie earlier or later (10 ms)."""


def stretch(samples: np.ndarray, speed: float) -> np.ndarray:
    """float32 ``[n]`` → float32 ``[round(n / speed)]``; speed 1 gives the samples themselves."""
    if speed == 1.0 or not len(samples):
        return samples
    from scipy.signal import correlate  # not before it is wanted

    length = round(len(samples) / speed)
    count = -(-length // HOP) + 1
    padded = np.pad(samples, (WINDOW // 2 + SEARCH, 2 * WINDOW + SEARCH + int(HOP * speed) + 1)).astype(np.float64)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    out = np.zeros(count * HOP + WINDOW)
    previous = SEARCH  # where the last window began, in ``padded``
    for k in range(count):
        ideal = min(SEARCH + round(k * HOP * speed), len(padded) - WINDOW - SEARCH)
        at = SEARCH
        if k:
            # What would follow the last window naturally, and where something like it is near the ideal place.
            following = padded[previous + HOP : previous + HOP + WINDOW]
            around = padded[ideal - SEARCH : ideal + SEARCH + WINDOW]
            energy = np.concatenate([[0.0], np.cumsum(np.square(around))])
            norm = np.sqrt(np.maximum(energy[WINDOW:] - energy[:-WINDOW], 1e-12))
            at = int(np.argmax(correlate(around, following, "valid") / norm))
        previous = min(ideal - SEARCH + at, len(padded) - WINDOW - HOP)
        out[k * HOP : k * HOP + WINDOW] += window * padded[previous : previous + WINDOW]
    return np.ascontiguousarray(out[WINDOW // 2 : WINDOW // 2 + length], np.float32)
