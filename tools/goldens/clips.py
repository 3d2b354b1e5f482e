"""Short clips for the goldens of the mel stages: speech-like and hard ones, int16, from a seed.

A golden stores its clips, so that a test never depends on a random generator.
"""

from __future__ import annotations

import numpy as np


def speech(rate: int, seconds: float, seed: int) -> np.ndarray:
    """A voice-like clip: pulses of a gliding pitch through moving formants, syllables, pauses and breath noise; float64."""
    rng = np.random.default_rng(seed)
    n = int(rate * seconds)
    t = np.arange(n) / rate
    pitch = 120 + 30 * np.sin(2 * np.pi * 1.7 * t + rng.uniform(0, 6)) + 10 * t
    phase = np.cumsum(pitch) / rate
    voice = np.zeros(n)
    for harmonic in range(1, int(0.45 * rate / 160)):
        f = harmonic * pitch
        formants = sum(
            gain / (1 + ((f - centre * (1 + 0.2 * np.sin(2 * np.pi * speed * t))) / width) ** 2)
            for centre, width, gain, speed in (
                (600, 90, 1.0, 2.1),
                (1500, 130, 0.5, 1.3),
                (2700, 200, 0.25, 0.9),
                (5200, 900, 0.05, 0.4),
            )
        )
        voice += formants * np.sin(2 * np.pi * harmonic * phase)
    syllables = np.clip(np.sin(2 * np.pi * 3.1 * t + rng.uniform(0, 6)) + 0.5, 0, None)
    breath = rng.standard_normal(n) * (0.003 + 0.1 * np.clip(np.sin(2 * np.pi * 2.3 * t) - 0.7, 0, None))
    mixed = voice * syllables + breath
    return 0.4 * mixed / np.abs(mixed).max()


def int16(clip: np.ndarray) -> np.ndarray:
    """Rounded to int16; a test divides by 32768."""
    return np.round(np.clip(clip, -1, 1) * 32767).astype(np.int16)


def as_float(clip: np.ndarray) -> np.ndarray:
    """What a test makes of a stored clip."""
    return clip.astype(np.float32) / np.float32(32768) if clip.dtype == np.int16 else clip


def counts(stage, lengths: list[int]) -> np.ndarray:
    """Frames that the official ``stage`` makes of clips of these lengths (steady noise, nothing to trim)."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, max(lengths)).astype(np.float32)
    return np.array([[n, len(stage(noise[:n]))] for n in lengths], np.int64)


def save(path, clips: dict[str, np.ndarray], stage, lengths: list[int], **extra: np.ndarray) -> None:
    """Writes clips, what the official ``stage`` makes of them, and its frame counts."""
    import librosa
    import torch
    import torchaudio

    arrays = {f"{name}.clip": clip for name, clip in clips.items()}
    arrays |= {f"{name}.frames": np.ascontiguousarray(stage(as_float(clip)), np.float32) for name, clip in clips.items()}
    versions = (
        f"chatterbox 5de7a54, torch {torch.__version__}, torchaudio {torchaudio.__version__}, librosa {librosa.__version__}"
    )
    np.savez_compressed(path, **arrays, **extra, counts=counts(stage, lengths), source=np.array(versions))
    print(f"{path}: {path.stat().st_size} bytes")
