"""The length table of the parity specification: how many frames and tokens each stage makes of a reference clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mel_suite import Golden, load
from test_s3tokenizer_mel import resources

# Samples at 24 kHz, w16, prompt mel frames M, S3Gen's prompt tokens K, T3's prompt tokens P, voice encoder frames, fbank frames.
TABLE = [
    (120001, 80001, 250, 125, 125, 501, 498),
    (130000, 86667, 270, 135, 136, 542, 540),
    (144240, 96160, 300, 150, 151, 602, 599),
    (200159, 133440, 416, 208, 209, 835, 832),
    (227809, 151873, 474, 237, 238, 950, 947),
    (240000, 160000, 500, 250, 250, 1001, 998),
    (300000, 200000, 500, 250, 313, 1251, 998),
    (360000, 240000, 500, 250, 375, 1501, 998),
    (480000, 320000, 500, 250, 375, 2001, 998),
    (1440000, 960000, 500, 250, 375, 6001, 998),
]


def tokens(frames: np.ndarray) -> int:
    return -(-len(frames) // 4)


@pytest.mark.parametrize("implementation", ["python", "rust"])
@pytest.mark.parametrize("row", TABLE, ids=lambda row: str(row[0]))
def test_length_table(implementation: str, row: tuple[int, ...], tmp_path: Path) -> None:
    arrays = Golden("s3tokenizer_mel").arrays
    checkpoint = resources(tmp_path, window=arrays["window"], _mel_filters=arrays["filters"])
    keys = ("s3gen.prompt_mel", "s3tokenizer.mel", "voice_encoder.mel", "speaker_encoder.fbank")
    prompt_mel, s3_mel, ve_mel, fbank = (load(key, implementation, checkpoint) for key in keys)
    samples, w16_length = row[:2]
    noise = np.random.default_rng(6).uniform(-0.5, 0.5, samples).astype(np.float32)
    r24, w16 = noise[:240000], noise[:w16_length]
    r16 = noise[: -(-2 * len(r24) // 3)]
    frames = len(prompt_mel(r24))
    prompt_tokens = min(tokens(s3_mel(r16)), frames // 2)
    t3_tokens = min(tokens(s3_mel(w16[:240000])), 375)
    found = (samples, w16_length, frames, prompt_tokens, t3_tokens, len(ve_mel(w16)), len(fbank(r16)))
    assert found == row
