"""Segments one behind the other: long silence at their edges cut, short fades, exact pauses between. Nothing overlaps.

``Edges`` works on chunks as they come, so that a stream is joined as the whole is: what it does depends on the samples alone.
"""

from __future__ import annotations

import numpy as np

from ..constants import SAMPLE_RATE

FRAME = SAMPLE_RATE // 100
"""Samples that are silent or not together, and of a fade: 10 ms."""
SILENT = 10 ** (-50 / 20)
"""Root mean square below which a frame is silent: -50 dB of full scale."""
LONGEST, KEPT = 30, 5
"""Frames of silence at an edge that are left as they are, and what longer ones become."""


class Edges:
    """Cuts and fades one segment's edges."""

    def __init__(self) -> None:
        self._rest = np.zeros(0, np.float32)  # less than a frame
        self._held = np.zeros(0, np.float32)  # silent frames, or the last loud one
        self._silent = 0  # frames at the end of what is held
        self._begun = self._faded = False

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """What of the segment is certain after these samples; the last 10 ms never are."""
        samples = np.concatenate([self._rest, samples])
        frames = len(samples) // FRAME
        self._rest = samples[frames * FRAME :]
        out = []
        for frame in samples[: frames * FRAME].reshape(frames, FRAME):
            if np.sqrt(np.mean(np.square(frame, dtype=np.float64))) < SILENT:
                self._silent += 1
                self._held = np.concatenate([self._held, frame])
                continue
            if not self._begun and self._silent > LONGEST:
                self._held = self._held[-KEPT * FRAME :]
            out.append(self._held)
            self._begun, self._silent, self._held = True, 0, frame
        return self._risen(np.concatenate([*out, np.zeros(0, np.float32)]))

    def finish(self) -> np.ndarray:
        """The rest of the segment."""
        held, kept = self._held, len(self._held) - (self._silent - KEPT) * FRAME
        last = held[:kept] if self._silent > LONGEST else np.concatenate([held, self._rest])
        last = self._risen(last)
        fade = min(FRAME, len(last))
        last[len(last) - fade :] *= _rise(fade)[::-1]
        return last

    def _risen(self, samples: np.ndarray) -> np.ndarray:
        """With the fade at the beginning, once there is something."""
        samples = np.array(samples, np.float32)
        if len(samples) and not self._faded:
            self._faded = True
            fade = min(FRAME, len(samples))
            samples[:fade] *= _rise(fade)
        return samples


def silence(seconds: float) -> np.ndarray:
    """Zeros, float32 ``[n]``."""
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def _rise(samples: int) -> np.ndarray:
    """Half a cosine from 0 towards 1."""
    return (0.5 - 0.5 * np.cos(np.pi * (np.arange(samples) + 0.5) / samples)).astype(np.float32)
