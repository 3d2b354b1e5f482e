"""Deterministic clips and files for the reference stages; the golden scripts and the tests make the same ones.

Every signal is rounded to 16 bits, so that the last bit of a platform's sine does not matter. ``digest`` shows that it holds.
"""

from __future__ import annotations

import hashlib
import io

import numpy as np
import soundfile

EDGE = 96
"""Samples at either end that a golden keeps in full."""

RATES = (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000)

# name -> (format, subtype, rate, channels)
FILES = {f"wav_{rate}": ("WAV", "PCM_16", rate, 1) for rate in RATES}
FILES |= {f"wav_{s.lower()}": ("WAV", s, 24_000, 1) for s in ("PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")}
FILES |= {
    "wavex_24_stereo": ("WAVEX", "PCM_24", 24_000, 2),
    "wavex_6_channels": ("WAVEX", "PCM_16", 24_000, 6),
    "aiff": ("AIFF", "PCM_16", 24_000, 2),
    "flac": ("FLAC", "PCM_24", 24_000, 2),
    "flac_44100": ("FLAC", "PCM_16", 44_100, 2),
}


def quantise(x: np.ndarray) -> np.ndarray:
    return (np.round(np.clip(x, -1, 1) * 32_767) / 32_768).astype(np.float32)


def tones(rate: int, seconds: float, channels: int = 1) -> np.ndarray:
    """Harmonics of a gliding pitch in bursts, with pauses and a little noise: ``[n]`` or ``[n, channels]``."""
    n = round(rate * seconds)
    t = np.arange(n) / rate
    phase = 2 * np.pi * (110 * t + 8 * np.sin(2 * np.pi * 0.7 * t))
    voice = sum(np.sin(k * phase) / k for k in range(1, 24) if k * 170 < 0.42 * rate)
    burst = np.clip(np.sin(2 * np.pi * 1.3 * t) * 4, 0, 1)
    noise = np.random.default_rng(3).integers(-(2**20), 2**20, n) / 2**20
    mono = 0.25 * voice * burst + 0.003 * noise
    if channels == 1:
        return quantise(mono)
    return quantise(np.stack([np.roll(mono, 37 * c) * (1 - 0.1 * c) for c in range(channels)], axis=1))


def sweep(n: int) -> np.ndarray:
    t = np.arange(n) / 24_000
    return quantise(0.5 * np.sin(2 * np.pi * (20 * t + 11_900 / 2 / t[-1] * t * t)))


def noise(n: int) -> np.ndarray:
    return quantise(np.random.default_rng(5).integers(-(2**20), 2**20, n) / 2**21)


def impulses(n: int) -> np.ndarray:
    x = np.zeros(n, np.float32)
    x[[0, n // 3, n // 2 + 1, n - 1]] = 0.9
    return x


def encode(samples: np.ndarray, rate: int, kind: str = "WAV", subtype: str = "PCM_16") -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=kind, subtype=subtype)
    return out.getvalue()


def file(name: str) -> bytes:
    kind, subtype, rate, channels = FILES[name]
    return encode(tones(rate, 5.4, channels), rate, kind, subtype)


def digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


def probe(x: np.ndarray, step: int = 503) -> np.ndarray:
    """What a golden keeps of a long signal: its first and last samples, and every ``step``-th between."""
    return np.concatenate([x[:EDGE], x[step // 2 :: step], x[-EDGE:]]).astype(np.float32)
