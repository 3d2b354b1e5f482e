"""What the parties of a comparison are given: reference clips, texts with their parameters, conversions, and the draws of a seed.

``QUICK`` is for a minute on a small model, ``THOROUGH`` covers every rule of the reference at full size. All parties get the same
draws (``draws.py``): the official package by injection, ours by the seed itself. ``Case.stop`` names the step at which the
stop token is drawn: a temperature that makes all tokens alike, and a seed whose uniform at that step is in the last token's share.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..audio.read import read
from ..constants import ENCODER_RATE, HOP, SAMPLE_RATE
from ..engine import draws
from ..errors import AudioError
from ..stages.t3.sampler import SamplerParameters

CLIP = Path(__file__).parent / "clip.flac"
"""6 s of synthetic speech at 16 kHz (espeak-ng), the clip of the quick comparison."""
DEFAULTS = {"temperature": 0.8, "top_k": 1000, "top_p": 0.95, "repetition_penalty": 1.2}
ALIKE = {"temperature": 1e6, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
"""Parameters under which all 6563 tokens are equally likely."""
SINGLE_STAGE_RATES = {
    SAMPLE_RATE: (8000, 12000, 16000, 24000, 36000, 48000),
    ENCODER_RATE: (8000, 12000, 16000, 24000, 32000, 48000),
}
"""Rates that libsoxr turns into the rate of a voice's clip, or of a conversion's source, by a single filter."""
CONVERTED = 6.0
"""Seconds of a clip that is converted at full size. With 9.5 and 17 s the chain's spectra were 0.4 and 0.7 dB apart while mels agreed within
8e-7: the vocoder's phase is a sum over all samples before, and what is compared at that length is this sum."""
LONG = "The quick brown fox, number seven, [sigh] jumps over the lazy dog while eleven zebras argue about jazz. " * 70


@dataclass(frozen=True)
class Clip:
    """A reference clip: the file that every party reads."""

    name: str
    path: Path

    @functools.cached_property
    def rate(self) -> int:
        """The file's sample rate in Hz."""
        return self._length_and_rate[1]

    @functools.cached_property
    def seconds(self) -> float:
        """Length of the sound."""
        return self._length_and_rate[0] / self.rate

    def single_stage(self, to: int = SAMPLE_RATE) -> bool:
        """Whether soxr filters this file's rate in a single stage, so that its filter has a closed form (spec 3.9)."""
        return self.rate in SINGLE_STAGE_RATES[to]

    @functools.cached_property
    def _length_and_rate(self) -> tuple[int, int]:
        samples, rate = read(self.path)
        return len(samples), rate


@dataclass(frozen=True)
class Text:
    """A text, the clip that gives its voice, and the parameters of its utterance."""

    name: str
    text: str
    clip: str
    max_tokens: int = 30
    seed: int = 7
    parameters: dict[str, Any] = field(default_factory=dict)
    streamed: bool = False
    """Whether our parties also stream it, which has to give the samples of ``generate``."""

    def sampler(self) -> SamplerParameters:
        return SamplerParameters(**{**DEFAULTS, **self.parameters})


@dataclass(frozen=True)
class Conversion:
    """A clip that is converted in one piece, and the clip that gives the voice."""

    source: str
    clip: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.source} as {self.clip}"


@dataclass(frozen=True)
class Cases:
    """Clips, texts, sentences that only the text stages see, and conversions."""

    clips: Sequence[Clip]
    texts: Sequence[Text]
    sentences: Sequence[str]
    conversions: Sequence[Conversion] = ()

    def clip(self, name: str) -> Clip:
        """The clip of that name."""
        return next(clip for clip in self.clips if clip.name == name)


def seed_that_stops(step: int) -> int:
    """The smallest seed whose uniform at ``step`` lies in the share of the last of 6563 tokens, with a margin of half of it."""
    limit = 1.0 - 0.5 / 6563
    return next(seed for seed in range(1 << 24) if draws.uniforms(seed, draws.T3, step, 1)[0] >= limit)


SENTENCES = (
    "",
    " ",
    "\t\n",
    "hello",
    " hello",
    "hello  world\n\nfoo\tbar",
    "well… ok",
    "so …",
    "a  :  b",
    "Hi ,, x",
    "a ,…",
    "5:30 pm",
    "she said “hi.”",
    "‘tis",
    "n’t – it’s “fine”: ok…",
    "ßtart",
    "ŉx",
    "ǆabc",
    "ǰoy",
    "ﬁne",
    "ΐx",
    "ıstanbul",
    "ʰx",
    "ⅰ roman",
    "ა georgian",
    "[laugh] hi",
    "hello\u00a0world",
    "hello\u2028x",
    "hello\u200bworld",
    "\ufeffhello",
    "hello\u001cx",
    "Hello;",
    "Hello。",
    "wait—what – now",
    "Oh [chuckle], yes",
    "Hi[laugh]there [Laugh] [clear throat]",
    "It's don't I'LL we'd",
    "naïve café 😀 👩‍👩‍👧 日本語",
    "<|endoftext|> x",
    LONG,
    "1234567890 $5.20 (not 1,000) a@b.c http://x.y/?z=1",
)

_QUICK_TEXTS = (
    Text("plain", "Hello there.", "speech", streamed=True),
    Text("tags", "oh [laugh] that is[clear throat]really [sigh] something [Laugh]", "odd"),
    Text("unicode", "ßtart… “naïve” café — at 5:30, 😀 ’tis ǆ", "speech", max_tokens=20),
    Text("empty", "", "odd", max_tokens=10),
    Text("greedy", "One token is always the best.", "speech", max_tokens=60, parameters={"top_k": 1}),
    Text(
        "narrow",
        "Hot, but within a narrow choice.",
        "odd",
        parameters={"temperature": 1.3, "top_k": 50, "top_p": 0.7, "repetition_penalty": 1.6},
    ),
    Text("unfiltered", "Nothing is filtered here!", "speech", parameters={**ALIKE, "temperature": 1.0}),
)
_STOPS = (
    Text("stops", "This one ends before its limit.", "speech", seed=seed_that_stops(6), parameters=ALIKE),
    Text("stop_first", "The first token is the stop token.", "speech", 8, seed_that_stops(0), ALIKE),
)


def quick(directory: Path, clip: Path | None = None) -> Cases:
    """Two cuts of one clip (an even and an odd number of mel frames), nine short texts, and a conversion into either cut's voice;
    the cut is written to ``directory``.
    """
    path = clip or CLIP
    clips = (Clip("speech", path), Clip("odd", _odd(path, directory)))
    conversions = (Conversion("odd", "speech", 17), Conversion("odd", "odd", 18))
    return Cases(clips, (*_QUICK_TEXTS, *_STOPS), SENTENCES, conversions)


def _odd(path: Path, directory: Path) -> Path:
    """The longest start of a clip whose mel has an odd number of frames, at most 10 s and more than 5 s, as a new file."""
    samples, rate = read(path)
    frames = min(len(samples) * SAMPLE_RATE // (rate * HOP), 500)
    frames -= 1 - frames % 2
    length = -(-(frames * HOP + HOP // 2) * rate // SAMPLE_RATE)
    if not 5 * rate < length <= len(samples):
        raise AudioError(f"{path}: expected a clip of at least 5.1 s, found {len(samples) / rate:.2f} s")
    import soundfile

    cut = directory / "odd.wav"
    soundfile.write(cut, samples[:length], rate, subtype="FLOAT")
    return cut


def thorough(clips: Sequence[Path]) -> Cases:
    """Every clip whole, twelve texts over them, among them over 1024 tokens and over eight seconds, and each clip of at most
    ``CONVERTED`` seconds in the voice of the next clip; for the full-size model.
    """
    named = [Clip(path.stem, path) for path in clips]
    a, b, c = (named[i % len(named)].name for i in range(3))
    texts = (
        Text("plain", "Hello there.", a, 40),
        Text("tags", _QUICK_TEXTS[1].text, b, 40, 8),
        Text("unicode", _QUICK_TEXTS[2].text, c, 30, 9),
        Text("empty", "", a, 20, 10),
        Text("over_1024_tokens", LONG, b, 10, 11),
        Text("greedy", _QUICK_TEXTS[4].text, c, 220, 12, {"top_k": 1}),
        Text("narrow", _QUICK_TEXTS[5].text, a, 40, 13, _QUICK_TEXTS[5].parameters),
        Text("unfiltered", _QUICK_TEXTS[6].text, b, 30, 14, _QUICK_TEXTS[6].parameters),
        Text("long_speech", "This one speaks for more than eight seconds.", a, 220, 15, streamed=True),
        Text("spaces", "  leading spaces\tand\nnew lines ; Dr. No paid $5.20 (not 1,000)", c, 25, 16),
        Text("stops", _STOPS[0].text, a, 30, _STOPS[0].seed, ALIKE, streamed=True),
        Text("stop_first", _STOPS[1].text, b, 8, _STOPS[1].seed, ALIKE),
    )
    following = [*named[1:], named[0]]
    pairs = [(source.name, clip.name) for source, clip in zip(named, following) if source.seconds <= CONVERTED]
    conversions = [Conversion(*pair, 17 + i) for i, pair in enumerate(pairs)]
    return Cases(tuple(named), texts, SENTENCES, conversions)


def arrays(text: Text, prompt_tokens: int, mels: int, harmonics: int) -> dict[str, np.ndarray]:
    """The draws of a text's utterance, at least as many as it can need (``harmonics`` counts the fundamental)."""
    uniforms = draws.uniforms(text.seed, draws.T3, 0, text.max_tokens + 1)
    return {"uniforms": uniforms, **of_sound(text.seed, prompt_tokens, text.max_tokens + 1 + 3, mels, harmonics)}


def of_sound(seed: int, prompt_tokens: int, tokens: int, mels: int, harmonics: int) -> dict[str, np.ndarray]:
    """The draws of S3Gen for at most so many ``tokens``."""
    return {
        "flow": draws.normals(seed, draws.FLOW, 0, 2 * (prompt_tokens + tokens), mels),
        "phases": draws.phases(seed, harmonics),
        "noise": draws.normals(seed, draws.NOISE, 0, HOP * 2 * tokens, harmonics),
    }
