"""The page speaks: sound plays while it comes, takes are kept with their seeds, and whoever cancels stops the work."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import at, chromium, needs_chromium
from playwright.sync_api import Browser, Page, expect
from servers import Served, serving

from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.audio.encode import pcm
from chatterbox_turbo_rs.audio.read import read
from chatterbox_turbo_rs.options import GenerationOptions

pytestmark = needs_chromium
TEXT = "It was late. Nobody had come, and nobody would. [pause 0.8s] Or so we thought."
LONG = "It was late, and nobody had come. " * 80


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:
    with at(browser, served.url) as found:
        yield found


def speak(page: Page, text: str, seed: str = "7") -> None:
    page.fill("#text", text)
    page.fill("#seed", seed)
    page.click("#speak-go")
    expect(page.locator("#speak-status")).to_contain_text(re.compile(r"^[\d.:]+( s)? of speech\."))


def saved(page: Page, format: str, folder: Path) -> bytes:
    page.select_option("#take-format", format)
    with page.expect_download() as download:
        page.click("#take-download")
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path.read_bytes()


def test_the_file_that_is_saved_is_what_the_model_says(page: Page, demo: ChatterboxTurbo, tmp_path: Path) -> None:
    speak(page, TEXT)
    expect(page.locator("#take-facts")).to_have_text("default, seed 7")
    samples = demo.generate(TEXT, seed=7).samples
    assert saved(page, "wav", tmp_path)[44:] == pcm(samples) and (tmp_path / "take-1-seed-7.wav").exists()
    heard, rate = read(saved(page, "flac", tmp_path))
    assert rate == 24_000 and len(heard) == len(samples)


def test_it_plays_while_it_is_made(page: Page) -> None:
    page.fill("#text", LONG)
    page.click("#speak-go")
    expect(page.locator("#take-clock")).to_have_text(re.compile(r"^(?!0\.0 s)[\d.]+ s of "))  # it plays
    expect(page.locator("#cancel")).to_be_enabled()  # and is still being made
    expect(page.locator("#take-facts")).to_contain_text("being made")
    expect(page.locator("#take-play")).to_have_text("Stop")
    assert 0 < float(page.input_value("#take-position")) < 1
    assert page.evaluate("document.querySelector('#speaking').value") > 0
    page.click("#cancel")


def test_cancel_stops_the_work_and_keeps_what_was_made(page: Page, served: Served) -> None:
    page.fill("#text", LONG)
    page.fill("#seed", "5")
    page.click("#speak-go")
    expect(page.locator("#speak-status")).to_contain_text("of speech so far")
    page.click("#cancel")
    expect(page.locator("#speak-status")).to_contain_text("Cancelled after")
    expect(page.locator("#take-facts")).to_have_text("default, seed 5, cancelled")
    expect(page.locator("#takes li")).to_have_count(1)
    expect(page.locator("#speak-go")).to_be_enabled()
    assert page.locator("#take-format option:not([disabled])").all_inner_texts() == ["WAV"]
    end = time.monotonic() + 120
    while served.app.state.serve.batch.load != (0, 0):
        assert time.monotonic() < end, "the server goes on with it"
        time.sleep(0.05)


def test_segments_say_how_they_were_spoken(page: Page, demo: ChatterboxTurbo) -> None:
    speak(page, TEXT)
    page.click("#take-report summary")
    segments = demo.generate(TEXT, seed=7).segments
    rows = page.locator("#take-segments tr")
    expect(rows).to_have_count(len(segments))
    for index, segment in enumerate(segments):
        cells = rows.nth(index).locator("td").all_inner_texts()
        assert segment.text in cells[1] and f"seed {segment.seed}" in cells[1]
        assert cells[2] == str(segment.tokens) and (", ".join(segment.faults) or "ok") in cells[3]
    page.click("#take-play")
    rows.nth(1).get_by_role("button").click()
    assert page.evaluate("document.querySelector('#take-position').value * 1") >= segments[1].start / segments[1].end - 0.01


def test_takes_keep_their_seeds_and_can_be_had_again(page: Page, tmp_path: Path) -> None:
    page.click("#settings summary")
    page.fill("#set-temperature", "0.6")
    speak(page, "Hello there.", "")
    first = saved(page, "wav", tmp_path)
    facts = page.inner_text("#take-facts")
    assert re.fullmatch(r"default, seed \d+", facts)
    page.click("#settings-reset")
    speak(page, "Good morning.", "3")
    expect(page.locator("#takes li")).to_have_count(2)
    expect(page.locator("#takes li").first).to_contain_text("Good morning.")
    page.get_by_role("button", name=re.compile("^Use again: .* take 1 ")).click()
    expect(page.locator("#text")).to_have_value("Hello there.")
    expect(page.locator("#text")).to_be_focused()
    expect(page.locator("#set-temperature")).to_have_value("0.6")
    assert page.input_value("#seed") == facts.split()[-1]
    page.click("#speak-go")
    expect(page.locator("#takes li")).to_have_count(3)
    expect(page.locator("#take-facts")).to_have_text(facts)
    expect(page.locator("#take-download")).to_be_enabled()
    assert saved(page, "wav", tmp_path) == first
    page.get_by_role("button", name="Remove take 3").click()
    expect(page.locator("#take-heading")).to_have_text("Take 2")


def test_nineteen_tags_go_in_at_the_cursor(page: Page, demo: ChatterboxTurbo) -> None:
    tags = page.locator("#tags button")
    assert [f"[{text}]" for text in tags.all_inner_texts()] == list(demo.tags) and tags.count() == 19
    page.fill("#text", "Hello there.")
    page.evaluate("document.querySelector('#text').setSelectionRange(5, 5)")
    page.get_by_role("button", name="laugh", exact=True).click()
    expect(page.locator("#text")).to_have_value("Hello [laugh] there.")
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.type("!")
    expect(page.locator("#text")).to_have_value("Hello [laugh]! there.")
    expect(page.locator("#counter")).to_have_text("21 of 100,000 characters")


def test_tags_are_one_stop_of_the_tab_key(page: Page) -> None:
    page.focus("#text")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="angry")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("button", name="fear")).to_be_focused()
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("button", name="angry")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#voice")).to_be_focused()


def test_settings_show_the_models_defaults(page: Page) -> None:
    for name in ("temperature", "top_p", "top_k", "repetition_penalty", "max_tokens", "speed"):
        usual = getattr(GenerationOptions, name)
        assert float(page.input_value(f"#set-{name}")) == usual
        assert f"default {usual:g}" in str(page.text_content(f"#set-{name}-hint"))
    expect(page.locator("#settings-changed")).to_have_text("all defaults")
    page.click("#settings summary")
    page.fill("#set-top_k", "5")
    page.select_option("#set-watermark", "")
    expect(page.locator("#settings-changed")).to_have_text("2 changed")


def test_the_keyboard_alone_speaks(page: Page) -> None:
    page.focus("#text")
    page.keyboard.press("Control+A")
    page.keyboard.type("Hi.")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#takes li")).to_have_count(1)
    expect(page.locator("#speak-status")).to_contain_text("of speech.")


def test_what_the_server_refuses_is_said(page: Page) -> None:
    page.fill("#text", "[pause 90s] Hello.")
    page.click("#speak-go")
    expect(page.locator("#speak-wrong")).to_contain_text("pause")
    expect(page.locator("#takes li")).to_have_count(0)
    expect(page.locator("#take")).to_be_hidden()
    expect(page.locator("#speak-go")).to_be_enabled()


def test_the_demo_says_what_it_is(page: Page) -> None:
    expect(page.locator("#demo")).to_contain_text("the small model that comes with the package")
    expect(page.locator("#about")).to_contain_text("Model demo")


def test_a_key_is_asked_for_and_used(browser: Browser, demo: ChatterboxTurbo) -> None:
    with serving(demo, api_key="open sesame") as served, at(browser, served.url) as page:
        expect(page.locator("#key-form")).to_be_visible()
        page.fill("#key", "wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#speak-wrong")).to_have_text("That is not the key.")
        page.fill("#key", "open sesame")
        page.keyboard.press("Enter")
        expect(page.locator("#key-form")).to_be_hidden()
        speak(page, "Hi.")
        page.reload()
        page.wait_for_selector("html[data-ready]")
        expect(page.locator("#key-form")).to_be_hidden()


def test_a_server_that_is_gone_is_said(browser: Browser, demo: ChatterboxTurbo) -> None:
    with serving(demo) as served, at(browser, served.url) as page:
        page.route("**/v1/audio/speech", lambda route: route.abort("connectionrefused"))
        page.click("#speak-go")
        expect(page.locator("#speak-wrong")).to_have_text("The server does not answer.")
        page.unroute("**/v1/audio/speech")
        speak(page, "Hi.")
