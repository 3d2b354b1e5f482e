"""XHTML and HTML as blocks of text, for Markdown and EPUB. Parsed by lxml, with entities and the network switched off."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from typing import Any

from ...errors import BackendError, TextError
from .document import BREAK, one_line

_BLOCKS = set(
    "address article aside blockquote body caption center dd details div dl dt fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 "
    "header hr html legend li main nav ol p pre section summary table tbody tfoot thead tr ul".split()
)
_SILENT = set(
    "audio button canvas embed head iframe img input map math noscript object pre rp rt script select style svg template textarea video".split()
)
"""Elements that nobody reads aloud. ``pre`` is program text, ``rt`` the reading beside a character that is spoken anyway."""
_SILENT_TYPES = {
    "noteref",
    "footnote",
    "endnote",
    "footnotes",
    "endnotes",
    "rearnote",
    "rearnotes",
    "pagebreak",
    "page-list",
    "landmarks",
    "index",
}
"""The same by ``epub:type``: what leads away from the text or stands aside of it."""
_SILENT_ROLES = {f"doc-{name}" for name in _SILENT_TYPES}
_EPUB_TYPE = "{http://www.idpf.org/2007/ops}type"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_ENTITY = re.compile(r"&(?!(?:amp|lt|gt|quot|apos);)([A-Za-z][A-Za-z0-9]{1,31});")


@dataclass(frozen=True)
class Block:
    """A paragraph, a heading of a ``level`` 1 to 6 (0: none), or ``BREAK``."""

    text: str
    level: int = 0


@dataclass
class Page:
    """The blocks of a page, and before which of them each element with an id stands."""

    blocks: list[Block] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)


def etree() -> Any:
    """lxml's module. Raises ``BackendError`` where it is not installed."""
    try:
        from lxml import etree
    except ImportError as error:
        raise BackendError(
            f"lxml, which reads EPUB and Markdown, is missing ({error}); pip install 'chatterbox-turbo-rs[book]'"
        ) from None
    return etree


def xml(name: str, data: bytes) -> Any:
    """The root of an XML document. Raises ``TextError`` that calls it ``name``."""
    lxml = etree()
    parser = lxml.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
    )
    try:
        return lxml.fromstring(data, parser)
    except (lxml.XMLSyntaxError, ValueError) as error:
        raise TextError(f"{name}: not well-formed XML: {error}") from None


def page(name: str, data: bytes) -> Page:
    """The blocks of an XHTML page; what is not well-formed is read as HTML. Raises ``TextError`` for what is neither."""
    lxml = etree()
    try:
        root = xml(name, _named_entities(data))
    except TextError:
        try:
            parser = lxml.HTMLParser(
                no_network=True, remove_comments=True, remove_pis=True, huge_tree=True, encoding=_encoding(data)
            )
            root = lxml.fromstring(data, parser)
        except (lxml.ParserError, lxml.XMLSyntaxError, LookupError, ValueError) as error:
            raise TextError(f"{name}: not a page: {error}") from None
        for fault in parser.error_log:  # what comes behind it would be left out without a word
            if fault.type_name == "ERR_RESOURCE_LIMIT":
                raise TextError(f"{name}: not a page: {fault.message}") from None
    if root is None:
        raise TextError(f"{name}: not a page: it is empty")
    walk = _Walk()
    walk.element(root)
    walk.flush()
    return walk.page


def local(element: Any) -> str:
    """The element's name without its namespace; empty for comments and the like."""
    return element.tag.rpartition("}")[2].lower() if isinstance(element.tag, str) else ""


def words(element: Any) -> str:
    """All text inside an element, on one line."""
    return one_line("".join(element.itertext()))


def types(element: Any) -> set[str]:
    """What ``epub:type`` and ``role`` say of an element."""
    return set(f"{element.get(_EPUB_TYPE) or element.get('epub:type') or ''} {element.get('role') or ''}".lower().split())


def _named_entities(data: bytes) -> bytes:
    """``&nbsp;`` and its like as numbers: XML without its DTD does not know them."""
    if data[:2] in _UTF_16:
        return _ENTITY.sub(_numbered, data.decode("utf-16", "replace")).encode("utf-16")
    return _ENTITY.sub(_numbered, data.decode("latin-1")).encode("latin-1")  # any encoding that has ASCII in it, left as it is


def _numbered(entity: re.Match[str]) -> str:
    """By its characters' numbers, which every encoding can write; one that nobody knows stays."""
    found = html.unescape(entity[0])
    return entity[0] if found == entity[0] else "".join(f"&#{ord(character)};" for character in found)


def _encoding(data: bytes) -> str:
    if data[:2] in _UTF_16:
        return "utf-16"
    said = re.match(rb"\s*<\?xml[^>]*encoding=[\"']([A-Za-z0-9._-]+)[\"']", data.removeprefix(b"\xef\xbb\xbf")[:200])
    try:
        name = said[1].decode() if said else "utf-8"
        "".encode(name)
        return name
    except (LookupError, UnicodeError):
        return "utf-8"


class _Walk:
    """Goes through a tree, without recursion: a page may be nested deeper than Python's stack."""

    def __init__(self) -> None:
        self.page = Page()
        self._text: list[str] = []
        self._level = 0

    def element(self, root: Any) -> None:
        stack: list[tuple[str, Any]] = [("enter", root)]
        while stack:
            step, element = stack.pop()
            if step == "text":
                self._text.append(re.sub(r"\s+", " ", element))
                continue
            if step == "leave":
                self._leave(element)
                continue
            name = local(element)
            if (
                not name
                or name in _SILENT
                or element.get("hidden") is not None
                or types(element) & (_SILENT_TYPES | _SILENT_ROLES)
            ):
                continue
            self._enter(element, name)
            stack.append(("leave", name))
            for child in reversed(list(element)):
                if child.tail:
                    stack.append(("text", child.tail))
                stack.append(("enter", child))
            if element.text:
                stack.append(("text", element.text))

    def flush(self) -> None:
        """Ends the paragraph that is open."""
        text = "\n".join(filter(None, (one_line(line) for line in "".join(self._text).split("\n"))))
        self._text.clear()
        if text:
            self.page.blocks.append(Block(text if not self._level else one_line(text), self._level))

    def _enter(self, element: Any, name: str) -> None:
        if name in _BLOCKS:
            self.flush()
        if re.fullmatch("h[1-6]", name):
            self._level = int(name[1])
        for anchor in (element.get("id"), element.get("name") if name == "a" else None):
            if anchor:
                self.page.ids.setdefault(anchor, len(self.page.blocks))

    def _leave(self, name: str) -> None:
        if name in _BLOCKS:
            self.flush()
            self._level = 0 if re.fullmatch("h[1-6]", name) else self._level
        if name == "hr":
            self.page.blocks.append(Block(BREAK))
        elif name == "br":
            self._text.append("\n")
        elif name in ("td", "th"):
            self._text.append(", ")
