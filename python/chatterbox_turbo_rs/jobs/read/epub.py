"""EPUB 2 and 3: the spine's pages in order, chapters where the table of contents points (https://www.w3.org/TR/epub-33/).

Read with zipfile and lxml. Nothing is written to disk, nothing is fetched, and what unpacks to more than a book holds is refused.
"""

from __future__ import annotations

import io
import posixpath
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from ...errors import TextError
from . import markup
from .document import Book, Chapter, book, one_line
from .markdown import by_headings, of_blocks
from .markup import Block, Page

LARGEST_PAGE, LARGEST_BOOK = 32 << 20, 256 << 20
"""Bytes of a page, and of all pages, unpacked."""
DEEPEST = 2
"""Levels of the table of contents that are chapters; deeper entries belong to the one above."""
_FONTS = {"http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC"}
"""Methods of encryption.xml that only hide fonts."""
_PAGES = {"application/xhtml+xml", "text/html", "application/x-dtbook+xml"}


@dataclass(frozen=True)
class Entry:
    """A line of the table of contents: the page's path in the archive and the id in it, or an empty one for its beginning."""

    title: str
    path: str
    anchor: str


class Archive:
    """The files of an EPUB. Raises ``TextError`` that calls the book ``name`` for everything that is wrong with it."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name, self._left = name, LARGEST_BOOK
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, OSError) as error:
            raise TextError(f"{name}: not an EPUB: {error}") from None
        self._names = set(self._zip.namelist())

    def __contains__(self, path: str) -> bool:
        return path in self._names

    def read(self, path: str) -> bytes:
        """A file's content."""
        if path not in self._names:
            raise TextError(f"{self.name}: damaged: expected {path} in it, found none")
        most = min(LARGEST_PAGE, self._left)
        try:
            with self._zip.open(path) as file:
                data = file.read(most + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
            raise TextError(f"{self.name}: {path}: damaged: {error}") from None
        if len(data) > most:
            raise TextError(f"{self.name}: {path}: expected at most {most} bytes, unpacks to more")
        self._left -= len(data)
        return data

    def xml(self, path: str) -> Any:
        return markup.xml(f"{self.name}: {path}", self.read(path))


def read(name: str, data: bytes) -> Book:
    """The book in an EPUB's bytes. Raises ``TextError``, ``BackendError`` without lxml."""
    markup.etree()
    archive = Archive(name, data)
    _refuse_locked(archive)
    roots = [item.get("full-path") for item in _all(archive.xml("META-INF/container.xml"), "rootfile")]
    if not roots or not roots[0]:
        raise TextError(f"{name}: damaged: META-INF/container.xml names no package")
    package = roots[0]
    opf = archive.xml(package)
    items = {str(item.get("id")): item for item in _all(opf, "item") if item.get("href")}
    spine = [
        (_joined(package, items[ref.get("idref")].get("href"))[0], items[ref.get("idref")])
        for ref in _all(opf, "itemref")
        if ref.get("idref") in items and ref.get("linear") != "no"
    ]
    paths = [
        path
        for path, item in spine
        if (item.get("media-type") in _PAGES or not item.get("media-type"))
        and "nav" not in (item.get("properties") or "").split()
    ]
    if not paths:
        raise TextError(f"{name}: damaged: {package} names no pages in its spine")
    pages = {path: markup.page(f"{name}: {path}", archive.read(path)) for path in dict.fromkeys(paths)}
    told = {tag: next((markup.words(element) for element in _all(opf, tag)), "") for tag in ("title", "creator", "language")}
    entries = list(_contents(archive, package, opf, items))
    return book(_chapters(pages, entries), told["title"], told["creator"], told["language"])


def _all(root: Any, name: str) -> Iterator[Any]:
    return (element for element in root.iter() if markup.local(element) == name)


def _joined(base: str, href: str) -> tuple[str, str]:
    """Where in the archive ``href`` points that stands in the file ``base``, and the id behind it."""
    path, _, anchor = href.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(base), unquote(path))) if path else base
    return path, unquote(anchor)


def _refuse_locked(archive: Archive) -> None:
    """A book under a lock (DRM) has pages that nobody can read."""
    if "META-INF/encryption.xml" not in archive:
        return
    for method in _all(archive.xml("META-INF/encryption.xml"), "encryptionmethod"):
        parent = method.getparent()
        of_data = parent is not None and markup.local(parent) == "encrypteddata"
        if of_data and method.get("Algorithm") not in _FONTS:
            raise TextError(f"{archive.name}: expected a book that is not encrypted, found one under a lock (DRM)")


def _contents(archive: Archive, package: str, opf: Any, items: dict[str, Any]) -> Iterator[Entry]:
    """The table of contents: EPUB 3's navigation page, else EPUB 2's NCX. One that is missing or damaged counts as none."""
    navigation = next((item for item in items.values() if "nav" in (item.get("properties") or "").split()), None)
    ncx = next((item for item in items.values() if item.get("media-type") == "application/x-dtbncx+xml"), None)
    for item, of in ((navigation, _of_navigation), (ncx, _of_ncx)):
        if item is None:
            continue
        path = _joined(package, item.get("href"))[0]
        try:
            found = [Entry(title, *_joined(path, href)) for title, href in of(archive.xml(path)) if title and href]
        except TextError:
            continue
        if found:
            yield from found
            return


def _of_navigation(root: Any) -> Iterator[tuple[str, str]]:
    for nav in _all(root, "nav"):
        if markup.types(nav) & {"toc", "doc-toc"}:
            for link in _all(nav, "a"):
                if sum(markup.local(above) == "ol" for above in link.iterancestors()) <= DEEPEST:
                    yield markup.words(link), link.get("href") or ""


def _of_ncx(root: Any) -> Iterator[tuple[str, str]]:
    for point in _all(root, "navpoint"):
        if sum(markup.local(above) == "navpoint" for above in point.iterancestors()) < DEEPEST:
            label = next((markup.words(child) for child in point if markup.local(child) == "navlabel"), "")
            source = next((child.get("src") for child in point if markup.local(child) == "content"), "")
            yield label, source or ""


def _chapters(pages: dict[str, Page], entries: list[Entry]) -> list[Chapter]:
    """The spine's blocks cut where the table of contents points; without one, each page by its headings."""
    starts: dict[tuple[str, int], str] = {}
    for entry in entries:
        if entry.path in pages:
            at = (entry.path, pages[entry.path].ids.get(entry.anchor, 0))
            starts[at] = f"{starts[at].rstrip('.')}. {entry.title}" if at in starts else entry.title
    if not starts:
        return [chapter for page in pages.values() for chapter in by_headings(page.blocks)]
    found: list[Chapter] = []
    title, blocks = "", list[Block]()
    for path, page in pages.items():
        for number, block in enumerate(page.blocks):
            if (path, number) in starts:
                found.append(_chapter(title, blocks))
                title, blocks = starts[path, number], []
            blocks.append(block)
    return [*found, _chapter(title, blocks)]


def _chapter(title: str, blocks: list[Block]) -> Chapter:
    """Its own headings are spoken first; where the page has none, the title of the table of contents is."""
    count = next((i for i, block in enumerate(blocks) if not block.level), len(blocks))
    headings, body = [block.text for block in blocks[:count]], blocks[count:]
    if not headings and title:
        headings = [title]
        if body and _plain(body[0].text) == _plain(title):
            body = body[1:]
    return of_blocks(title, headings, body)


def _plain(text: str) -> str:
    return "".join(character for character in one_line(text).casefold() if character.isalnum())
