"""Voices on the page: a clip from a file or the microphone becomes one, with consent, and goes again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pages import at, chromium, needs_chromium
from playwright.sync_api import Browser, expect
from servers import Served, serving

from chatterbox_turbo_rs import ChatterboxTurbo, Voice
from chatterbox_turbo_rs.audio.read import read
from chatterbox_turbo_rs.parity.cases import CLIP

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def keeping(demo: ChatterboxTurbo, tmp_path: Path) -> Iterator[Served]:
    with serving(demo, voices=tmp_path) as served:
        yield served


def test_a_file_becomes_a_voice_that_speaks_and_goes(browser: Browser, keeping: Served, tmp_path: Path) -> None:
    with at(browser, keeping.url, "voices") as page:
        page.set_input_files("#voice-file", CLIP)
        expect(page.locator("#clip")).to_have_text(CLIP.name)
        expect(page.locator("#preview")).to_be_visible()
        page.fill("#voice-name", "Anna")
        page.click("#voice-add")
        assert not (tmp_path / "Anna.safetensors").exists(), "a voice without consent"
        page.fill("#consent", "Anna agreed, by letter.")
        page.click("#voice-add")
        expect(page.locator("#voice-status")).to_contain_text("Anna is there")
        assert Voice.load(tmp_path / "Anna.safetensors").metadata["consent"] == "Anna agreed, by letter."
        expect(page.locator("#voice-list li")).to_have_count(2)
        page.click("nav a[href='#speak']")
        expect(page.locator("#voice")).to_have_value("Anna")
        page.fill("#text", "Hi.")
        page.click("#speak-go")
        expect(page.locator("#take-facts")).to_contain_text("Anna, seed ")
        expect(page.locator("#speak-status")).to_contain_text("of speech.")
        page.click("nav a[href='#voices']")
        page.once("dialog", lambda dialog: dialog.dismiss())
        page.get_by_role("button", name="Remove Anna").click()
        assert (tmp_path / "Anna.safetensors").exists()
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Remove Anna").click()
        expect(page.locator("#voice-list li")).to_have_count(1)
        assert not (tmp_path / "Anna.safetensors").exists()


def test_the_microphone_gives_a_clip(browser: Browser, keeping: Served, tmp_path: Path) -> None:
    with at(browser, keeping.url, "voices", permissions=["microphone"]) as page:
        page.click("#record")
        expect(page.locator("#recorded")).to_have_text(re.compile(r"^([6-9]|[1-5]\d)\.\d s$"))
        expect(page.locator("#level")).to_be_visible()
        page.click("#record")
        expect(page.locator("#clip")).to_contain_text("Recording of ")
        page.fill("#voice-name", "beeps")
        page.fill("#consent", "nobody: it is a machine")
        page.click("#voice-add")
        expect(page.locator("#voice-status")).to_contain_text("beeps is there")
        assert 5.4 < page.evaluate("document.querySelector('#preview').duration") < 60
    mel = Voice.load(tmp_path / "beeps.safetensors").s3gen_prompt_mel
    assert len(mel) > 250 and mel.max() - np.median(mel) > 3, "the microphone's beeps are not in the clip"


def test_a_clip_that_is_too_short_is_refused(browser: Browser, keeping: Served, data: Path, tmp_path: Path) -> None:
    import soundfile

    samples, rate = read(CLIP)
    soundfile.write(tmp_path / "short.wav", samples[: 2 * rate], rate)
    with at(browser, keeping.url, "voices") as page:
        page.set_input_files("#voice-file", tmp_path / "short.wav")
        page.fill("#voice-name", "short")
        page.fill("#consent", "yes")
        page.click("#voice-add")
        expect(page.locator("#voice-wrong")).to_contain_text("5")
        expect(page.locator("#voice-list li")).to_have_count(1)


def test_a_server_without_a_directory_says_so(browser: Browser, served: Served) -> None:
    with at(browser, served.url, "voices") as page:
        expect(page.locator("#voices-kept")).to_contain_text("keeps no voices")
        expect(page.locator("#voice-add")).to_be_disabled()
        expect(page.locator("#record")).to_be_disabled()
        expect(page.locator("#voice-list")).to_contain_text("default")
