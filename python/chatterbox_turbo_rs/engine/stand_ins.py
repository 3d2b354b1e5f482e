"""What upstream's model carries as attributes, for programs that use them: the watermarker, the tokenizer, and what is not here."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from ..constants import SAMPLE_RATE
from ..errors import AbsentError, ArgumentError
from .pipeline import Pipeline

PARTS = {
    "t3": 'tts.generate(…, max_tokens=…) and its sampling arguments steer it, precision="int8", "bf16" or "f32" is its number format',
    "s3gen": 'precision="bf16" or "f32" is its number format',
    "ve": "engine.voice(clip).speaker_embedding is what it computes",
}
"""Upstream's torch modules → what there is instead."""


class Part:
    """An attribute that upstream's model has as a torch module: an ``AttributeError`` with the way out, so that ``hasattr`` is false."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, model: object, owner: type | None = None) -> NoReturn:
        raise AbsentError(
            f"{self.name}: this model runs without PyTorch and has no such module: there is nothing to move, cast or compile. "
            f"Instead: {PARTS[self.name]}; ChatterboxTurbo.from_pretrained(…, device=, precision=, backends=) chooses how it runs"
        )

    def __set__(self, model: object, value: object) -> NoReturn:
        self.__get__(model)


class Watermarker:
    """Perth's two methods over the model's own stage ``watermark``."""

    def __init__(self, pipeline: Pipeline, implementation: str) -> None:
        self._pipeline, self._implementation = pipeline, implementation

    @property
    def stage(self) -> Any:
        """The stage; raises ``WatermarkError`` or ``BackendError`` when it cannot run."""
        return self._pipeline.stage("watermark", self._implementation)

    def apply_watermark(self, wav: Any, sample_rate: int, **options: Any) -> np.ndarray:
        """Marks float32 ``wav`` [n] at 24 kHz; raises ``ArgumentError`` for another rate."""
        if sample_rate != SAMPLE_RATE:
            raise ArgumentError(f"sample_rate: expected {SAMPLE_RATE} Hz, the model's own, got {sample_rate}")
        return self.stage(np.ascontiguousarray(wav, np.float32))

    def get_watermark(self, wav: Any, sample_rate: int, round: bool = True, **options: Any) -> float:
        """1.0 where ``wav`` [n] carries the mark, 0.0 where it does not; the confidence between them with ``round=False``."""
        confidence = float(self.stage.detect(np.ascontiguousarray(wav, np.float32), sample_rate))
        return float(confidence >= 0.5) if round else confidence


class Tokenizer:
    """As much of upstream's tokenizer as programs use to count or look at tokens."""

    def __init__(self, pipeline: Pipeline, implementation: str) -> None:
        self._pipeline, self._implementation = pipeline, implementation

    def encode(self, text: str) -> list[int]:
        """The ids that T3 is given for ``text``, which is taken as it is."""
        ids: np.ndarray = self._pipeline.stage("text.tokenize", self._implementation)(text)
        return ids.tolist()

    def __getattr__(self, name: str) -> NoReturn:
        directory = self.__dict__["_pipeline"].resources.directory if "_pipeline" in self.__dict__ else "…"
        raise AbsentError(
            f"tokenizer.{name}: this one has encode(text) alone; transformers.AutoTokenizer.from_pretrained({str(directory)!r}) is upstream's"
        )
