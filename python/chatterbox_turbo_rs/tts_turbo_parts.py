"""What upstream's model carries as attributes, for programs that use them: the watermarker, the tokenizer, and what is not here."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from .constants import SAMPLE_RATE
from .errors import AbsentError, ArgumentError
from .model import ChatterboxTurbo
from .options import samples_of

PARTS = {
    "t3": "the sampling arguments of generate steer it, and int8, int4, bf16 and f32 are its number formats",
    "s3gen": "bf16 and f32 are its number formats",
    "ve": "model.engine.voice(clip).speaker_embedding is what it computes",
}
"""Upstream's torch modules → what there is instead."""


class Part:
    """An attribute that upstream's model has as a torch module: an ``AttributeError`` with the way out, so that ``hasattr`` is false."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, model: object, owner: type | None = None) -> NoReturn:
        raise AbsentError(
            f"{self.name}: this model runs without PyTorch and has no such module to move, cast, compile or replace: "
            f"{PARTS[self.name]}; ChatterboxTurbo.from_pretrained(…, device=…, precision=…, backends=…) says how it runs"
        )

    def __set__(self, model: object, value: object) -> NoReturn:
        self.__get__(model)


class Watermarker:
    """Perth's two methods over the model's own stage ``watermark``."""

    def __init__(self, engine: ChatterboxTurbo) -> None:
        self._engine = engine

    @property
    def stage(self) -> Any:
        """The stage; raises ``WatermarkError`` or ``BackendError`` when it cannot run."""
        return self._engine._pipeline.stage("watermark", self._engine.plan["watermark"])

    def apply_watermark(self, wav: Any, sample_rate: int, **options: Any) -> np.ndarray:
        """Marks float32 ``wav`` [n] at 24 kHz; raises ``ArgumentError`` for another rate."""
        if sample_rate != SAMPLE_RATE:
            raise ArgumentError(f"sample_rate: expected {SAMPLE_RATE} Hz, the model's own, got {sample_rate}")
        return self.stage(samples_of(wav))

    def get_watermark(self, wav: Any, sample_rate: int, round: bool = True, **options: Any) -> float:
        """1.0 where ``wav`` [n] carries the mark, 0.0 where it does not; the confidence between them with ``round=False``."""
        confidence = self._engine.detect_watermark(wav, sample_rate)
        return float(confidence > 0.5) if round else confidence


class Tokenizer:
    """As much of upstream's tokenizer as programs use to count tokens and to look at them."""

    def __init__(self, engine: ChatterboxTurbo) -> None:
        self._engine = engine

    def encode(self, text: str) -> list[int]:
        """The ids that T3 is given for ``text``, which is taken as it is."""
        ids: np.ndarray = self._engine._pipeline.stage("text.tokenize", self._engine.plan["text.tokenize"])(text)
        return ids.tolist()

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_") and " " not in name:
            raise AttributeError(name)
        directory = str(self._engine._pipeline.resources.directory)
        raise AbsentError(
            f"tokenizer.{name}: this one has encode(text) alone; transformers.AutoTokenizer.from_pretrained({directory!r}) has all"
        )

    def __call__(self, *arguments: Any, **options: Any) -> NoReturn:
        self.__getattr__("__call__ with a text")
