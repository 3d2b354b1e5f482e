"""Measures whether a random checkpoint keeps the signal alive in every stage of the official package.

usage: liveliness.py CHECKPOINT_DIR CLIP      prints the figures as JSON; exit code 1 when one is outside its range

A comparison of dead signals proves nothing: ``RANGES`` says what every figure has to stay within. Runs in the environment of
``tools/reference_env.sh``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python" / "chatterbox_turbo_rs" / "parity"))

from official.modules import Official, load_official

TEXT = "Well, this is a test [laugh] of the voice."

# Figure -> smallest and largest value that counts as alive.
RANGES: dict[str, tuple[float, float]] = {
    "voice_encoder.active": (0.2, 0.9),  # share of embedding entries above 0
    "s3tokenizer.levels_rms": (0.4, 0.9),  # of the 8 numbers before rounding
    "s3tokenizer.rarest_digit": (0.05, 1.0 / 3.0),  # share of the rarest of the digits 0, 1, 2
    "s3tokenizer.distinct": (0.1, 1.0),  # distinct tokens by tokens
    "speaker_encoder.rms": (0.1, 10.0),
    "t3.top_probability": (0.005, 0.5),  # mean over steps at temperature 0.8
    "t3.entropy": (2.0, 8.0),  # nats; log(6563) is 8.8
    "t3.distinct": (0.3, 1.0),  # distinct tokens by tokens, sampled with the default parameters
    "t3.largest_stop_probability": (0.0, 1e-3),
    "encoder.time_rms": (0.2, 10.0),  # deviation of mu over time
    "flow.time_rms": (0.3, 10.0),
    "flow.velocity_rms": (0.3, 20.0),
    "f0.voiced": (0.3, 0.99),  # share of frames above 10 Hz
    "f0.largest": (50.0, 600.0),
    "source.rms": (0.01, 1.0),
    "vocoder.rms": (1e-2, 0.6),
    "vocoder.clipped": (0.0, 0.01),  # share of samples at 0.99 or above
}


def rms(array: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))


def measure(official: Official, clip: str, steps: int = 60) -> dict[str, float]:
    """All figures of ``RANGES`` for one reference clip and one text."""
    rng = np.random.default_rng(17)
    found: dict[str, Any] = {}
    w24 = official.reference_loudness(official.reference_load(clip))
    w16, r16 = official.reference_resample(w24)
    embedding = official.voice_encoder_embedding(official.voice_encoder_mel(w16))
    found["voice_encoder.active"] = float(np.mean(embedding > 0))
    mel = official.s3tokenizer_mel(w16[:240000])[:1500]
    levels, prompt = official.s3tokenizer_levels(mel), official.s3tokenizer_tokens(mel)
    digits = np.rint(levels) + 1
    found["s3tokenizer.levels_rms"] = rms(levels)
    found["s3tokenizer.rarest_digit"] = float(min(np.mean(digits == digit) for digit in range(3)))
    found["s3tokenizer.distinct"] = len(set(prompt.tolist())) / len(prompt)
    xvector = official.speaker_encoder_xvector(official.speaker_encoder_fbank(r16))
    found["speaker_encoder.rms"] = rms(xvector)

    text = official.text_tokenize(official.text_normalize(TEXT))
    tokens = official.t3_tokens(embedding, prompt, text, rng.random(steps + 1), steps)
    found["t3.distinct"] = len(set(tokens.tolist())) / len(tokens)
    session = official.t3_decoder(embedding, prompt, text)
    logits = np.stack([session.prefill(), *(session.step(int(token)) for token in tokens)]).astype(np.float64) / 0.8
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    found["t3.top_probability"] = float(p.max(axis=1).mean())
    found["t3.entropy"] = float(-(p * np.log(np.maximum(p, 1e-300))).sum(axis=1).mean())
    found["t3.largest_stop_probability"] = float(p[:, official.config["t3"]["stop_token"]].max())

    prompt_mel = official.s3gen_prompt_mel(w24[:240000])
    prompt24 = official.s3tokenizer_tokens(official.s3tokenizer_mel(r16))[: len(prompt_mel) // 2]
    ids = np.concatenate([prompt24, tokens[tokens < 6561], [4299] * 3])
    mu = official.s3gen_encoder(ids)
    found["encoder.time_rms"] = rms(mu - mu.mean(axis=0))
    noise = rng.standard_normal((len(mu), 80), np.float32)
    out = official.s3gen_flow(mu, xvector, prompt_mel, noise)
    found["flow.time_rms"] = rms(out - out.mean(axis=0))
    velocity = out - noise[len(prompt_mel) :]
    found["flow.velocity_rms"] = rms(velocity - velocity.mean(axis=0))
    found["flow.mean"] = float(out.mean())
    f0 = official.s3gen_f0(out)
    found["f0.voiced"], found["f0.largest"], found["f0.median"] = float(np.mean(f0 > 10)), float(f0.max()), float(np.median(f0))
    phases = rng.uniform(-np.pi, np.pi, 9).astype(np.float32)
    samples, source = official.s3gen_vocoder_source(out, phases, rng.standard_normal((480 * len(out), 9), np.float32))
    found["source.rms"], found["vocoder.rms"] = rms(source), rms(samples)
    found["vocoder.clipped"] = float(np.mean(np.abs(samples) >= 0.99))
    found["vocoder.largest"] = float(np.abs(samples).max())
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def outside(figures: dict[str, float]) -> list[str]:
    """What is not alive, one line each."""
    return [
        f"{name}: expected {low:g} to {high:g}, found {figures[name]:g}"
        for name, (low, high) in RANGES.items()
        if not low <= figures[name] <= high
    ]


def main() -> int:
    figures = measure(load_official(sys.argv[1]), sys.argv[2])
    print(json.dumps(figures, indent=2))
    for line in outside(figures):
        print(line, file=sys.stderr)
    return 1 if outside(figures) else 0


if __name__ == "__main__":
    sys.exit(main())
