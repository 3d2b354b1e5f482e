"""Small books, and jobs that speak them with the toy: what the tests of ``jobs/`` share."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from chatterbox_turbo_rs import ChatterboxTurbo, Split
from chatterbox_turbo_rs.jobs.job import Job, Report
from chatterbox_turbo_rs.jobs.local import How, Local, arguments_of
from chatterbox_turbo_rs.jobs.make import Made, make
from chatterbox_turbo_rs.jobs.parts import Store
from chatterbox_turbo_rs.jobs.plan import Plan
from chatterbox_turbo_rs.jobs.read import of_bytes
from chatterbox_turbo_rs.options import GenerationOptions

TEXT = """CHAPTER I. The Well

It was late. Nobody had come, and nobody would.

"Do you hear it?" she said.

* * *

Nobody did.

CHAPTER II. The Road

The next day it rained. [pause 0.3s] We went on all the same.
"""
OPTIONS = GenerationOptions(seed=5, max_tokens=12, split=Split(attempts=1, longest=60, first=40))
PAUSE = 0.5


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


def job_of(tts: ChatterboxTurbo, folder: Path, text: str = TEXT, options: GenerationOptions = OPTIONS) -> Job:
    assert tts.builtin_voice is not None
    book = of_bytes("book", text.encode(), "text")
    return Job(Plan(book, options, tts.fingerprint, tts.builtin_voice.fingerprint), Store(folder))


def spoken(
    tts: ChatterboxTurbo,
    output: Path,
    text: str = TEXT,
    options: GenerationOptions = OPTIONS,
    batch: int = 4,
    report: Report = silent,
    subtitles: Path | None = None,
) -> Made:
    """Speaks a text into ``output``, with the parts beside it."""
    book = of_bytes("book", text.encode(), "text")
    job = job_of(tts, output.with_name(f"{output.name}.parts"), text, options)
    speaker = Local(tts, How({}, None, None, arguments_of(options), batch))
    with job.store.alone():
        return make(job, book, output, speaker, pause=PAUSE, subtitles=subtitles, report=report, about={"book": "a"})


CONTAINER = """<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0">
<rootfiles><rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""


def opf(items: Mapping[str, str], spine: list[str], more: str = "", of_spine: str = "") -> str:
    """A package document: ids → attributes of the manifest, and the ids of the spine."""
    manifest = "".join(f'<item id="{key}" {attributes}/>' for key, attributes in items.items())
    refs = "".join(f'<itemref idref="{key}"/>' for key in spine)
    return f"""<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>The Well</dc:title><dc:creator>A. Nobody</dc:creator>
<dc:language>en</dc:language></metadata><manifest>{manifest}{more}</manifest><spine {of_spine}>{refs}</spine></package>"""


def page(body: str) -> str:
    """An XHTML page."""
    head = '<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops"><head><title/><style>p{}</style></head>'
    return f'<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html>{head}<body>{body}</body></html>'


def epub(files: Mapping[str, str | bytes]) -> bytes:
    """An EPUB of these files beside the container."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)
        for name, content in {"META-INF/container.xml": CONTAINER, **files}.items():
            archive.writestr(name, content)
    return buffer.getvalue()


XHTML = 'media-type="application/xhtml+xml"'
EPUB3 = {
    "OEBPS/book.opf": opf(
        {
            "nav": f'href="nav.xhtml" properties="nav" {XHTML}',
            "cover": f'href="cover.xhtml" {XHTML}',
            "one": f'href="text/one.xhtml" {XHTML}',
            "more": f'href="text/one%20more.xhtml" {XHTML}',
            "two": f'href="text/two.xhtml" {XHTML}',
        },
        ["cover", "nav", "one", "more", "two"],
    ),
    "OEBPS/nav.xhtml": page(
        '<nav epub:type="toc"><ol><li><a href="text/one.xhtml">The Well</a></li><li><a href="text/two.xhtml#a">The Road</a>'
        '<ol><li><a href="text/two.xhtml#b">The Rain</a></li></ol></li></ol></nav>'
        '<nav epub:type="landmarks"><ol><li><a href="cover.xhtml">Cover</a></li></ol></nav>'
    ),
    "OEBPS/cover.xhtml": page('<img src="cover.jpg" alt="A well"/>'),
    "OEBPS/text/one.xhtml": page(
        "<h1>I</h1><p>It was late&nbsp;&mdash; nobody\n had <i>come</i>.<a epub:type='noteref' href='#n'>1</a></p><hr/><p>She waited.</p>"
        "<aside epub:type='footnote' id='n'>A note.</aside><script>no()</script>"
    ),
    "OEBPS/text/one more.xhtml": page("<div><p>The other page.</p><pre>x = 1</pre></div>"),
    "OEBPS/text/two.xhtml": page(
        "<p id='a' class='title'>The road</p><p>It rained.<br/>All day.</p><h3 id='b'>The Rain</h3><p>It went on.</p><table><tr><td>Two</td><td>three</td></tr></table>"
    ),
}
