"""The page in a headless Chromium of the system, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium found; install it (Debian: apt-get install chromium) or name it in CHROMIUM"
)
VIEWS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]
PATIENCE = 120_000
"""Milliseconds after which something hangs."""
OPTIONS = [
    "--no-sandbox",
    "--no-zygote",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--use-fake-device-for-media-stream",  # a microphone that beeps
    "--use-fake-ui-for-media-stream",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser, ended afterwards."""
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS, timeout=PATIENCE)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, url: str, width: int = 1280, scheme: Any = "light", **more: Any) -> Iterator[Page]:
    """A page of a fresh profile; at its end it has reported no error and has asked nobody but its own server."""
    touch = width < 600
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, has_touch=touch, is_mobile=touch, **more
    )
    context.set_default_timeout(PATIENCE)
    page, wrong, asked = context.new_page(), [], []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    try:
        yield page
        wrong = [text for text in wrong if "Failed to load resource" not in text]  # refused requests
        assert not wrong, f"the page reports errors: {wrong}"
        origin = url.rpartition("/")[0] if url.startswith("http") else url
        assert all(found.startswith((origin, f"blob:{origin}", "blob:null", "data:")) for found in asked), f"it asked {asked}"
    finally:
        context.close()


@contextmanager
def at(browser: Browser, url: str, view: str = "speak", **more: Any) -> Iterator[Page]:
    """A view of a server's page, when the page knows what the server is."""
    with opened(browser, f"{url}/#{view}", **more) as page:
        page.wait_for_selector("html[data-ready]")
        yield page


def shot(page: Page, name: str) -> None:
    """Keeps a picture of the whole page in the directory that CHATTERBOX_SCREENSHOTS names, for whoever wants to look."""
    if folder := os.environ.get("CHATTERBOX_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
