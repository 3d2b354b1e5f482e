"""The comparison in a browser: gapless, blind, counted right; on the page and as one file."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import at, chromium, needs_chromium, opened
from playwright.sync_api import Browser, Page, expect
from scipy.stats import binomtest
from servers import Served

from chatterbox_turbo_rs.cli.main import main

pytestmark = needs_chromium
# A player in a context that renders: what is heard while it goes over from one sound to the other at 0.3, 0.5 and 0.7 s.
RENDERED = """async (tracks) => {
    const player = new Player(24000);
    player.load(tracks.map((samples) => new Float32Array(samples)));
    const context = new OfflineAudioContext(1, 24000, 24000);
    const go = context.resume.bind(context);
    context.resume = async () => {};
    player.context = context;
    await player.play();
    [[0.3, 1], [0.5, 0], [0.7, 1]].forEach(([at, track]) => context.suspend(at).then(() => { player.hear(track); go(); }));
    const heard = await context.startRendering();
    return [...heard.getChannelData(0)];
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def compared(browser: Browser, served: Served) -> Iterator[Page]:
    """The page with a comparison of two precisions."""
    with at(browser, served.url, "compare") as page:
        page.fill("#compare-text", "Hello there.")
        page.select_option("#side-a-precision", "f32")
        page.select_option("#side-b-precision", "bf16")
        page.click("#compare-go")
        expect(page.locator("#comparison")).to_be_visible()
        yield page


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as one file, of two sentences; one of them could close a script."""
    path = tmp_path_factory.mktemp("abx") / "abx.html"
    texts = ["--text", "Hello there.", "--text", "Is </script> {{style}} spoken?"]
    assert main(["parity", "--abx", str(path), "--sides", "rust@f32", "rust@bf16", *texts]) == 0
    return path


def test_the_switch_is_gapless_and_at_the_same_place(compared: Page) -> None:
    time = np.arange(24_000) / 24_000
    tracks = [np.sin(2 * np.pi * 220 * time) / 2, np.sin(2 * np.pi * 220 * time) / 4]
    heard = np.array(compared.evaluate(RENDERED, [list(map(float, track)) for track in tracks]))
    lead = int(np.flatnonzero(np.abs(heard) > 1e-4)[0]) - 1  # the player begins a moment after it is asked
    assert 0 <= lead < 2_400
    expected = [np.concatenate([np.zeros(lead), track])[:24_000] for track in tracks]
    for start, end, track in ((0, 0.3, 0), (0.31, 0.5, 1), (0.51, 0.7, 0), (0.71, 1, 1)):
        part = slice(round(start * 24_000), round(end * 24_000) - 128)
        assert np.abs(heard[part] - expected[track][part]).max() < 1e-3, f"from {start} s on another sound is heard"
    low, high = np.minimum(*expected), np.maximum(*expected)
    assert ((heard > low - 0.01) & (heard < high + 0.01)).all(), "a switch clicks"


def test_two_equal_sounds_cannot_be_told_apart_by_the_switch(compared: Page) -> None:
    track = [float(value) for value in np.sin(np.arange(24_000) / 17) / 2]
    heard = np.array(compared.evaluate(RENDERED, [track, track]))
    lead = int(np.flatnonzero(np.abs(heard) > 1e-4)[0]) - 1
    assert np.abs(heard[lead:] - np.array(track)[: 24_000 - lead]).max() < 1e-5


@pytest.mark.parametrize("trials", [1, 12, 37, 100])
def test_the_p_value_is_that_of_the_binomial_test(compared: Page, trials: int) -> None:
    found = compared.evaluate(f"Array.from({{length: {trials + 1}}}, (_, right) => binomial(right, {trials}))")
    expected = [binomtest(right, trials, alternative="greater").pvalue for right in range(trials + 1)]
    assert found == pytest.approx(expected, rel=1e-9)


def test_labels_are_fair_coins(compared: Page) -> None:
    labels = compared.evaluate("""Array.from({length: 400}, () => {
        const abx = new Abx(12);
        return Array.from({length: 12}, () => { const x = abx.track("X"); abx.answer("A"); return x; });
    })""")
    ones = np.array(labels).mean(0)
    assert np.abs(ones - 0.5).max() < 0.15, "a trial prefers a side"  # 6 standard deviations
    assert len({tuple(row) for row in labels}) > 350


def test_what_is_shown_of_the_two(compared: Page) -> None:
    expect(compared.locator("#cmp-sides")).to_contain_text("rust, f32")
    expect(compared.locator("#cmp-sides")).to_contain_text("rust, bf16")
    facts = compared.inner_text("#cmp-facts")
    assert re.search(r"\d+, the same on both sides", facts) and "on average" in facts and "full scale" in facts
    colours = "(id) => { const c = document.querySelector(id); return new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size; }"
    for name in ("mel-a", "mel-b", "mel-d", "wave-a", "wave-b"):
        assert compared.evaluate(colours, f"#cmp-{name}") > 3, f"{name} is empty"


def test_keys_change_over_and_play(compared: Page) -> None:
    compared.locator("#cmp-heading").click()
    compared.evaluate("document.activeElement.blur()")
    compared.keyboard.press("b")
    expect(compared.locator("[data-hear=B]")).to_have_attribute("aria-pressed", "true")
    expect(compared.locator("#cmp-play")).to_have_text("Stop")
    compared.keyboard.press("a")
    expect(compared.locator("[data-hear=A]")).to_have_attribute("aria-pressed", "true")
    compared.keyboard.press("Space")
    expect(compared.locator("#cmp-play")).to_have_text("Play")
    compared.focus("#compare-text")
    compared.keyboard.press("b")
    expect(compared.locator("[data-hear=A]")).to_have_attribute("aria-pressed", "true")


def twelve(page: Page, tmp_path: Path, more: dict[str, str]) -> None:
    """A test of 12 trials by the keyboard: at first nothing shows what X is, in the end everything is counted right."""
    page.fill("#abx-trials", "12")
    page.click("#abx-begin")
    expect(page.locator("#abx-count")).to_be_focused()
    page.keyboard.press("1")
    expect(page.locator("#abx-status")).to_have_text("Listen to X first.")
    answers = "ABBABAABBABA"
    before = None
    for trial, answer in enumerate(answers, 1):
        expect(page.locator("#abx-count")).to_have_text(f"Trial {trial} of 12")
        for key in "abx":
            page.keyboard.press(key)
        expect(page.locator("[data-listen=X]")).to_have_attribute("aria-pressed", "true")
        # The page is the same whatever X is: its markup tells nothing.
        markup = re.sub(r"\d+", "", page.inner_html("#abx-trial"))
        assert before in (None, markup)
        before = markup
        page.keyboard.press("1" if answer == "A" else "2")
    expect(page.locator("#abx-verdict")).to_be_focused()
    rows = [row.split() for row in page.locator("#abx-rows tr").all_inner_texts()]
    assert [row[2] for row in rows] == list(answers) and len(rows) == 12
    right = sum(row[1] == row[2] for row in rows)
    assert [row[3] for row in rows] == ["yes" if row[1] == row[2] else "no" for row in rows]
    p = binomtest(right, 12, alternative="greater").pvalue
    expect(page.locator("#abx-verdict")).to_contain_text(f"{right} of 12 right, p ")
    assert ("below 0.001" if p < 0.001 else f"{p:.3f}") in page.inner_text("#abx-verdict")
    with page.expect_download() as download:
        page.click("#abx-csv")
    download.value.save_as(tmp_path / "abx.csv")
    found: list[dict[str, Any]] = list(csv.DictReader(io.StringIO((tmp_path / "abx.csv").read_text("utf-8"))))
    assert [(row["trial"], row["x"], row["answer"], row["correct"]) for row in found] == [
        (str(i), row[1], row[2], str(int(row[1] == row[2]))) for i, row in enumerate(rows, 1)
    ]
    assert all(row.items() >= more.items() and float(row["seconds"]) >= 0 for row in found)


def test_a_blind_test_of_twelve_trials(compared: Page, tmp_path: Path) -> None:
    twelve(compared, tmp_path, {"a": "rust, f32", "b": "rust, bf16", "seed": "7", "text": "Hello there."})


def test_a_test_that_is_stopped_says_so(compared: Page) -> None:
    if compared.locator("#abx-again").is_visible():
        compared.click("#abx-again")
    compared.fill("#abx-trials", "5")
    compared.click("#abx-begin")
    compared.click("[data-listen=X]")
    compared.click("[data-answer=A]")
    compared.click("#abx-stop")
    expect(compared.locator("#abx-meaning")).to_contain_text("stopped after 1 of 5 trials")
    compared.click("#abx-again")
    compared.click("#abx-begin")
    compared.click("#abx-stop")
    expect(compared.locator("#abx-start")).to_be_visible()


def test_stages_one_by_one_and_what_cannot_be_chosen(browser: Browser, served: Served) -> None:
    with at(browser, served.url, "compare") as page:
        page.select_option("#side-b-plan", "stages")
        page.select_option("[id='side-b-t3.sampler']", "python")
        page.select_option("#side-b-precision", page.input_value("#side-a-precision"))
        for stage in served.app.state.serve.tts.plan:
            if page.locator(f"[id='side-b-{stage}']").count() and page.locator(f"[id='side-b-{stage}'] option[disabled]").count():
                assert stage in page.inner_text("#compare-missing")
        page.click("#compare-go")
        expect(page.locator("#cmp-sides")).to_contain_text("t3.sampler=python")
        expect(page.locator("#cmp-facts")).to_contain_text("the same to the bit")
        expect(page.locator("#abx-status")).to_contain_text("guesses")


def test_a_comparison_can_be_cancelled(browser: Browser, served: Served) -> None:
    with at(browser, served.url, "compare") as page:
        page.route("**/v1/audio/comparisons", lambda route: None if route.request.method == "POST" else route.continue_())
        page.click("#compare-go")
        expect(page.locator("#comparing")).to_be_visible()
        page.click("#compare-cancel")
        expect(page.locator("#compare-status")).to_have_text("Cancelled.")
        expect(page.locator("#compare-go")).to_be_enabled()


def test_the_file_is_the_same_comparison_alone(browser: Browser, file: Path, tmp_path: Path) -> None:
    with opened(browser, file.as_uri(), accept_downloads=True) as page:
        expect(page.locator("#cmp-sides")).to_contain_text("rust, bf16")
        page.select_option("#cmp-case", "1")
        expect(page.locator("#cmp-facts")).to_contain_text("Is </script> {{style}} spoken?")
        twelve(page, tmp_path, {"a": "rust, f32", "b": "rust, bf16", "text": "Is </script> {{style}} spoken?"})


def test_the_command_refuses_what_makes_no_sense(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "abx.html")
    for arguments, words in (
        (["--sides", "rust@f16", "rust"], "a precision of auto, f32"),
        (["--sides", "ruby", "rust"], "expected auto, python or rust"),
        (["--text", " "], "--text: expected a text"),
        (["--html", str(tmp_path / "report.html")], "expected no --html beside it"),
    ):
        assert main(["parity", "--abx", path, *arguments]) in (1, 2)
        said = capsys.readouterr().err.strip()
        assert words in said and "\n" not in said
    assert main(["parity", "--sides", "rust", "python"]) == 2 and "--abx FILE" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
