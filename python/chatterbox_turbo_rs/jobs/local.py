"""Speaking in this process: rows decoded together, each part the speech that ``generate(text, seed)`` gives."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..model import ChatterboxTurbo
from ..options import GenerationOptions, Loudness, Result
from ..voice import Voice, is_voice_file
from .plan import Item


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


def voice_of(tts: ChatterboxTurbo, source: Path | bytes | None, loudness: Loudness | None) -> Voice | None:
    """The voice that speaks: a voice file's, a clip's (or its bytes'), the checkpoint's own for None.

    Raises what ``Voice.load`` and ``ChatterboxTurbo.voice`` do; None where the checkpoint has none.
    """
    if source is None:
        return tts.builtin_voice
    if isinstance(source, Path) and is_voice_file(source):
        return Voice.load(source)
    return tts.voice(source, loudness=loudness)


class Local:
    """A ``Speaker`` over a loaded model."""

    def __init__(self, tts: ChatterboxTurbo, voice: Voice | None, arguments: Mapping[str, Any], batch: int) -> None:
        self._tts, self._voice, self._arguments, self._batch = tts, voice, arguments, batch

    def speak(self, items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        texts, seeds = [item.text for item in items], [item.seed for item in items]
        spoken = self._tts.iter_many(texts, self._voice, seeds, batch=self._batch, errors="return", **self._arguments)
        with contextlib.closing(spoken):
            for index, result in spoken:
                yield items[index], result
                del result
