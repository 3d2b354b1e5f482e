"""The vocoder and the watermark in windows: sound as soon as it is made, and the samples of one piece.

Both stages are local: a sample depends on a bounded stretch around it, but for four things.

- **The vocoder's excitation** is a running sum over all frames before. It costs a hundredth of the stage, so ``f0`` and ``source`` are
  computed once, over the whole mel; ``samples_from_source`` is what is done in windows, each with the frames around it that
  ``context`` counts from the configuration's kernels and dilations. What is wrong at the ends of a window is cut off with them.
- **The fade-in** is applied where it belongs, at the start of the sound.
- **The ends of a sound** (zero rows, reflected samples) are those of a window too, where it begins or ends with the sound.
- **The watermark leaves quiet frames alone**: those whose level is at most a twentieth of the loudest frame's, which may be the last one.
  See ``Marker``.

On the CPU, Rust gives the same bits: no product depends on how many rows there are beside a row. PyTorch chooses its algorithm
by the length, and resemble-perth's resampler works in blocks from wherever a window begins: there samples differ by less than 1e-6
(by 2e-4 beside digital silence, which no vocoder delivers: the mark there depends on noise of -150 dB).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ..constants import HOP
from ..errors import ArgumentError
from ..stages import watermark
from ..stages.s3gen import vocoder
from .observer import Callback

FIRST = 24
"""Mel frames of the first window: half a second, of which the watermark holds back 0.23 s."""
LARGEST = 200
"""Each window has twice the frames of the one before, so that what was made lasts until the next is, up to these: 4 s."""


def spans(frames: int) -> Iterator[tuple[int, int]]:
    """Start and end of every window; the last one takes what would leave less than a window of its size. A sound of less than three
    first windows is one: the frames around them would be half as many again."""
    start, size = 0, FIRST if frames >= 3 * FIRST else max(frames, 1)
    while start < frames:
        end = start + size if frames - start >= 2 * size else frames
        yield start, end
        start, size = end, min(2 * size, LARGEST)


def context(config: Mapping[str, Any]) -> tuple[int, int]:
    """Mel frames before and after a frame that its 480 samples depend on, given f0 and excitation. ``config`` is ``s3gen.vocoder``.

    Goes back from the samples, layer by layer, with the first and the last row that is needed, frame 0 being the one.
    """
    rates, size, hop = config["upsample_rates"], config["istft_size"], config["istft_hop"]
    dilations, samples = config["resblock_dilations"], math.prod(rates) * hop

    def block(low: int, high: int, kernel: int) -> tuple[int, int]:  # of pairs of a dilated and a plain convolution
        reach = sum((kernel - 1) // 2 * (dilation + 1) for dilation in dilations)
        return low - reach, high + reach

    edge = vocoder.KERNEL // 2
    # the inverse STFT, whose frame c is the samples around c * hop, and the last convolution
    low, high = -((size // 2 - 1) // hop) - edge, (samples - 1 + size // 2) // hop + edge
    first, last = 0, samples - 1  # of the excitation
    for level in reversed(range(len(rates))):
        rate, kernel, stride = rates[level], config["upsample_kernels"][level], math.prod(rates[level + 1 :])
        low, high = block(low, high, max(config["resblock_kernels"]))
        begin, end = block(low, high, config["source_resblock_kernels"][level])
        taps = 1 if stride == 1 else 2 * stride
        begin, end = begin * stride - stride // 2, end * stride - stride // 2 + taps - 1
        first, last = min(first, begin * hop - size // 2), max(last, end * hop + size // 2 - 1)
        if level == len(rates) - 1:
            low, high = low - 1, high - 1  # one row was put in front
        padding = (kernel - rate) // 2
        low, high = -((kernel - 1 - padding - low) // rate), (high + padding) // rate
    low, high = low - edge, high + edge
    return max(-low, -(first // samples)), max(high, last // samples)


def vocoder_windows(
    stage: Any,
    mel: np.ndarray,
    phases: np.ndarray,
    noise: np.ndarray,
    config: Mapping[str, Any],
    callback: Callback | None = None,
) -> Iterator[np.ndarray]:
    """Parts whose concatenation is ``stage(mel, phases, noise)``; arguments and errors are those of ``s3gen.vocoder``.

    ``config`` is the section ``s3gen.vocoder``. ``callback("s3gen.vocoder", frames done, frames)`` may stop the work.
    """
    windows = list(spans(len(mel)))
    if len(windows) < 2:
        yield stage(mel, phases, noise, callback)
        return
    before, after = context(config)
    source = stage.source(stage.f0(mel), phases, noise)
    for start, end in windows:

        def report(key: str, done: int, total: int, start: int = start, end: int = end) -> None:
            if callback is not None:
                callback(key, start + (end - start) * done // total, len(mel))

        low, high = max(start - before, 0), min(end + after, len(mel))
        part = stage.samples_from_source(mel[low:high], source[HOP * low : HOP * high], report)
        part = part[HOP * (start - low) : HOP * (end - low)]
        fade = stage.fade[HOP * start :][: len(part)]
        part[: len(fade)] *= fade
        yield part


def watermark_windows(
    stage: Any, samples: Iterable[np.ndarray], peak: float, callback: Callback | None = None
) -> Iterator[np.ndarray]:
    """Parts whose concatenation is ``stage`` of all ``samples`` together, float32 ``[n]`` at 24 kHz, each as soon as it is decided.

    ``peak``: no sample is larger. Raises ``ArgumentError`` where one is, and what ``stage`` raises.
    """
    marker = Marker(stage, peak, callback)
    for part in samples:
        marked = marker.feed(part)
        if len(marked):
            yield marked
    marked = marker.end()
    if len(marked):
        yield marked


class Marker:
    """Marks a sound that arrives in parts.

    A window is cut at multiples of 240 samples, where three samples of 24 kHz meet four of 32 kHz and frames of the spectrogram begin,
    with ``watermark.CONTEXT`` samples around what is taken of it.

    Which frames are marked depends on the loudest one. Of it this is known at any time:

    - It is at least as loud as the loudest frame so far. A frame that is too quiet beside that one stays so: *not marked*, for sure.
    - It is at most as loud as a frame can be (``ceiling``). A frame that is loud enough beside that is so beside any other:
      *marked*, for sure.

    Between the two a frame is in doubt, and the samples that depend on it wait until a louder frame or the end of the sound
    decides. Its average bin then lies between -180 dB and -169 dB. A vocoder's sound never does: rounding to float32 alone is louder.
    Digital silence (level 0) is decided at once.
    """

    def __init__(self, stage: Any, peak: float, callback: Callback | None = None) -> None:
        self.stage, self.peak, self.callback = stage, peak, callback
        self.surely_marked = watermark.QUIET * ceiling(peak)
        self.loudest = 0.0
        self.doubtful: list[tuple[int, float]] = []
        self.frames = 0  # whose level is known
        self.start = 0  # of the samples that are kept
        self.kept = np.zeros(0, np.float32)
        self.done = 0  # samples that were marked

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """The samples that are decided by these and those before."""
        if len(samples) and not np.abs(samples).max() <= np.float32(self.peak):
            raise ArgumentError(f"samples: expected none beyond {self.peak}, got {samples[np.argmax(np.abs(samples))]}")
        self.kept = np.concatenate([self.kept, samples])
        whole = (self.start + len(self.kept)) // watermark.BLOCK * watermark.BLOCK
        self._measure(whole, (whole - _AROUND) // watermark.BLOCK)
        limit = whole - watermark.CONTEXT
        if self.doubtful:
            limit = min(limit, self.doubtful[0][0] * watermark.BLOCK - _AROUND)
        return self._mark(limit, limit + watermark.CONTEXT)

    def end(self) -> np.ndarray:
        """The others: there are no more."""
        whole = self.start + len(self.kept)
        if not whole:
            return self.kept
        self._measure(whole, -(-whole // watermark.BLOCK))
        return self._mark(whole, whole)

    def _measure(self, end: int, last: int) -> None:
        """Takes the levels of the frames up to ``last`` from the samples up to ``end``."""
        if last < self.frames:
            return
        begin = max(self.frames * watermark.BLOCK - _AROUND, 0)
        skipped = self.frames - begin // watermark.BLOCK
        levels = self.stage.levels(self.kept[begin - self.start : end - self.start])[skipped:][: last + 1 - self.frames]
        self.loudest = max(self.loudest, float(levels.max()))
        self.doubtful += [(self.frames + i, level) for i, level in enumerate(levels.tolist()) if level <= self.surely_marked]
        self.doubtful = [(frame, level) for frame, level in self.doubtful if level > watermark.QUIET * self.loudest]
        self.frames = last + 1

    def _mark(self, limit: int, end: int) -> np.ndarray:
        """Samples ``done`` to ``limit``, out of those up to ``end``."""
        if limit <= self.done:
            return np.zeros(0, np.float32)
        begin = max(self.done - watermark.CONTEXT, 0)
        marked = self.stage(self.kept[begin - self.start : end - self.start], self.callback, self.loudest)
        marked = marked[self.done - begin : limit - begin]
        self.done = limit
        keep = max(limit - watermark.CONTEXT, 0)
        self.start, self.kept = keep, self.kept[keep - self.start :]
        return marked


_AROUND = -(-3 * (watermark.FRAME // 2 + watermark.FILTER) // 4 // watermark.BLOCK) * watermark.BLOCK
"""Samples, in whole blocks, around sample 240 ``t`` that the level of frame ``t`` depends on, and that depend on its change."""
_GAIN = 4.0
"""More than a resampler makes of a peak: the largest sum of a phase's absolute coefficients is 2.8."""


def ceiling(peak: float) -> float:
    """A level that no frame of samples within ± ``peak`` exceeds.

    Samples at 32 kHz are within 4 ``peak``. By Parseval the energy of the 2048 bins of a windowed frame is 2048 times that of its
    samples, at most 2048 · (4 ``peak``)² · 768, the squares of a Hann window of 2048 summing to 768; the 1025 bins have no more. A level is
    below the concave function 10 log10(power + 1e-18) of the power, so that the sum is largest where all bins have the same.
    """
    bins = watermark.FRAME // 2 + 1
    power = watermark.FRAME * (_GAIN * peak) ** 2 * (3 / 8 * watermark.FRAME) / bins
    return bins * (10 * math.log10(power + 1e-18) + 180) / 195
