"""Writes the goldens of the reference stages: what the official package computes for the clips of reference_clips.py.

Run with the official environment (chatterbox-tts, librosa 0.11, soxr 1.1, torchaudio 2.11, pyloudnorm 0.2, numpy < 2):
    python tools/goldens/reference.py [speech.wav]
``speech.wav`` (more than 5.4 s of speech, for instance of espeak-ng) renews the MP3 and Ogg files that the golden carries;
without it those in the present golden are kept. Everything else is deterministic.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import librosa
import numpy as np
import pyloudnorm
import torch
import torchaudio
from chatterbox.tts_turbo import ChatterboxTurboTTS

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "tests" / "goldens"
sys.path.insert(0, str(ROOT / "tests" / "stages"))
import reference_clips as clips  # noqa: E402

PAIRS = [(r, 24_000) for r in (*clips.RATES, 37_800, 44_101) if r != 24_000] + [(24_000, 16_000), (24_000, 32_000)]


def load(speech: str | None) -> None:
    out: dict[str, np.ndarray] = {}
    for name, (_, _, rate, channels) in clips.FILES.items():
        samples, _ = librosa.load(io.BytesIO(clips.file(name)), sr=24_000)
        out[name] = clips.probe(samples)
        out[f"{name}.length"] = np.int64(len(samples))
        out[f"{name}.digest"] = np.array(clips.digest(clips.tones(rate, 5.4, channels)))
    if speech:
        x, _ = librosa.load(speech, sr=24_000)
        x = x[: round(5.4 * 24_000)]
        files = {"mp3": clips.encode(x, 24_000, "MP3", "MPEG_LAYER_III"), "ogg": clips.encode(x, 24_000, "OGG", "VORBIS")}
    else:
        old = np.load(GOLDENS / "reference_load.npz")
        files = {kind: old[f"{kind}.file"].tobytes() for kind in ("mp3", "ogg")}
    for kind, content in files.items():
        samples, _ = librosa.load(io.BytesIO(content), sr=24_000)
        out[kind] = clips.probe(samples)
        out[f"{kind}.length"] = np.int64(len(samples))
        out[f"{kind}.file"] = np.frombuffer(content, np.uint8)
    np.savez_compressed(GOLDENS / "reference_load.npz", **out)


def loudness() -> None:
    out: dict[str, np.ndarray] = {}
    quiet = clips.tones(24_000, 5.4) * np.float32(0.002)
    signals = {"tones": clips.tones(24_000, 5.4), "quiet": quiet, "sweep": clips.sweep(130_000), "noise": clips.noise(130_000)}
    for name, x in signals.items():
        out[f"{name}.lufs"] = np.float64(pyloudnorm.Meter(24_000).integrated_loudness(x))
        out[f"{name}.digest"] = np.array(clips.digest(x))
        out[name] = clips.probe(ChatterboxTurboTTS.norm_loudness(None, x, 24_000))
    broken = clips.noise(130_000)
    broken[50_000] = np.nan
    out["nan.lufs"] = np.float64(pyloudnorm.Meter(24_000).integrated_loudness(broken))
    lengths = np.array([9_600, 9_601, 10_799, 10_800, 10_801, 12_000, 13_199, 13_200, 13_201, 15_601, 99_999, 120_001, 129_599])
    out["lengths"] = lengths
    out["lengths.lufs"] = np.array([pyloudnorm.Meter(24_000).integrated_loudness(signals["tones"][:n]) for n in lengths])
    np.savez_compressed(GOLDENS / "reference_loudness.npz", **out)


def resample() -> None:
    out: dict[str, np.ndarray] = {}
    sinc = torchaudio.transforms.Resample(24_000, 16_000)
    signals = {"tones": clips.tones(24_000, 10.5), "sweep": clips.sweep(24_002), "noise": clips.noise(24_001)}
    signals |= {"impulses": clips.impulses(3_000), "one": np.array([0.5], np.float32)}
    for name, x in signals.items():
        w16 = librosa.resample(x, orig_sr=24_000, target_sr=16_000)
        r16 = sinc(torch.from_numpy(x[:240_000])[None])[0].numpy()
        out[f"{name}.digest"] = np.array(clips.digest(x))
        for key, y in {"w16": w16, "r16": r16}.items():
            out[f"{name}.{key}"] = clips.probe(y, 41)
            out[f"{name}.{key}.length"] = np.int64(len(y))
    np.savez_compressed(GOLDENS / "reference_resample.npz", **out)


def lengths(count: int) -> dict[str, list[list[int]]]:
    """``{"from-to": [[n, length that librosa returns], ...]}``."""
    rng = np.random.default_rng(11)
    table = {}
    for source, target in PAIRS:
        period = source // np.gcd(source, target)
        n = np.concatenate([np.arange(1, count // 5), period * rng.integers(1, 200_000 // period + 2, count // 3)])
        n = np.unique(np.concatenate([n, rng.integers(1, 300_000, count - len(n))])).tolist()
        silence = np.zeros(max(n), np.float32)
        table[f"{source}-{target}"] = [[k, len(librosa.resample(silence[:k], orig_sr=source, target_sr=target))] for k in n]
    return table


if __name__ == "__main__":
    load(sys.argv[1] if len(sys.argv) > 1 else None)
    loudness()
    resample()
    (GOLDENS / "reference_resample_lengths.json").write_text(json.dumps(lengths(250), separators=(",", ":")) + "\n")
    for path in sorted(GOLDENS.glob("reference_*")):
        print(path.name, path.stat().st_size)
