"""A long English text without an author: for measuring how books are spoken.

usage: make_book.py [--pages 100] [--seed 1] FILE.txt|FILE.md|FILE.epub     a page has 1,800 characters

Sentences are put together from the phrases below, paragraphs from sentences, chapters of about ten pages from paragraphs.
"""

from __future__ import annotations

import argparse
import random
import textwrap
import zipfile
from pathlib import Path

PAGE, CHAPTER = 1800, 18_000
"""Characters."""
WHO = "the miller|an old sailor|my sister|the keeper of the light|a boy with a red cap|the doctor|nobody in the village|the woman from the mill|our neighbour|the ferryman|a traveller|the schoolmaster".split(
    "|"
)
DID = "walked along the river|opened the window|waited by the gate|counted the boats|read the letter again|carried water from the well|looked at the sky|asked for bread and salt|wrote down the hour|mended the net|listened to the rain|sold the grey horse".split(
    "|"
)
WHEN = "in the evening|before the sun was up|when the bells had stopped|on the first day of autumn|after a long silence|at noon|that same night|in the middle of winter|as the fog came in|a week later|every morning|at the end of the road".split(
    "|"
)
WHY = "because the ice had come early|although it was late|so that no one would be left behind|while the others slept|as if nothing had happened|until the lamp went out|for the harbour was closed|and no one asked why|but the door stayed shut|since the bridge was gone".split(
    "|"
)
SAID = "I have seen that ship before|We should go home now|There is still some light left|You will need a warmer coat|It was never about the money|The river does not wait for anyone|Ask me again tomorrow|Someone has moved the boat".split(
    "|"
)
SPOKE = "said quietly|answered|called out|whispered|said at last|wanted to know".split("|")
PLACES = "Well|River|Lighthouse|Bridge|Harbour|Mill|Orchard|Road|Island|Ferry|Garden|Winter".split("|")


def sentence(draw: random.Random) -> str:
    """One sentence."""
    kind = draw.randrange(6)
    who, did, when, why = (draw.choice(phrases) for phrases in (WHO, DID, WHEN, WHY))
    if kind == 0:
        told = f"{who} {did} {when}."
    elif kind == 1:
        told = f"{when}, {who} {did}, {why}."
    elif kind == 2:
        told = f"{who} {did}, {why}."
    elif kind == 3:
        return f'"{draw.choice(SAID)}," {who} {draw.choice(SPOKE)}.'
    elif kind == 4:
        told = f"{when} {who} {did}; {draw.choice(WHO)} {draw.choice(DID)} {draw.choice(WHEN)}."
    else:
        told = f"did {who} know that {draw.choice(WHO)} {draw.choice(DID)}?"
    return told[0].upper() + told[1:]


def chapters(pages: int, seed: int) -> list[tuple[str, list[str]]]:
    """Titles and paragraphs: ``pages`` pages in all."""
    draw, left, found = random.Random(seed), pages * PAGE, []
    while left > 0:
        room, paragraphs = min(CHAPTER, left), list[str]()
        while room > 0:
            paragraphs.append(" ".join(sentence(draw) for _ in range(draw.randint(2, 8)))[: room + 100])
            room -= len(paragraphs[-1]) + 2
        left -= CHAPTER
        found.append((f"The {draw.choice(PLACES)}", paragraphs))
    return found


def as_text(book: list[tuple[str, list[str]]], mark: str) -> str:
    """Wrapped paragraphs; ``mark`` is what stands before a title, with the chapter's number in it."""
    blocks = []
    for number, (title, paragraphs) in enumerate(book, 1):
        blocks += [mark.format(number) + title, *(textwrap.fill(paragraph, 72) for paragraph in paragraphs)]
    return "\n\n".join(blocks) + "\n"


def as_epub(book: list[tuple[str, list[str]]], path: Path) -> None:
    """The smallest EPUB 3."""
    html = '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops"><head><title>{0}</title></head><body>{1}</body></html>'
    names = [f"{number:03}.xhtml" for number in range(1, len(book) + 1)]
    items = "".join(f'<item id="c{name[:3]}" href="{name}" media-type="application/xhtml+xml"/>' for name in names)
    spine = "".join(f'<itemref idref="c{name[:3]}"/>' for name in names)
    links = "".join(f'<li><a href="{name}">{title}</a></li>' for name, (title, _) in zip(names, book, strict=True))
    files = {
        "META-INF/container.xml": '<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>',
        "book.opf": '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="i"><metadata '
        'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:identifier id="i">urn:x-made:book</dc:identifier><dc:title>The Long Road</dc:title>'
        "<dc:creator>Nobody</dc:creator><dc:language>en</dc:language></metadata><manifest>"
        f'<item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>{items}</manifest><spine>{spine}</spine></package>',
        "nav.xhtml": html.format("Contents", f'<nav epub:type="toc"><ol>{links}</ol></nav>'),
    }
    for name, (title, paragraphs) in zip(names, book, strict=True):
        files[name] = html.format(title, f"<h1>{title}</h1>" + "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)
        for name, content in files.items():
            archive.writestr(name, content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--pages", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    book = chapters(arguments.pages, arguments.seed)
    if arguments.file.suffix == ".epub":
        as_epub(book, arguments.file)
    else:
        arguments.file.write_text(as_text(book, "# " if arguments.file.suffix == ".md" else "CHAPTER {}. "), "utf-8")


if __name__ == "__main__":
    main()
