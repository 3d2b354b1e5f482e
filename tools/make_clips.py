"""Makes the reference clips of ``tests/data/clips``: synthetic speech from flite and espeak-ng (Debian packages).

usage: make_clips.py DIR      (needs both programs, NumPy, soundfile and soxr; the clips are committed, so this runs once)

short.flac   5.01 s, 24 kHz, mono: barely longer than the 5 s limit
stereo.flac  9.5 s, 44.1 kHz, stereo: resampled, two different channels, 475 prompt-mel frames (odd)
long.flac    17 s, 16 kHz, mono: over the 10 s and 15 s crops, silence before and after the speech
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr

SHORT = "The boy was there when the sun rose. A rod is used to catch pink salmon, and the source of the huge river is the clear spring."
STEREO = (
    "Kick the ball straight and follow through. Help the woman get back to her feet, a pot of tea helps to pass the evening. "
    "Smoky fires lack flame and heat. The soft cushion broke the man's fall."
)
LONG = (
    "The salt breeze came across from the sea. The girl at the booth sold fifty bonds! Was the small pup gnawing a hole in the sock? "
    "The fish twisted and turned on the bent hook. Press the pants and sew a button on the vest. The swan dive was far short of perfect; "
    "the beauty of the view stunned the young boy, and two blue fish swam in the tank."
)


def speak(command: list[str]) -> tuple[np.ndarray, int]:
    """Samples of a program that writes a WAV file named by its last argument."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "speech.wav"
        subprocess.run([*command, str(path)], check=True)
        return soundfile.read(path)


def at_rate(command: list[str], rate: int, seconds: float, peak: float) -> np.ndarray:
    """Speech of exactly ``seconds`` at ``rate``, scaled to ``peak``; the text has to be long enough."""
    samples, native = speak(command)
    samples = soxr.resample(samples, native, rate)
    count = round(seconds * rate)
    if len(samples) < count:
        raise ValueError(f"expected {count} samples of speech, found {len(samples)}")
    samples = samples[:count]
    return samples * (peak / np.abs(samples).max())


def main() -> None:
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(5)
    short = at_rate(["flite", "-voice", "slt", "-t", SHORT, "-o"], 24000, 5.01, 0.6)
    soundfile.write(directory / "short.flac", short, 24000, subtype="PCM_16")

    left = at_rate(["flite", "-voice", "rms", "-t", STEREO, "-o"], 44100, 9.5, 0.7)
    right = 0.6 * np.roll(left, 9) + 1e-3 * noise.standard_normal(len(left))
    soundfile.write(directory / "stereo.flac", np.stack([left, right], axis=1), 44100, subtype="PCM_16")

    speech = at_rate(["espeak-ng", "-v", "en-us+f3", "-s", "165", LONG, "-w"], 16000, 14.8, 0.5)
    long = np.concatenate([np.zeros(20000), speech, np.zeros(17 * 16000 - 20000 - len(speech))])
    soundfile.write(directory / "long.flac", long, 16000, subtype="PCM_16")


if __name__ == "__main__":
    main()
