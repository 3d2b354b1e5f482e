"""Voice conversion: speech of one person in another's voice. It needs no T3: the tokens are those of the source.

``source ─ reference.load (16 kHz) ─ s3tokenizer.mel ─ s3tokenizer.tokens ─ s3gen.encoder ─ s3gen.flow ─ s3gen.vocoder ─ watermark``

A source of at most 20 s goes through whole, as in ``generate`` of ``src/chatterbox/vc.py`` of resemble-ai/chatterbox at commit
5de7a54: no loudness is changed, nothing is cropped, and T3's closing silence is not added. A longer one is cut at its quietest
places into pieces of 10 to 20 s (the last: 5 to 20 s), each with draws of its own. S3Gen silences the beginning of what it makes,
so that every piece but the first begins two tokens early; the end of these is faded into the piece before.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..audio.read import CLIP
from ..constants import ENCODER_RATE, HOP, SAMPLE_RATE
from ..errors import AudioError
from ..speech import Speech
from ..stages.s3tokenizer.mel import HOP as MEL_HOP
from ..voice import Voice
from . import draws
from .pipeline import Run

MIN_SECONDS = 0.1
"""A source must be longer than this. S3Tokenizer needs 201 samples (13 ms) and the vocoder two frames (40 ms), of which nothing
would be heard: the vocoder fades its first 40 ms in."""
LOUDEST = 1e15
"""Beyond this the power of a spectrum leaves float32."""
TOKEN = ENCODER_RATE // 25
"""Samples of a speech token at 16 kHz, 40 ms; at 24 kHz they are two frames of the vocoder."""
VOCODED = 2 * HOP
LONGEST = 500
"""Tokens of a piece, its overlap included: 20 s."""
SHORTEST = 125
"""Tokens of the last piece, at least: 5 s."""
OVERLAP = 2
"""Tokens of the piece before with which a piece begins."""
FADE = HOP
"""Samples at 24 kHz, the last of the overlap, in which one piece fades into the next: 20 ms."""
FRAME = ENCODER_RATE // 50
"""Samples of a frame whose energy is looked at, 20 ms: half a token."""
AROUND = 5
"""Frames on either side of a cut that count for how quiet it is: 0.2 s together are a pause, and no closure inside a word."""


def load(run: Run, source: Any) -> np.ndarray:
    """The source, float32 ``[n]`` at 16 kHz; anything that ``reference.load`` takes, longer than 0.1 s.

    Raises ``AudioError`` (also for digital silence), ``FileError``, ``ArgumentError``.
    """
    with _named():
        samples, _ = run.pipeline.clip(run, source, ENCODER_RATE, MIN_SECONDS)
        name = os.fsdecode(source) if isinstance(source, (str, os.PathLike)) else CLIP
        peak = float(np.abs(samples).max())
        if peak == 0.0:
            seconds = len(samples) / ENCODER_RATE
            raise AudioError(f"{name}: expected sound, got silence ({seconds:.2f} s in which every sample is 0)")
        if peak > LOUDEST:
            raise AudioError(f"{name}: expected samples with a full scale of 1, got {peak:g}")
    return samples


def convert(run: Run, samples: np.ndarray, voice: Voice, seed: int, watermark: bool) -> Speech:
    """``samples``, as ``load`` gives them, spoken by ``voice``; ``callback("pieces", done, pieces)`` is called after each."""
    pipeline = run.pipeline
    voice.check(pipeline.config, pipeline.fingerprint)
    starts = cuts(samples)
    ends = [*starts[1:], token_count(samples)]
    sounds: list[np.ndarray] = []
    tokens: list[np.ndarray] = []
    for index, (start, end) in enumerate(zip(starts, ends)):
        lead = OVERLAP if index else 0
        last = index == len(starts) - 1
        piece = samples[(start - lead) * TOKEN : None if last else end * TOKEN]
        ids = run("s3tokenizer.tokens", run("s3tokenizer.mel", piece))
        own = draws.derived(seed, index)
        sound = pipeline.vocode(run, pipeline.mel(run, voice, ids, own), own)
        if watermark:
            sound = run("watermark", sound)
        if index:
            sound = _faded(sounds[-1], sound[-(end - start) * VOCODED - FADE :])
        sounds.append(sound)
        tokens.append(ids[lead:])
        if run.callback is not None:
            run.callback("pieces", index + 1, len(starts))
    return Speech(np.concatenate(sounds), SAMPLE_RATE, seed, run.plan, run.timings, np.concatenate(tokens), watermark)


def token_count(samples: np.ndarray) -> int:
    """Tokens that S3Tokenizer makes of ``samples`` at 16 kHz: one for each four frames of 10 ms, or a part of four."""
    return -(-(len(samples) // MEL_HOP) // 4)


def cuts(samples: np.ndarray) -> list[int]:
    """Where the pieces of ``samples`` (16 kHz) begin, in tokens: 0, and the quietest places between.

    A cut is at the boundary of two tokens whose surroundings (``AROUND``) have the least energy; of equals at the latest.
    """
    total, starts = token_count(samples), [0]
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    energy = np.einsum("ij,ij->i", frames, frames, dtype=np.float64) if total > LONGEST else np.zeros(0)
    while total - starts[-1] > (room := LONGEST - (OVERLAP if starts[-1] else 0)):
        first = starts[-1] + LONGEST // 2
        last = min(starts[-1] + room, total - SHORTEST)
        near = energy[2 * first - AROUND : 2 * last + AROUND]
        sums = np.lib.stride_tricks.sliding_window_view(near, 2 * AROUND)[::2].sum(axis=1)  # one for each of first ... last
        starts.append(last - int(np.argmin(sums[::-1])))
    return starts


def _faded(before: np.ndarray, sound: np.ndarray) -> np.ndarray:
    """Fades the first ``FADE`` samples of ``sound`` into the last of ``before``, in place; the rest of ``sound``."""
    rise = (0.5 - 0.5 * np.cos(np.pi * (np.arange(FADE) + 0.5) / FADE)).astype(np.float32)
    before[-FADE:] += rise * (sound[:FADE] - before[-FADE:])
    return sound[FADE:]


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """A source that has no path is called by its argument's name."""
    try:
        yield
    except AudioError as error:
        if not str(error).startswith(CLIP):
            raise
        raise type(error)(f"source{str(error).removeprefix(CLIP)}") from error
