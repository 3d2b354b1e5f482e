"""Chatterbox Turbo text-to-speech with voice cloning, without PyTorch.

>>> from chatterbox_turbo_rs import ChatterboxTurbo
>>> tts = ChatterboxTurbo.from_pretrained("demo")
>>> speech = tts.generate("Hello there.", seed=7)
>>> speech.sample_rate
24000
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine.registry import available
    from .errors import ChatterboxError
    from .model import ChatterboxTurbo
    from .options import Split
    from .plan import Plan
    from .speech import Chunk, Speech
    from .voice import Voice

    __version__: str

__all__ = ["ChatterboxError", "ChatterboxTurbo", "Chunk", "Plan", "Speech", "Split", "Voice", "__version__", "available"]
_HOMES = {
    "ChatterboxError": "errors",
    "ChatterboxTurbo": "model",
    "Chunk": "speech",
    "Plan": "plan",
    "Speech": "speech",
    "Split": "options",
    "Voice": "voice",
    "available": "engine.registry",
}


def __getattr__(name: str) -> Any:
    """The public names, each imported when it is first asked for: the command is there before NumPy is."""
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name == "__version__":
        value = importlib.import_module(f"{__name__}._core").build_info()["version"]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
