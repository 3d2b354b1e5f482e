"""Chatterbox Turbo text-to-speech with voice cloning, without PyTorch.

>>> from chatterbox_turbo_rs import ChatterboxTurbo
>>> tts = ChatterboxTurbo.from_pretrained("demo")
>>> speech = tts.generate("Hello [laugh] there.", seed=7)
>>> speech.sample_rate
24000
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .engine.registry import available
from .errors import ChatterboxError
from .model import ChatterboxTurbo
from .plan import Plan
from .speech import Speech
from .voice import Voice

__all__ = ["ChatterboxError", "ChatterboxTurbo", "Plan", "Speech", "Voice", "__version__", "available"]

if TYPE_CHECKING:
    __version__: str


def __getattr__(name: str) -> str:
    if name == "__version__":
        from ._core import build_info

        return build_info()["version"]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
