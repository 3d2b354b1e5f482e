"""A book as it is spoken: chapters of text with pauses in it, whatever they were read from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

HEADING_PAUSE = "[pause 1s]"
"""Behind a chapter's heading."""
BREAK = "[pause 1.5s]"
"""In place of a line, or of asterisks, between two scenes."""


@dataclass(frozen=True)
class Chapter:
    """``text`` is what is spoken, heading and pauses included: one paragraph a line. ``title`` is its name in lists, or empty."""

    title: str
    text: str


@dataclass(frozen=True)
class Book:
    """Chapters in their order, each with words; ``title``, ``author`` and ``language`` (a code) are empty where the document has none."""

    chapters: tuple[Chapter, ...]
    title: str = ""
    author: str = ""
    language: str = ""


def speakable(text: str) -> bool:
    """Is there a letter or a number in it?"""
    return any(character.isalnum() for character in text)


def one_line(text: str) -> str:
    """With single spaces in place of all white space."""
    return " ".join(text.split())


def chapter(title: str, headings: Sequence[str], paragraphs: Iterable[str]) -> Chapter:
    """A chapter that begins with its ``headings``; ``BREAK`` among the paragraphs is a pause, and counts between words alone."""
    lines: list[str] = []
    for heading in headings:
        lines += [heading, HEADING_PAUSE]
    waiting = False
    begun = len(lines)
    for paragraph in paragraphs:
        if paragraph == BREAK:
            waiting = len(lines) > begun
        elif speakable(paragraph):
            lines += [BREAK] * waiting + [paragraph]
            waiting = False
    if len(lines) == begun and lines:
        lines.pop()  # headings alone: no pause behind the last
    return Chapter(one_line(title), "\n".join(lines))


def book(chapters: Iterable[Chapter], title: str = "", author: str = "", language: str = "") -> Book:
    """A book of the chapters with words."""
    return Book(tuple(c for c in chapters if speakable(_spoken(c))), one_line(title), one_line(author), one_line(language))


def _spoken(chapter: Chapter) -> str:
    return chapter.text.replace(HEADING_PAUSE, "").replace(BREAK, "")
