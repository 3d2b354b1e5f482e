"""Speaking in this process: rows decoded together, each part the speech that ``generate(text, seed)`` gives."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import VoiceError
from ..model import ChatterboxTurbo
from ..options import GenerationOptions, Loudness, Result
from ..voice import Voice, is_voice_file
from .plan import Item


@dataclass(frozen=True)
class How:
    """All that a speaker needs: what ``from_pretrained`` takes, the voice (a prepared one, a voice file, a clip or its bytes, None for
    the checkpoint's own), how a clip is brought to its level, what ``iter_many`` takes, and how many rows are decoded together.
    """

    loading: Mapping[str, Any]
    voice: Voice | Path | bytes | None
    loudness: Loudness | None
    arguments: Mapping[str, Any]
    batch: int


def arguments_of(options: GenerationOptions) -> dict[str, Any]:
    """What ``iter_many`` takes for a part. It is not split again: a segment may be a little longer than what is."""
    return {
        "temperature": options.temperature,
        "top_p": options.top_p,
        "top_k": options.top_k,
        "repetition_penalty": options.repetition_penalty,
        "max_tokens": options.max_tokens,
        "watermark": options.watermark,
        "speed": options.speed,
        "pronounce": dict(options.pronounce),
        "split": "never",
    }


class Local:
    """A ``Speaker`` over a model. ``model`` is the fingerprint, ``precision`` what the model computes in, ``voice`` who speaks, ``longest`` the
    characters that the model speaks well in one go.
    """

    def __init__(self, tts: ChatterboxTurbo, how: How) -> None:
        """Raises what ``Voice.load`` and ``ChatterboxTurbo.voice`` do."""
        self._tts, self._how = tts, how
        self.voice, self.model, self.precision = _voice(tts, how), tts.fingerprint, tts.precision
        self.longest: int = tts.config["text"]["longest"]

    @classmethod
    def load(cls, how: How) -> Local:
        """Loads the model first; raises what ``from_pretrained`` does."""
        return cls(ChatterboxTurbo.from_pretrained(**how.loading), how)

    def speak(self, items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        texts, seeds = [item.text for item in items], [item.seed for item in items]
        how = self._how
        spoken = self._tts.iter_many(texts, self.voice, seeds, batch=how.batch, errors="return", **how.arguments)
        with contextlib.closing(spoken):
            for index, result in spoken:
                yield items[index], result
                del result


def _voice(tts: ChatterboxTurbo, how: How) -> Voice:
    source = how.voice
    if source is None:
        if tts.builtin_voice is None:
            raise VoiceError("voice: this checkpoint has no built-in voice (conds.pt); name a clip or a voice file")
        return tts.builtin_voice
    if isinstance(source, Voice):
        return source
    if isinstance(source, Path) and is_voice_file(source):
        return Voice.load(source)
    return tts.voice(source, loudness=how.loudness)
