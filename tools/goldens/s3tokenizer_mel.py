"""Golden of ``s3tokenizer.mel`` from the official package: ``S3Tokenizer.log_mel_spectrogram``, window and filters given.

Run with the official environment: ``python tools/goldens/s3tokenizer_mel.py`` writes ``tests/goldens/s3tokenizer_mel.npz``.
The method is called without the network, which it does not touch.
"""

from __future__ import annotations

import types
from pathlib import Path

import librosa
import numpy as np
import torch
from chatterbox.models.s3tokenizer.s3tokenizer import S3Tokenizer
from clips import as_float, int16, save, speech

# Lengths of w16[:240000] and of r16 for the clip lengths of the parity specification, then the borders of one hop.
LENGTHS = [80001, 86667, 96160, 133440, 151873, 160000, 200000, 240000, 201, 319, 320, 479, 480]


def tokenizer(window: torch.Tensor, filters: torch.Tensor) -> types.SimpleNamespace:
    return types.SimpleNamespace(device="cpu", n_fft=400, window=window, _mel_filters=filters)


def main() -> None:
    rng = np.random.default_rng(12)
    window = torch.hann_window(400)
    filters = torch.FloatTensor(librosa.filters.mel(sr=16000, n_fft=400, n_mels=128))
    # Tensors that only a stage which really reads them can follow: every weight counts, the window is not symmetric.
    other_filters = (1 + np.sin(np.add.outer(0.37 * np.arange(128), 0.11 * np.arange(201)))).astype(np.float16)
    other_window = (np.hanning(402)[1:-1] * np.linspace(0.5, 1.0, 400)).astype(np.float32)

    def stage(samples: np.ndarray) -> np.ndarray:
        return S3Tokenizer.log_mel_spectrogram(tokenizer(window, filters), torch.from_numpy(samples)).numpy().T

    voiced = int16(speech(16000, 0.53, 2))
    clips = {
        "speech": voiced,
        "loud_then_silent": np.concatenate([int16(rng.uniform(-1, 1, 1000)), np.zeros(1400, np.int16)]),
        "noise_odd": int16(rng.uniform(-0.9, 0.9, 4001)),
        "shortest": voiced[3000:3201],
        "zeros": np.zeros(1000, np.int16),
    }
    other = tokenizer(torch.from_numpy(other_window), torch.from_numpy(other_filters).float())
    expected = S3Tokenizer.log_mel_spectrogram(other, torch.from_numpy(as_float(voiced[:4000]))).numpy().T
    extra = {
        "window": window.numpy(),
        "filters": filters.numpy(),
        "other.window": other_window,
        "other.filters": other_filters,
        "other.expected": expected,
    }
    save(Path("tests/goldens/s3tokenizer_mel.npz"), clips, stage, LENGTHS, **extra)


if __name__ == "__main__":
    main()
