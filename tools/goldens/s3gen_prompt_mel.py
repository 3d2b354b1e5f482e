"""Golden of ``s3gen.prompt_mel`` from the official package: ``mel_spectrogram`` of S3Gen.

Run with the official environment: ``python tools/goldens/s3gen_prompt_mel.py`` writes ``tests/goldens/s3gen_prompt_mel.npz``.

A clip without anything near 8 kHz (one that was upsampled from 16 kHz) leaves the top bands to the rounding of the float32
transform: there the official code differs from itself in float64 by up to 1e-3. For such a clip the golden holds what the
official function computes in float64 (the same float32 window and filters), under ``band_limited``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from chatterbox.models.s3gen.utils import mel
from clips import int16, save, speech

sys.path.append(str(Path(__file__).resolve().parents[2] / "python" / "chatterbox_turbo_rs" / "parity"))
from official.float64 import s3gen_prompt_mel as stage_float64

# First 10 s of the clip lengths of the parity specification, then the borders of one hop.
LENGTHS = [120001, 130000, 144240, 200159, 227809, 240000, 721, 959, 960, 1439, 1440]


def stage(samples: np.ndarray) -> np.ndarray:
    return mel.mel_spectrogram(torch.from_numpy(samples)[None])[0].numpy().T


def main() -> None:
    rng = np.random.default_rng(14)
    voiced = int16(speech(24000, 0.55, 5))
    spectrum = np.fft.rfft(speech(24000, 0.25, 6) * np.hanning(6000))
    spectrum[1700:] = 0  # nothing above 6.8 kHz but noise at -100 dB
    band_limited = (2 * np.fft.irfft(spectrum) + 1e-5 * rng.standard_normal(6000)).astype(np.float32)
    clips = {
        "speech": voiced,
        "noise_odd": int16(rng.uniform(-0.9, 0.9, 4801)),
        "speech_then_zeros": np.concatenate([voiced[5000:7000], np.zeros(3400, np.int16)]),
        "shortest": voiced[5000:5721],
        "zeros": np.zeros(2000, np.int16),
    }
    extra = {"band_limited": band_limited, "band_limited.float64": stage_float64(band_limited)}
    noise = np.abs(stage(band_limited) - extra["band_limited.float64"]).max()
    print(f"band_limited: float32 against float64 of the official function: {noise:.1e}")
    save(Path("tests/goldens/s3gen_prompt_mel.npz"), clips, stage, LENGTHS, **extra)


if __name__ == "__main__":
    main()
