"""Every view on a phone and on a wide screen, in light and dark: axe-core finds no serious fault, nothing is wider than the screen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from pages import VIEWS, at, chromium, needs_chromium, opened, shot
from playwright.sync_api import Browser, Page, expect
from servers import Served, serving

from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.cli.main import main

pytestmark = needs_chromium
# Fields, buttons and links whose name nobody hears, or that a thumb misses.
SMALL = """[...document.querySelectorAll("button, select, input:not([type=range]):not([type=checkbox]), nav a")]
    .filter((e) => e.offsetParent && !e.closest(".button") && e.getBoundingClientRect().height < 36).map((e) => e.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def keeping(demo: ChatterboxTurbo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(demo, voices=tmp_path_factory.mktemp("voices")) as served:
        yield served


def check(page: Page, name: str) -> None:
    """No serious fault, nothing that scrolls sideways, nothing too small."""
    shot(page, name)
    answer: dict[str, Any] = Axe().run(page).response
    found, passed = answer["violations"], answer["passes"]
    assert len(passed) > 20, "axe has looked at next to nothing"
    bad = [
        (one["id"], one["help"], [node["html"][:100] for node in one["nodes"]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert not bad, bad
    width = page.viewport_size["width"]  # type: ignore[index]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(SMALL) == []


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_speak(browser: Browser, keeping: Served, width: int, scheme: str) -> None:
    with at(browser, keeping.url, width=width, scheme=scheme) as page:
        check(page, f"speak-{width}-{scheme}")
        page.fill("#seed", "7")
        page.fill("#text", "It was late. Nobody had come, and nobody would. [pause 0.8s] Or so we thought.")
        page.click("#settings summary")
        page.click("#speak-go")
        expect(page.locator("#speak-status")).to_contain_text("of speech.")
        page.click("#take-report summary")
        page.click("#take-play")
        check(page, f"spoken-{width}-{scheme}")


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_voices(browser: Browser, keeping: Served, width: int, scheme: str) -> None:
    with at(browser, keeping.url, "voices", width=width, scheme=scheme) as page:
        check(page, f"voices-{width}-{scheme}")


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_compare(browser: Browser, keeping: Served, width: int, scheme: str) -> None:
    with at(browser, keeping.url, "compare", width=width, scheme=scheme) as page:
        page.select_option("#side-b-plan", "stages")
        page.fill("#compare-text", "Hello there.")
        page.click("#compare-go")
        expect(page.locator("#comparison")).to_be_visible()
        check(page, f"compare-{width}-{scheme}")
        page.fill("#abx-trials", "5")
        page.click("#abx-begin")
        check(page, f"trial-{width}-{scheme}")
        for _ in range(5):
            page.click("[data-listen=X]")
            page.click("[data-answer=B]")
        expect(page.locator("#abx-verdict")).to_contain_text("of 5 right")
        check(page, f"result-{width}-{scheme}")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("abx") / "abx.html"
    assert main(["parity", "--abx", str(path), "--text", "Hello there.", "--text", "Good morning."]) == 0
    return path


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_the_one_file(browser: Browser, file: Path, width: int, scheme: str) -> None:
    # `bypass_csp`: axe is put into the page, which the file's own policy forbids.
    with opened(browser, file.as_uri(), width=width, scheme=scheme, bypass_csp=True) as page:
        expect(page.locator("#comparison")).to_be_visible()
        check(page, f"file-{width}-{scheme}")


def test_the_keyboard_reaches_everything(browser: Browser, keeping: Served) -> None:
    with at(browser, keeping.url) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        reached = []
        for _ in range(8):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        assert reached == ["text", "angry", "voice", "seed", reached[4], "speak-go", reached[6], reached[7]]
        assert "Settings" in reached[4]


def test_the_skip_link_stays_in_its_view(browser: Browser, keeping: Served) -> None:
    with at(browser, keeping.url, "compare") as page:
        page.focus(".skip")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        expect(page.locator("#view-compare")).to_be_visible()


def test_a_view_has_an_address_and_a_title(browser: Browser, keeping: Served) -> None:
    with at(browser, keeping.url) as page:
        page.click("nav a[href='#voices']")
        expect(page).to_have_title("Voices – Chatterbox Turbo")
        expect(page.locator("nav a[aria-current]")).to_have_text("Voices")
        page.go_back()
        expect(page.locator("#view-speak")).to_be_visible()
