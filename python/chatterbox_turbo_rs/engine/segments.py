"""Long text as segments that the model speaks well one by one: sentences, filled up to a length, with the pauses between them.

``segments.rs`` is the same in Rust. Characters are Unicode's code points and whitespace is Unicode's White_Space in both. Where
sentences end, sentencex says (github.com/wikimedia/sentencex, in the core).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .. import _core
from ..errors import ArgumentError, TextError
from ..options import MOST_PAUSE, Split
from . import draws

SLACK, SHORT = 20, 20
"""Characters by which a segment may be longer than the limit to take in a rest that would be shorter than ``SHORT``."""
_PAUSE = re.compile(r"\[pause[ :] *([0-9]{1,9}(?:\.[0-9]{1,9})?) *(ms|s)\]", re.IGNORECASE | re.ASCII)
_TAG = re.compile(r"\[[^\[\]\n]{1,40}\]")
_WHITE = (
    " \t\n\v\f\r\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
_CLAUSE = ',;:)]\u2014\u2013\u2026"\u201d'
"""A clause may end with one of these before whitespace,"""
_WIDE_CLAUSE = "\uff0c\u3001\uff1b\uff1a\u2014"
"""or with one of these before anything."""
_BREAKS = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_SENTENCE_ENDS = ".!?\u2026:;\u3002\uff01\uff1f\"\u201d')]*-\u2014"
_MUTE = [
    (0x00, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0xA9), (0xAB, 0xB1), (0xB4, 0xB4), (0xB6, 0xB8), (0xBB, 0xBF), (0xD7, 0xD7),
    (0xF7, 0xF7), (0x1680, 0x1680), (0x2000, 0x206F), (0x2190, 0x2BFF), (0x3000, 0x3004), (0x3008, 0x3020), (0x3030, 0x3030),
    (0xFE00, 0xFE0F), (0xFF00, 0xFF0F), (0xFF1A, 0xFF20), (0xFF3B, 0xFF40), (0xFF5B, 0xFF65), (0x1F000, 0x1FAFF), (0xE0020, 0xE007F), (0x200B, 0x200D),
    (0xFEFF, 0xFEFF),
]  # fmt: skip
"""Characters that nobody speaks: punctuation, symbols, whitespace."""
_JOINED = [(0x300, 0x36F), (0x200C, 0x200D), (0x20D0, 0x20FF), (0xFE00, 0xFE0F), (0x1F3FB, 0x1F3FF), (0xE0020, 0xE007F)]
"""Characters that belong to the one before."""


@dataclass(frozen=True)
class Segment:
    """One piece of a text, spoken by itself. ``pause_after`` is seconds of silence behind it, ``seed`` its own.

    Text ``""`` is a pause alone, at the beginning of a text (unless nothing else was asked for).
    """

    index: int
    text: str
    pause_after: float
    seed: int
    start_of_paragraph: bool


@dataclass(frozen=True)
class _Piece:
    """A stretch of a paragraph, whitespace included, that isn't cut any more; ``pause``: would a reader pause behind it?"""

    text: str
    pause: bool


def segments(text: str, *, seed: int = 0, split: Split | None = None) -> list[Segment]:
    """What ``text`` becomes when it is longer than ``split.longest`` characters or has pauses (``[pause 0.5s]``, ``[pause:500ms]``).

    Sentences of a paragraph are filled up to the limit; a longer one is cut behind a clause, else between words, else anywhere,
    never inside a tag, a number or an abbreviation; no short rest stays alone. Other texts are one segment, unchanged. Segment 0
    has ``seed``, segment i one that is derived from both. Lines without anything to speak are left out.

    Raises ``TextError`` for a long text, or one with pauses, that has no word, and for a pause above 60 s.
    """
    split = Split() if split is None else split
    if not isinstance(split, Split):
        raise ArgumentError(f"split: expected a Split or None, got {split!r}")
    parts = list(_parts(text))
    if len(parts) == 1 and len(text) <= split.longest:
        return [Segment(0, text, 0.0, seed, True)]
    first = split.first if len(text) > split.longest else split.longest
    found: list[tuple[str, float, bool]] = []  # text, pause behind it, begins a paragraph
    fresh, room, paused = True, first, False
    for part, pause in parts:
        before = len(found)
        for paragraph, begins in _paragraphs(part, fresh):
            filled = _filled(_pieces(paragraph, split, room), split, room)
            found += [
                (words, float(split.sentence_pause if pauses else 0), begins and not k)
                for k, (words, pauses) in enumerate(filled)
            ]
            found[-1] = (found[-1][0], float(split.paragraph_pause), found[-1][2])
            room = split.longest
        spoken = len(found) > before
        fresh = _BREAKS.search(part, len(part.rstrip(_WHITE))) is not None or (fresh and not spoken)
        if pause is not None:
            words, behind, begins = found.pop() if found else ("", 0.0, True)
            found.append((words, behind + pause if paused and not spoken else pause, begins))
            paused = True
        elif found and (spoken or not paused):
            found[-1] = (found[-1][0], 0.0, found[-1][2])
    if not any(words for words, _, _ in found):
        raise TextError(f"text: expected words, found {len(text)} characters without any")
    return [Segment(i, words, behind, draws.derived(seed, i), begins) for i, (words, behind, begins) in enumerate(found)]


def _parts(text: str) -> Iterator[tuple[str, float | None]]:
    """The text between pauses, each with the seconds of the pause behind it; None at the end."""
    start = 0
    for mark in _PAUSE.finditer(text):
        seconds = float(mark[1]) / (1000 if mark[2].lower() == "ms" else 1)
        if seconds > MOST_PAUSE:
            raise TextError(f"text: {mark[0]}: expected a pause of at most {MOST_PAUSE:g} s")
        yield text[start : mark.start()], seconds
        start = mark.end()
    yield text[start:], None


def _paragraphs(part: str, fresh: bool) -> Iterator[tuple[str, bool]]:
    """Paragraphs with something to speak, and whether each begins one (the first may go on with what was before a pause)."""
    start, ends = 0, [*_BREAKS.finditer(part), None]
    for mark in ends:
        end = mark.start() if mark else len(part)
        following = part[mark.end() : mark.end() + 1] if mark else ""
        line = part[start:end]
        if mark and following.islower() and not line.rstrip(_WHITE).endswith(tuple(_SENTENCE_ENDS)):
            continue  # a wrapped line
        if not all(_within(character, _MUTE) for character in line):
            yield line, fresh
            fresh = True
        elif mark:
            fresh = True
        start = mark.end() if mark else end


def _pieces(paragraph: str, split: Split, first: int) -> Iterator[_Piece]:
    """Sentences, cut where they are longer than the limit: ``first`` for the first piece of all."""
    limit = first
    for sentence in _core.text_sentences(split.language, paragraph):
        if len(sentence.strip(_WHITE)) <= limit:
            yield _Piece(sentence, True)
        else:
            yield from _cut(sentence, limit, split.longest)
        limit = split.longest


def _cut(sentence: str, first: int, longest: int) -> Iterator[_Piece]:
    """Pieces of a sentence, about equally long: the first at most ``first`` characters, the others ``longest``."""
    places = _places(sentence)
    end, start, limit = len(sentence.rstrip(_WHITE)), 0, first
    while end - start > limit:
        need = -(-(end - start) // limit)
        ideal = start + (limit if limit != longest else -(-(end - start) // need))
        window = range(start + limit // 3, start + limit + 1)
        at = None
        for wanted in (2, 1):
            fitting = [i for i in window if places[i] == wanted]
            if fitting:
                at = min(fitting, key=lambda i: (abs(i - ideal), i))
                break
        else:
            at = max((i for i in range(start + 1, start + limit // 3) if places[i] > 0), default=None)
        if at is None:
            at = ideal
            while at > start + 1 and (places[at] < 0 or _within(sentence[at], _JOINED)):
                at -= 1
        yield _Piece(sentence[start:at], places[at] == 2)
        start, limit = at, longest
    yield _Piece(sentence[start:], True)


def _places(sentence: str) -> list[int]:
    """For every character whether a cut before it would be behind a clause (2), between words (1), within one (0), in a tag (-1).

    Within a word counts what stands behind an abbreviation's full stop, and between two numbers.
    """
    places = [0] * (len(sentence) + 1)
    solid = ""  # the last two characters that are no whitespace
    for i in range(1, len(sentence)):
        before, after = sentence[i - 1], sentence[i]
        solid = solid if before in _WHITE else (solid + before)[-2:]
        if before in _WIDE_CLAUSE:
            places[i] = 2
        elif before in _WHITE and after not in _WHITE and solid:
            last = solid[-1]
            if last in _CLAUSE or solid == "..":
                places[i] = 2
            elif last != "." and not ("0" <= last <= "9" and "0" <= after <= "9"):
                places[i] = 1
    for tag in _TAG.finditer(sentence):
        for i in range(tag.start() + 1, tag.end()):
            places[i] = -1
    return places


def _filled(pieces: Iterator[_Piece], split: Split, first: int) -> list[tuple[str, bool]]:
    """Pieces of a paragraph put together up to the limit, each with whether a reader pauses behind it."""
    groups: list[list[_Piece]] = []
    for piece in pieces:
        if groups:
            room = (first if len(groups) == 1 else split.longest) + (SLACK if _length(groups[-1]) < SHORT else 0)
            if _length([*groups[-1], piece]) <= room:
                groups[-1].append(piece)
                continue
        groups.append([piece])
    if len(groups) > 1 and _length(groups[-1]) < SHORT:
        room = (first if len(groups) == 2 else split.longest) + SLACK
        if _length(groups[-2] + groups[-1]) <= room:
            groups[-2:] = [groups[-2] + groups[-1]]
        elif len(groups[-2]) > 1 and _length([groups[-2][-1], *groups[-1]]) <= split.longest:
            groups[-1].insert(0, groups[-2].pop())
    return [("".join(piece.text for piece in group).strip(_WHITE), group[-1].pause) for group in groups]


def _length(pieces: list[_Piece]) -> int:
    return len("".join(piece.text for piece in pieces).strip(_WHITE))


def _within(character: str, ranges: list[tuple[int, int]]) -> bool:
    code = ord(character)
    return any(low <= code <= high for low, high in ranges)
