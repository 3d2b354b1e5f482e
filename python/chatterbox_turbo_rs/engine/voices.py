"""Voices by what a caller names: a voice, a voice file, a clip, or nothing for the checkpoint's own.

What comes from a file is kept for the next request, by the digest of the file and by what made the voice of it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..audio.source import local
from ..errors import ArgumentError, VoiceError
from ..options import AnyVoice, path_of
from ..plan import KEYS, Plan
from ..voice import Voice, is_voice_file
from .observer import Callback
from .once import Once
from .pipeline import Pipeline

KEPT = 32
"""Voices that are kept, about 0.2 MB each (``t3.decoder`` keeps the prefixes of a few of them, which are larger)."""
STAGES = tuple(
    key for key in KEYS if key.startswith(("reference", "voice_encoder", "s3tokenizer", "speaker_encoder", "s3gen.prompt"))
)
"""What prepares a voice."""


class Voices:
    """The voices of one model; threads may share it."""

    def __init__(self, pipeline: Pipeline, builtin: Voice | None) -> None:
        self._pipeline = pipeline
        self._builtin = builtin
        self._kept: Once[Voice] = Once(KEPT)

    def open(self, voice: AnyVoice, plan: Plan, loudness: str | None, callback: Callback | None) -> Voice:
        """The voice. Raises what ``Voice.load`` and ``Pipeline.voice`` do, and ``VoiceError`` for None without a built-in one."""
        if voice is None:
            voice = self._builtin
        if voice is None:
            raise VoiceError("voice: this checkpoint has no built-in voice (conds.pt); pass voice=tts.voice('clip.wav')")
        if isinstance(voice, Voice):
            return voice
        try:
            name = path_of("voice", voice)
        except ArgumentError:
            raise ArgumentError(f"voice: expected a Voice, a path or None, got {type(voice).__name__}") from None
        path = local(name)
        if is_voice_file(path):
            made: tuple[str | None, ...] = ("file", path.suffix.lower())
            make = lambda: Voice.load(path)  # noqa: E731
        else:
            made = (loudness, *(plan[key] for key in STAGES), *sorted(plan.automatic & {"reference.load"}))
            make = lambda: self._pipeline.voice(path, plan, loudness, callback)  # noqa: E731
        try:
            digest = _digest(path)
        except (OSError, ValueError):
            digest = None
        # What cannot be read, and what is no regular file, is refused by whoever reads it.
        return make() if digest is None else self._kept.get((digest, *made), make)


def _digest(path: Path) -> bytes | None:
    """SHA-256 of a regular file's bytes; None for what is none."""
    if not path.is_file():
        return None
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.digest()
