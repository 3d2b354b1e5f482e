"""Contract of stage `t3.sampler`: one speech token from one row of logits.

``(logits [n] float32, history int64 [any], parameters: SamplerParameters, uniform: float in [0, 1)) -> int | None``.
``history`` are the tokens so far (the start token before the first one), each below n. The result is None when every logit
is -inf.

Order as in ``inference_turbo`` of ``src/chatterbox/models/t3/t3.py`` of resemble-ai/chatterbox at 5de7a54, with the
processors of transformers 5.2.0: temperature, top-k, top-p, repetition penalty, softmax, one draw. Scores are float32 as
there; probabilities are computed in float64 and rounded to float32. The draw is this project's own: the first id whose
cumulative probability (float64) exceeds ``uniform`` times the total, over ascending ids.

Where equal scores straddle the top-p boundary, the higher ids stay (a stable ascending sort); torch leaves open which of
them do, and its choice differs between processors.

Raises ``ArgumentError`` for NaN or +inf in ``logits`` (also after dividing), a token outside n, or another ``uniform``.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any

from ....errors import ArgumentError


@dataclass(frozen=True)
class SamplerParameters:
    """How tokens are chosen. Raises ``ArgumentError`` that names the parameter.

    ``temperature`` divides the logits; 0 and below mean 1. ``top_k`` keeps the tokens with the k highest scores and their
    ties; 0 and below is off, more than the vocabulary keeps everything. ``top_p`` keeps the most probable tokens whose sum
    first reaches p; 0 keeps the best alone, 1 and above is off. ``repetition_penalty`` divides positive and multiplies
    negative scores of tokens that were generated before; 1 is off.
    """

    temperature: float = 0.8
    top_k: int = 1000
    top_p: float = 0.95
    repetition_penalty: float = 1.2

    def __post_init__(self) -> None:
        self._expect("temperature", "a finite number", _number(self.temperature) and math.isfinite(self.temperature))
        whole = isinstance(self.top_k, numbers.Integral) and not isinstance(self.top_k, bool)
        self._expect("top_k", "a whole number", whole)
        self._expect("top_p", "a number of at least 0", _number(self.top_p) and self.top_p >= 0)
        # As float32, in which the penalty is applied.
        fits = _number(self.repetition_penalty) and 2.0**-149 <= self.repetition_penalty < 2.0**128 - 2.0**103
        self._expect("repetition_penalty", "a finite number above 0", fits)

    def for_core(self) -> dict[str, Any]:
        """What the Rust core takes as keyword arguments."""
        top_k = min(max(int(self.top_k), 0), 1 << 31)
        penalty = self.repetition_penalty
        return {"temperature": self.temperature, "top_k": top_k, "top_p": self.top_p, "repetition_penalty": penalty}

    def _expect(self, name: str, expected: str, met: bool) -> None:
        if not met:
            raise ArgumentError(f"{name}: expected {expected}, got {getattr(self, name)!r}")


def _number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
