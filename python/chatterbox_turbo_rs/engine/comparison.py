"""Two renderings of one text that differ in how they were computed: another plan, another precision; the same voice, seed and tokens.

T3 of the first side draws the tokens, and both sides make sound of these, so that the sounds are as long as each other and every moment
of one has its like in the other. What the second side would have drawn is found out where it could be something else.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..audio.encode import pcm
from ..checkpoint.resources import Resources
from ..constants import SAMPLE_RATE
from ..options import PRECISIONS, GenerationOptions
from ..plan import KEYS, Plan
from ..voice import Voice
from .observer import Callback
from .pipeline import Pipeline, Run, Text

SPEAKING = tuple(
    key for key in KEYS if key.startswith(("text", "t3", "watermark")) or key in ("s3gen.encoder", "s3gen.flow", "s3gen.vocoder")
)
"""The stages from a text to its sound: the others prepare voices, and a comparison has one voice."""
DRAWING = tuple(key for key in SPEAKING if key.startswith(("text", "t3")))
"""Those of them that the tokens depend on."""


@dataclass(frozen=True, eq=False)
class Rendering:
    """One side: what computed it, ``samples`` float32 [n], their ``mel`` float32 [n // 480, 80] (as ``s3gen.prompt_mel`` has it) and the seconds of each stage."""

    plan: Plan
    precision: str
    samples: np.ndarray
    mel: np.ndarray
    timings: Mapping[str, float]

    @property
    def name(self) -> str:
        """Plan and precision, such as ``rust, int8``; of the plan, the stages that speak."""
        sides = {key: self.plan[key] for key in SPEAKING}
        base = max(("rust", "python"), key=lambda side: sum(found == side for found in sides.values()))
        return ", ".join([base, *(f"{key}={side}" for key, side in sides.items() if side != base), self.precision])


@dataclass(frozen=True, eq=False)
class Comparison:
    """``a`` and ``b``: one text, voice, seed and ``tokens`` int64 [N] (T3's, of side ``a``), computed in two ways.

    ``own_tokens_from`` is the first place where T3 of side ``b`` would have drawn another token, None where there is none.
    """

    text: str
    seed: int
    tokens: np.ndarray
    a: Rendering
    b: Rendering
    own_tokens_from: int | None

    @property
    def difference(self) -> dict[str, float]:
        """``max_abs`` of the samples, ``relative_rms`` (of the difference to side ``a``), ``mel_mean`` and ``mel_max`` (natural logarithms)."""
        a, b = self.a.samples.astype(np.float64), self.b.samples.astype(np.float64)
        mel, level = np.abs(self.b.mel - self.a.mel), float(np.sqrt(np.mean(a**2)))
        return {
            "max_abs": float(np.abs(b - a).max()),
            "relative_rms": float(np.sqrt(np.mean((b - a) ** 2))) / max(level, 1e-12),
            "mel_mean": float(mel.mean()),
            "mel_max": float(mel.max()),
        }

    def document(self) -> dict[str, Any]:
        """All of it for JSON: sound as 16 bit little-endian and mels as float32, both in base64; the seed as digits."""
        sides = {name: _side(side) for name, side in (("a", self.a), ("b", self.b))}
        return {
            "object": "audio.comparison",
            "input": self.text,
            "seed": str(self.seed),
            "sample_rate": SAMPLE_RATE,
            "tokens": len(self.tokens),
            "own_tokens_from": self.own_tokens_from,
            "mel_shape": list(self.a.mel.shape),
            "difference": self.difference,
            **sides,
        }


def precisions(device: str) -> tuple[str, ...]:
    """The precisions that can be compared on ``device``."""
    return PRECISIONS[1:] if device.partition(":")[0] == "cpu" else ("f32",)


def compare(
    pipeline: Pipeline,
    voice: Voice,
    text: str,
    sides: tuple[tuple[Plan, str], tuple[Plan, str]],
    options: GenerationOptions,
    callback: Callback | None = None,
) -> Comparison:
    """Both renderings of ``text``, in one go each (as with ``split="never"``). ``sides``: plan and precision of each; a precision other than the pipeline's is
    loaded for this and let go again, one at a time.
    """
    voice.check(pipeline.config, pipeline.fingerprint)
    a, b = (_Side(pipeline, voice, text, plan, precision, options, callback) for plan, precision in sides)
    tokens = a.tokens()
    first = a.rendering(tokens)
    a.close()
    differs = any(a.run.plan[key] != b.run.plan[key] for key in DRAWING) or _t3_format(a) != _t3_format(b)
    own = b.tokens() if differs else tokens
    second = b.rendering(tokens)
    return Comparison(text, options.seed, tokens, first, second, _first_difference(tokens, own))


def _t3_format(side: _Side) -> str:
    return next((name for name in ("int8", "int4") if name in side.precision), "f32")


class _Side:
    """One side at work."""

    def __init__(
        self,
        pipeline: Pipeline,
        voice: Voice,
        text: str,
        plan: Plan,
        precision: str,
        options: GenerationOptions,
        callback: Callback | None,
    ) -> None:
        self.precision, self._voice, self._text, self._options = precision, voice, text, options
        found = pipeline.resources
        if precision != found.precision:
            pipeline = Pipeline(Resources(found.directory, found.config, found.device, precision, found.options))
        self.run = Run(pipeline, voice.plan(plan), callback)

    @functools.cached_property
    def _read(self) -> Text:
        return self.run.pipeline.prepare(self.run, self._text, self._options)

    def tokens(self) -> np.ndarray:
        """What T3 of this side draws."""
        options, pipeline = self._options, self.run.pipeline
        return pipeline.tokens(self.run, self._voice, self._read.ids, options.sampler, options.seed, options.max_tokens)

    def rendering(self, tokens: np.ndarray) -> Rendering:
        """The sound of ``tokens``."""
        speech = self.run.pipeline.sound(self.run, self._voice, self._read, tokens, self._options)
        mel = self.run.pipeline.stage("s3gen.prompt_mel", self.run.plan["s3gen.prompt_mel"])(speech.samples)
        return Rendering(self.run.plan, self.precision, speech.samples, mel, dict(self.run.timings))

    def close(self) -> None:
        """Lets the weights go that were loaded for this side."""
        del self.run.pipeline


def _first_difference(a: np.ndarray, b: np.ndarray) -> int | None:
    """The first place where two rows of tokens differ, where one ends before the other included; None for equal ones."""
    both = min(len(a), len(b))
    differing = np.flatnonzero(a[:both] != b[:both])
    if len(differing):
        return int(differing[0])
    return None if len(a) == len(b) else both


def _side(side: Rendering) -> dict[str, Any]:
    return {
        "name": side.name,
        "plan": {key: side.plan[key] for key in SPEAKING},
        "precision": side.precision,
        "audio": base64.b64encode(pcm(side.samples)).decode("ascii"),
        "mel": base64.b64encode(side.mel.astype("<f4").tobytes()).decode("ascii"),
        "timings": {key: round(seconds, 4) for key, seconds in side.timings.items()},
    }
