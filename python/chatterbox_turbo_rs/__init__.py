"""Chatterbox Turbo text-to-speech with voice cloning, without PyTorch.

>>> from chatterbox_turbo_rs import ChatterboxTurbo
>>> tts = ChatterboxTurbo.from_pretrained("demo")
>>> speech = tts.generate("Hello [laugh] there.", seed=7)
>>> speech.sample_rate
24000
"""

from __future__ import annotations

from .backends import Plan, available
from .errors import ChatterboxError
from .speech import Speech
from .tts import ChatterboxTurbo
from .voice import Voice

__all__ = ["ChatterboxError", "ChatterboxTurbo", "Plan", "Speech", "Voice", "available"]
