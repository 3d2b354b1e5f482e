"""Golden of ``speaker_encoder.fbank`` from the official package: ``extract_feature`` (torchaudio's Kaldi filter bank).

Run with the official environment: ``python tools/goldens/speaker_encoder_fbank.py`` writes
``tests/goldens/speaker_encoder_fbank.npz``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from chatterbox.models.s3gen.xvector import extract_feature
from clips import int16, save, speech

# Lengths of r16 for the clip lengths of the parity specification, then the borders of one frame.
LENGTHS = [80001, 86667, 96160, 133440, 151873, 160000, 400, 559, 560, 719, 720]


def stage(samples: np.ndarray) -> np.ndarray:
    return extract_feature([torch.from_numpy(samples)])[0][0].numpy()


def main() -> None:
    rng = np.random.default_rng(13)
    voiced = int16(speech(16000, 0.67, 3))
    clips = {
        "speech": voiced,
        "offset": int16(speech(16000, 0.31, 4) * 0.5 + 0.3),
        "noise_odd": int16(rng.uniform(-0.9, 0.9, 4001)),
        "speech_then_zeros": np.concatenate([voiced[3000:5000], np.zeros(1400, np.int16)]),
        "two_frames": voiced[3000:3560],
        "zeros": np.zeros(1000, np.int16),
    }
    save(Path("tests/goldens/speaker_encoder_fbank.npz"), clips, stage, LENGTHS)


if __name__ == "__main__":
    main()
