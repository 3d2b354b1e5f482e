"""What a job is: a book's chapters as segments, each with the address of every attempt at it.

A chapter sounds as ``generate(chapter.text, seed=chapter seed)`` does. Of a part, text, seed, voice, model, options and version are hashed:
whatever asks for the same sound finds it, and whatever does not, does not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from ..engine import draws
from ..engine.long_text import ATTEMPT, plan_of
from ..engine.pronounce import pronounced
from ..engine.segments import Segment
from ..errors import TextError
from ..options import GenerationOptions
from .read.document import Book, Chapter

CHAPTER = "chapter"
"""Stream of the seeds of chapters: that of the first is the job's, as that of a text's first segment is the text's."""
FORMAT = "1"
"""Of addresses and parts."""


@dataclass(frozen=True)
class Item:
    """What is to be spoken in one go: an attempt at a segment."""

    address: str
    text: str
    seed: int


@dataclass(frozen=True)
class Piece:
    """A segment of a chapter, and how often it may be spoken."""

    chapter: int
    segment: Segment
    attempts: int

    def seed(self, attempt: int) -> int:
        return draws.derived(self.segment.seed, attempt, ATTEMPT)


class Plan:
    """``pieces``: what is spoken, in its order. ``chapters``: each with all of its segments, silent ones included."""

    def __init__(self, book: Book, options: GenerationOptions, model: str, voice: str) -> None:
        """``model`` and ``voice`` are fingerprints. Raises ``TextError`` that names the chapter."""
        self._words = options.pronounce
        told = {
            "format": FORMAT,
            "model": model,
            "voice": voice,
            "sampler": [options.temperature, options.top_p, options.top_k, options.repetition_penalty, options.max_tokens],
            "speed": options.speed,
            "watermark": options.watermark,
        }
        self._settings = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
        self.chapters = list(segmented(book, options))
        self.pieces: list[Piece] = []
        for number, (_, segments) in enumerate(self.chapters):
            most = options.split.attempts + 1 if options.split and len(segments) > 1 else 1
            self.pieces += [Piece(number, segment, most) for segment in segments if segment.text]

    def item(self, piece: Piece, attempt: int) -> Item:
        """An attempt at a piece."""
        text, seed = piece.segment.text, piece.seed(attempt)
        told = "\n".join([self._settings, str(seed), pronounced(text, self._words)])
        return Item(hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:40], text, seed)


def segmented(book: Book, options: GenerationOptions) -> Iterator[tuple[Chapter, list[Segment]]]:
    """Each chapter with its segments. Raises ``TextError`` that names the chapter."""
    for number, chapter in enumerate(book.chapters):
        try:
            yield chapter, plan_of(chapter.text, draws.derived(options.seed, number, CHAPTER), options)
        except TextError as error:
            raise TextError(f"chapter {number + 1} ({chapter.title or 'untitled'}): {error}") from None
