"""Text, Markdown and EPUB as chapters of what is spoken; and what is none of these, in one line."""

from __future__ import annotations

import pytest
from books import EPUB3, TEXT, XHTML, epub, opf, page

from chatterbox_turbo_rs.errors import ArgumentError, FileError, TextError
from chatterbox_turbo_rs.jobs.read import of_bytes, read
from chatterbox_turbo_rs.jobs.read.document import BREAK, HEADING_PAUSE

P, B = HEADING_PAUSE, BREAK


def chapters(data: bytes | str, kind: str = "text") -> list[tuple[str, str]]:
    book = of_bytes("book", data if isinstance(data, bytes) else data.encode(), kind)
    return [(chapter.title, chapter.text) for chapter in book.chapters]


def test_a_text_has_chapters_where_a_line_of_its_own_says_so():
    assert chapters(TEXT) == [
        (
            "CHAPTER I. The Well",
            f'CHAPTER I. The Well\n{P}\nIt was late. Nobody had come, and nobody would.\n"Do you hear it?" she said.\n{B}\nNobody did.',
        ),
        ("CHAPTER II. The Road", f"CHAPTER II. The Road\n{P}\nThe next day it rained. [pause 0.3s] We went on all the same."),
    ]


@pytest.mark.parametrize("ends", ["\r\n", "\r", "\n"])
def test_ends_of_lines_and_a_byte_order_mark_do_not_matter(ends):
    assert chapters(b"\xef\xbb\xbf" + TEXT.replace("\n", ends).encode()) == chapters(TEXT)


def test_headings_that_follow_each_other_are_one_chapter_and_prose_is_no_heading():
    text = "Part One\n\nChapter 1\nThe Sea\n\nChapter two was late, he said.\n\nPrologue was the word.\n\nEPILOGUE\n\nOver."
    assert [title for title, _ in chapters(text)] == ["Part One. Chapter 1 The Sea", "EPILOGUE"]
    assert "Chapter two was late, he said." in chapters(text)[0][1]


def test_wrapped_lines_are_put_together_and_verse_is_not():
    prose = "It was late in the evening when we came to the well of\nMr. Bennet, and nobody had been there since the days of\nSpring.\n\n"
    verse = "The rain,\nThe road,\nThe end.\n"
    [(_, text)] = chapters(prose * 3 + verse)
    assert text.split("\n")[0].endswith("since the days of Spring.") and len(text.split("\n")) == 6
    [(_, text)] = chapters("One line.\nAnother line.\nA third one.\nAnd a last.")
    assert text.count("\n") == 3


def test_a_text_without_headings_is_one_chapter_of_what_it_says():
    assert chapters("Just this.") == [("", "Just this.")]


MARKDOWN = """---
title: "The Well"
author: A. Nobody
lang: en
---
# The Well

## One

It was *late*, and `nobody` came
to [the well](https://example.org).

- First
- Second

```python
print("silence")
```

### Deeper

***

Text.

## Two

> She said so.
"""


def test_markdown_has_chapters_at_its_headings():
    book = of_bytes("book.md", MARKDOWN.encode(), "markdown")
    assert (book.title, book.author, book.language) == ("The Well", "A. Nobody", "en")
    assert [(c.title, c.text) for c in book.chapters] == [
        (
            "The Well. One",
            f"The Well\n{P}\nOne\n{P}\nIt was late, and nobody came to the well.\nFirst\nSecond\nDeeper\n{B}\nText.",
        ),
        ("Two", f"Two\n{P}\nShe said so."),
    ]


def test_markdown_without_a_head_is_called_by_its_only_first_heading():
    assert of_bytes("x", b"# Alone\n\nWords.", "markdown").title == "Alone"
    assert of_bytes("x", b"# One\n\nWords.\n\n# Two\n\nWords.", "markdown").title == ""


def test_an_epub_has_chapters_where_its_table_of_contents_points():
    book = of_bytes("book.epub", epub(EPUB3), "epub")
    assert (book.title, book.author, book.language) == ("The Well", "A. Nobody", "en")
    assert [(c.title, c.text) for c in book.chapters] == [
        ("The Well", f"I\n{P}\nIt was late — nobody had come.\n{B}\nShe waited.\nThe other page."),
        ("The Road", f"The Road\n{P}\nIt rained.\nAll day."),
        ("The Rain", f"The Rain\n{P}\nIt went on.\nTwo, three,"),
    ]


def test_an_epub_of_version_2_has_its_ncx():
    ncx = (
        '<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/"><navMap><navPoint><navLabel><text>First</text></navLabel><content src="one.html"/>'
        "</navPoint></navMap></ncx>"
    )
    files = {
        "OEBPS/book.opf": opf(
            {"ncx": 'href="toc.ncx" media-type="application/x-dtbncx+xml"', "one": f'href="one.html" {XHTML}'},
            ["one"],
            "",
            'toc="ncx"',
        ),
        "OEBPS/toc.ncx": ncx,
        "OEBPS/one.html": page("<p>Words.</p>"),
    }
    assert chapters(epub(files), "epub") == [("First", f"First\n{P}\nWords.")]


def test_an_epub_without_a_table_of_contents_has_its_pages_by_their_headings():
    files = {
        "OEBPS/book.opf": opf({"one": f'href="one.html" {XHTML}', "two": f'href="two.html" {XHTML}'}, ["one", "two"]),
        "OEBPS/one.html": page("<h2>First</h2><p>Words.</p>"),
        "OEBPS/two.html": "<html><body><p>Not <b>well-formed</p><p>at all&nbsp;&eacute;</body>",
    }
    assert chapters(epub(files), "epub") == [("First", f"First\n{P}\nWords."), ("", "Not well-formed\nat all é")]


def without(name: str) -> dict[str, str | bytes]:
    return {key: value for key, value in EPUB3.items() if key != name}


LOCKED = """<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container" xmlns:enc="http://www.w3.org/2001/04/xmlenc#"><enc:EncryptedData>
<enc:EncryptionMethod Algorithm="{}"/></enc:EncryptedData></encryption>"""
LAUGHS = (
    '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "'
    + "&a;" * 1000
    + '"><!ENTITY c "'
    + "&b;" * 1000
    + '">]><html><body><p>Words &c;</p></body></html>'
)
ONE = {"OEBPS/book.opf": opf({"one": f'href="one.html" {XHTML}'}, ["one"])}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not an EPUB"),
        (b"PK\x03\x04 and no more", "not an EPUB"),
        (epub(EPUB3)[:-40], "not an EPUB"),
        (epub({"META-INF/container.xml": "<container>"}), "container.xml: not well-formed"),
        (epub({"META-INF/container.xml": "<container/>"}), "names no package"),
        (epub(without("OEBPS/book.opf")), "expected OEBPS/book.opf in it, found none"),
        (epub(without("OEBPS/text/two.xhtml")), "expected OEBPS/text/two.xhtml in it"),
        (epub({"OEBPS/book.opf": opf({}, [])}), "names no pages in its spine"),
        (epub(EPUB3 | {"META-INF/encryption.xml": LOCKED.format("http://www.w3.org/2001/04/xmlenc#aes256-cbc")}), "under a lock"),
        (epub(ONE | {"OEBPS/one.html": page("<p>…</p>")}), "expected words"),
        (epub(ONE | {"OEBPS/one.html": b""}), "not a page"),
        (epub(ONE | {"OEBPS/one.html": b" " * (33 << 20)}), "unpacks to more"),
    ],
)
def test_broken_epubs_are_told_in_a_line(data, says):
    with pytest.raises(TextError, match=says) as error:
        of_bytes("book.epub", data, "epub")
    assert str(error.value).startswith("book.epub") and "\n" not in str(error.value)


def test_fonts_may_be_hidden_and_entities_are_not_multiplied():
    hidden = LOCKED.format("http://www.idpf.org/2008/embedding")
    assert len(chapters(epub(EPUB3 | {"META-INF/encryption.xml": hidden}), "epub")) == 3
    assert len(chapters(epub(ONE | {"OEBPS/one.html": LAUGHS}), "epub")[0][1]) < 100


def test_a_damaged_page_is_named():
    data = bytearray(epub(ONE | {"OEBPS/one.html": page("<p>" + "Words and more words. " * 40 + "</p>")}))
    at = data.index(b"OEBPS/one.html") + 60
    data[at : at + 8] = bytes(byte ^ 255 for byte in data[at : at + 8])
    with pytest.raises(TextError, match="book.epub: OEBPS/one.html: damaged"):
        of_bytes("book.epub", bytes(data), "epub")


@pytest.mark.parametrize("deep", [300, 1500, 5000])
def test_of_pages_nested_deep_no_word_is_lost(deep):
    nested = page("<p>First.</p>" + "<div>" * deep + "Words." + "</div>" * deep + "<p>Last.</p>")
    try:
        [(_, text)] = chapters(epub(ONE | {"OEBPS/one.html": nested}), "epub")
    except TextError as error:
        assert deep > 2000 and "one.html: not a page: Excessive depth" in str(error)  # libxml2 gives up at a depth of its own
    else:
        assert text == "First.\nWords.\nLast."


@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-1", "utf-16", "shift_jis", "undefined", "idna"])
def test_entities_are_read_whatever_a_page_is_written_in(encoding):
    text = f'<?xml version="1.0" encoding="{encoding}"?><html><body><p>Words&hellip; &amp;&nbsp;more &LT; &mdash; none.</p></body></html>'
    files = ONE | {"OEBPS/one.html": text.encode("ascii" if encoding in ("undefined", "idna") else encoding)}
    if encoding == "idna":  # known to Python, and not to libxml2
        with pytest.raises(TextError, match=r"one\.html: not a page"):
            chapters(epub(files), "epub")
    else:
        assert chapters(epub(files), "epub") == [("", "Words… & more < — none.")]


@pytest.mark.parametrize("damage", [b"x", b"\x00\xd8"])
def test_damaged_utf_16_is_no_defect(damage):
    data = "<html><body><p>Words&hellip;</p></body></html>".encode("utf-16") + damage
    assert chapters(epub(ONE | {"OEBPS/one.html": data}), "epub") == [("", "Words…")]


@pytest.mark.parametrize(
    ("name", "data", "error", "says"),
    [
        ("a.txt", b"", TextError, "expected words, found 0 bytes"),
        ("a.txt", b"\n * * * \n", TextError, "expected words"),
        ("a.txt", "Grüße".encode("latin-1"), TextError, "expected UTF-8, found byte 0xfc at 2"),
        ("a.txt", "Words.".encode("utf-16"), TextError, "expected UTF-8, found byte 0xff at 0"),
        ("a.md", b"```\nx\n```\n", TextError, "expected words"),
        ("a.pdf", b"%PDF", ArgumentError, "expected a name ending in .txt"),
    ],
)
def test_files_that_are_no_books(tmp_path, name, data, error, says):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(error, match=says):
        read(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileError, match="No such file"):
        read(tmp_path / "none.txt")
