"""Golden of ``voice_encoder.mel`` from the official package: ``librosa.effects.trim`` and ``melspectrogram``.

Run with the official environment: ``python tools/goldens/voice_encoder_mel.py`` writes ``tests/goldens/voice_encoder_mel.npz``.
"""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
from chatterbox.models.voice_encoder.config import VoiceEncConfig
from chatterbox.models.voice_encoder.melspec import melspectrogram
from clips import int16, save, speech

# Lengths of w16 for the clip lengths of the parity specification, then the borders of one hop.
LENGTHS = [80001, 86667, 96160, 133440, 151873, 160000, 200000, 240000, 320000, 960000, 159, 160, 319, 320, 201, 200, 1]


def stage(samples: np.ndarray) -> np.ndarray:
    return melspectrogram(librosa.effects.trim(samples, top_db=20)[0], VoiceEncConfig()).T


def main() -> None:
    rng = np.random.default_rng(11)
    voiced = int16(speech(16000, 0.61, 1))
    quiet = int16(rng.standard_normal(5000) * 1e-3)
    clips = {
        "speech": voiced,
        "silence_around": np.concatenate([quiet, voiced, quiet[:3333]]),
        "zeros_around": np.concatenate([np.zeros(4096, np.int16), voiced[:6001], np.zeros(2500, np.int16)]),
        "end_only": np.concatenate([np.zeros(4000, np.int16), voiced[2000:2100]]),
        "noise_odd": int16(rng.uniform(-0.9, 0.9, 7777)),
        "shorter_than_the_mirror": voiced[2000:2150],
        "two_samples": voiced[2000:2002],
        "one_sample": voiced[2000:2001],
        "zeros": np.zeros(1000, np.int16),
    }
    save(Path("tests/goldens/voice_encoder_mel.npz"), clips, stage, LENGTHS)


if __name__ == "__main__":
    main()
