"""Plain text: chapters begin where a line of its own says so; wrapped lines are put together again."""

from __future__ import annotations

import re
import statistics

from ...errors import TextError
from .document import BREAK, Book, Chapter, book, chapter, one_line, speakable

_NUMBER = r"(?:\d{1,4}|[ivxlcdm]{1,9}|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|the \w+)"
_NUMBERED = re.compile(
    rf"(?:chapter|part|book|volume|section|kapitel|teil|chapitre|partie|cap[ií]tulo|capitolo|parte)\s+{_NUMBER}\b(.*)",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"(?:prologue|epilogue|preface|foreword|introduction|afterword|appendix|prolog|epilog|vorwort|nachwort)\s*[.:]?",
    re.IGNORECASE,
)
"""What the first line of a heading is, the one with a title behind it."""
LONGEST_HEADING = 80
"""Characters of a line that may be one."""
WRAPPED, WIDEST = 45, 100
"""A text is wrapped when the lines inside its paragraphs are mostly this long at least, and hardly any is longer than that."""


def decoded(name: str, data: bytes) -> str:
    """UTF-8 text without a byte order mark. Raises ``TextError`` that names the byte which is none."""
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        found = f"found byte 0x{error.object[error.start]:02x} at {error.start}"
        raise TextError(f"{name}: expected UTF-8, {found}; iconv -f FROM -t UTF-8 converts it") from None


def read(text: str) -> Book:
    """The chapters of a text, or one without a title. A heading stands between blank lines: "Chapter 1", "PART TWO. The Sea", "Prologue"."""
    parts = re.split(r"\n[^\S\n]*(?:\n[^\S\n]*)+", re.sub(r"\r\n?", "\n", text))
    blocks = [part.splitlines() for part in parts if part.strip()]
    width = _width(blocks)
    chapters: list[Chapter] = []
    title = ""
    headings: list[str] = []
    paragraphs: list[str] = []
    for lines in blocks:
        if _is_heading(lines):
            if paragraphs:
                chapters.append(chapter(title, headings, paragraphs))
                headings, paragraphs = [], []
            headings.append(one_line(" ".join(lines)))
            title = ". ".join(heading.rstrip(".") for heading in headings)
        else:
            paragraphs += _paragraphs(lines, width)
    chapters.append(chapter(title, headings, paragraphs))
    return book(chapters)


def _is_heading(lines: list[str]) -> bool:
    if len(lines) > 2 or max(map(len, lines)) > LONGEST_HEADING:
        return False
    first = lines[0].strip()
    numbered = _NUMBERED.fullmatch(first)
    if numbered is None:
        return _NAMED.fullmatch(first) is not None
    behind = numbered[1].strip()
    return not behind or (not behind[0].islower() and behind[-1] not in ",;")


def _width(blocks: list[list[str]]) -> float | None:
    """About how long the lines of a wrapped text are, None where lines end with their paragraphs."""
    inner = [len(line.strip()) for lines in blocks for line in lines[:-1]]
    if len(inner) < 3:
        return None
    usual = statistics.median(inner)
    return usual if usual >= WRAPPED and sum(length > WIDEST for length in inner) < len(inner) / 20 else None


def _paragraphs(lines: list[str], width: float | None) -> list[str]:
    """The paragraphs of a block: one where it is wrapped, else one a line (verse, lists, texts without blank lines)."""
    if not speakable("".join(lines)):
        return [BREAK] if "".join(lines).strip() else []
    if width is not None and all(len(line.strip()) > width * 0.6 for line in lines[:-1]):
        return [one_line(" ".join(lines))]
    return [one_line(line) for line in lines]
