"""Markdown (CommonMark and tables, by markdown-it-py): chapters begin at headings."""

from __future__ import annotations

import re
from collections import Counter

from ...errors import BackendError
from . import markup
from .document import Book, Chapter, book, chapter
from .markup import Block

_FRONT_MATTER = re.compile(r"\A---[^\S\n]*\n(.*?\n)?(?:---|\.\.\.)[^\S\n]*\n", re.DOTALL)
_FIELD = re.compile(r"^(title|author|lang|language):[^\S\n]*[\"']?(.*?)[\"']?[^\S\n]*$", re.MULTILINE | re.IGNORECASE)


def read(name: str, text: str) -> Book:
    """The book in a Markdown text. ``title``, ``author`` and ``lang`` of a YAML head are its own; program text is left out."""
    try:
        from markdown_it import MarkdownIt
    except ImportError as error:
        reason = f"markdown-it-py, which reads Markdown, is missing ({error})"
        raise BackendError(f"{reason}; pip install 'chatterbox-turbo-rs[book]'") from None
    text = re.sub(r"\r\n?", "\n", text)
    head = _FRONT_MATTER.match(text)
    told = {key.lower(): value for key, value in _FIELD.findall(head[1] or "")} if head else {}
    rendered = MarkdownIt("commonmark").enable("table").render(text[head.end() :] if head else text)
    blocks = markup.page(name, f"<html><body>{rendered}</body></html>".encode()).blocks
    title = told.get("title") or _only_title(blocks)
    return book(by_headings(blocks), title, told.get("author", ""), told.get("lang") or told.get("language", ""))


def _only_title(blocks: list[Block]) -> str:
    first = blocks[0] if blocks else Block("")
    return first.text if first.level == 1 and [block.level for block in blocks].count(1) == 1 else ""


def by_headings(blocks: list[Block]) -> list[Chapter]:
    """Chapters at every heading of the highest level that there are two of, and of those above; lower ones are paragraphs."""
    counted = Counter(block.level for block in blocks if block.level)
    level = min((key for key, count in counted.items() if count > 1), default=min(counted, default=0))
    found: list[Chapter] = []
    headings: list[str] = []
    body: list[Block] = []
    for block in blocks:
        if 0 < block.level <= level:
            if body:
                found.append(of_blocks("", headings, body))
                headings, body = [], []
            headings.append(block.text)
        else:
            body.append(block)
    return [*found, of_blocks("", headings, body)]


def of_blocks(title: str, headings: list[str], body: list[Block]) -> Chapter:
    """The chapter of these headings, named by them unless there is a ``title``."""
    return chapter(title or ". ".join(heading.rstrip(".") for heading in headings), headings, [block.text for block in body])
