"""Writes tests/goldens/watermark.npz with resemble-perth 1.0.1 itself: speech, its marked copy, and what the detector says.

usage: python tools/goldens/watermark.py      (in an environment as tools/reference_env.sh builds it; needs flite 2.2)
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import librosa
import numpy as np
import perth
import soundfile
import torch

GOLDENS = Path(__file__).parents[2] / "tests" / "goldens"
TEXT = "The quick brown fox jumps over the lazy dog."
RATES = (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


def speech() -> np.ndarray:
    """37 vocoder frames of a spoken sentence at 24 kHz, as int16."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        subprocess.run(["flite", "-voice", "slt", "-t", TEXT, "-o", str(path)], check=True)
        samples, rate = soundfile.read(path, dtype="float32")
    samples = librosa.resample(samples, orig_sr=rate, target_sr=24_000)
    return np.round(samples[6_000 : 6_000 + 480 * 37] * 32767).astype(np.int16)


def main() -> None:
    torch.set_num_threads(1)
    official = perth.PerthImplicitWatermarker()
    clip = speech()
    samples = clip.astype(np.float32) / 32768
    marked = official.apply_watermark(samples, sample_rate=24_000)
    assert marked.shape == samples.shape
    padded = np.pad(samples[:1001], (0, 199))  # what a clip of 1001 samples is marked as

    def confidences(clip: np.ndarray) -> list[float]:
        # one clip claimed to be of every rate: each goes through another resampler
        return [official.get_watermark(clip, rate, round=False).item() for rate in RATES]

    np.savez_compressed(
        GOLDENS / "watermark.npz",
        samples=clip,
        marked=marked,
        marked_1001=official.apply_watermark(padded, sample_rate=24_000)[:1001],
        rates=np.array(RATES),
        confidence_samples=np.array(confidences(samples)),
        confidence_marked=np.array(confidences(marked)),
    )


if __name__ == "__main__":
    main()
