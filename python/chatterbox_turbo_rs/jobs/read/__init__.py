"""Documents as books: chapters of text, from plain text, Markdown and EPUB."""

from __future__ import annotations

from pathlib import Path

from ...audio.files import regular
from ...errors import ArgumentError, FileError, TextError
from . import plain
from .document import Book

KINDS = {"txt": "text", "text": "text", "md": "markdown", "markdown": "markdown", "epub": "epub"}
"""Ending of a name → what the file is."""


def read(path: Path) -> Book:
    """The book in a file, by its ending: ``.txt``, ``.md`` (``.text``, ``.markdown``) or ``.epub``.

    Raises ``ArgumentError`` for another ending, ``FileError`` when the file cannot be read, ``TextError`` when it is not what its
    name says or has nothing to speak, ``BackendError`` where a package that reads it is missing.
    """
    kind = KINDS.get(path.suffix.lower()[1:])
    if kind is None:
        raise ArgumentError(f"{path}: expected a name ending in {', '.join(f'.{name}' for name in KINDS)}, got {path.suffix!r}")
    regular(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from None
    return of_bytes(str(path), data, kind)


def of_bytes(name: str, data: bytes, kind: str) -> Book:
    """``read`` of a file's content; errors call it ``name``."""
    if kind == "epub":
        from . import epub

        book = epub.read(name, data)
    elif kind == "markdown":
        from . import markdown

        book = markdown.read(name, plain.decoded(name, data))
    else:
        book = plain.read(plain.decoded(name, data))
    if not book.chapters:
        raise TextError(f"{name}: expected words, found {len(data)} bytes without any")
    return book
