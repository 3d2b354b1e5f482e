"""The HTML report in a real browser: on a phone and on a wide screen, in light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
import synthetic_report

from chatterbox_turbo_rs.parity.report import html

CHROMIUM = browser.find()
pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="no Chromium found (on a POSIX system); install it (Debian: apt-get install chromium) or name it in CHROMIUM",
)
VIEWS = [(1280, False), (1280, True), (390, False), (390, True)]
OPEN_ALL = "document.querySelectorAll('details').forEach((details) => { details.open = true; })"
# Every element that has text of its own, with its contrast against the nearest background that is painted.
CONTRAST = """(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.getClientRects().length || ["SCRIPT", "STYLE"].includes(element.tagName)) continue;
    let behind = element, colour = [0, 0, 0, 0];
    for (; behind && (colour = parse(getComputedStyle(behind).backgroundColor), colour.length === 4 && colour[3] === 0); behind = behind.parentElement);
    const [a, b] = [light(parse(getComputedStyle(element).color).slice(0, 3)), light(colour.slice(0, 3))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push([element.tagName, element.className, element.textContent.slice(0, 30), ratio]);
  }
  return found;
})()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    with browser.page(str(CHROMIUM), tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module", params=["passing", "failing", "hostile"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    title = synthetic_report.HOSTILE if request.param == "hostile" else "plain"
    path = tmp_path_factory.mktemp("report") / f"{request.param}.html"
    path.write_text(html(getattr(synthetic_report, request.param)(), synthetic_report.plots(title)), encoding="utf-8")
    return path


@pytest.mark.parametrize(("width", "dark"), VIEWS)
def test_nothing_is_wider_than_the_page(page: browser.Page, file: Path, width: int, dark: bool) -> None:
    page.open(file, width, dark=dark)
    for expression in ("0", OPEN_ALL):
        page.run(expression)
        assert page.run("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
    # What is wider scrolls in a box of its own, which takes the focus.
    wide = """[...document.querySelectorAll("main *")].filter((e) => e.scrollWidth > e.clientWidth + 1 && e.clientWidth
        && ["auto", "scroll"].includes(getComputedStyle(e).overflowX)).map((e) => [e.className, e.tabIndex])"""
    assert all(found == ["scroll", 0] for found in page.run(wide))


@pytest.mark.parametrize(("width", "dark"), VIEWS)
def test_the_browser_reports_no_error_and_no_request(page: browser.Page, file: Path, width: int, dark: bool) -> None:
    page.open(file, width, dark=dark)
    page.run(OPEN_ALL)
    errors = [e for e in page.events if e["method"] in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")]
    assert not errors
    urls = [e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in urls if not url.startswith("data:")] == [file.as_uri()]


def test_every_picture_is_decoded(page: browser.Page, file: Path) -> None:
    page.open(file, 1280)
    sizes = page.run("Promise.all([...document.images].map((i) => i.decode().then(() => [i.naturalWidth, i.naturalHeight])))")
    assert len(sizes) > 10 and [120, 80] in sizes
    assert all(width > 0 and height > 0 for width, height in sizes)


@pytest.mark.parametrize(("width", "dark"), VIEWS)
def test_the_screenshot_is_not_blank(page: browser.Page, file: Path, width: int, dark: bool) -> None:
    page.open(file, width, dark=dark)
    # The browser itself decodes the screenshot: how many colours there are, and the background.
    count = """(async (data) => {
        const image = await createImageBitmap(await (await fetch(data)).blob());
        const canvas = new OffscreenCanvas(image.width, image.height), context = canvas.getContext("2d");
        context.drawImage(image, 0, 0);
        const pixels = new Uint32Array(context.getImageData(0, 0, image.width, image.height).data.buffer);
        return [image.width, new Set(pixels).size, pixels[0] & 255];
    })"""
    shot = page.screenshot()
    page.call("Page.navigate", url="about:blank")
    found, colours, corner = page.run(f"{count}('data:image/png;base64,{browser.base64.b64encode(shot).decode()}')")
    assert found == width and colours > 50
    assert corner < 64 if dark else corner > 192, "the colour scheme is not followed"


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_contrast(page: browser.Page, file: Path, dark: bool) -> None:
    page.open(file, 1280, dark=dark)
    page.run(OPEN_ALL)
    assert page.run(CONTRAST) == []


def test_the_keyboard_opens_a_box(page: browser.Page, file: Path) -> None:
    page.open(file, 1280)
    box = "document.querySelector('details.box')"
    page.run(f"{box}.open = false; {box}.querySelector('summary').focus()")
    page.press("Enter")
    assert page.run(f"{box}.open") is True
    page.press("Enter")
    assert page.run(f"{box}.open") is False


def test_the_buttons_open_and_close_the_checklist(page: browser.Page, file: Path) -> None:
    page.open(file, 390)
    everything = "[...document.querySelectorAll('#checklist details')].map((details) => details.open)"
    for opened in (True, False):
        page.run(f"document.querySelector('button[data-open=\"{int(opened)}\"]').click()")
        assert set(page.run(everything)) == {opened}


def test_a_link_to_a_failure_opens_its_box(page: browser.Page, tmp_path: Path) -> None:
    path = tmp_path / "failing.html"
    path.write_text(html(synthetic_report.failing()), encoding="utf-8")
    page.open(path, 390)
    page.run("document.querySelectorAll('details').forEach((details) => { details.open = false; })")
    target = page.run(
        "(() => { const link = document.querySelector('#failed li:nth-child(3) a'); link.click(); return link.hash.slice(1); })()"
    )
    assert page.run(f"new Promise((done) => setTimeout(() => done(document.getElementById('{target}').open), 100))") is True
    top = page.run(f"document.getElementById('{target}').getBoundingClientRect().top")
    assert 0 <= top < 900
