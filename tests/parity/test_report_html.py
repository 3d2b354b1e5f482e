"""The HTML report: well formed, alone in one file, everything from data escaped, and the plots say what they show."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import synthetic_report
from test_report_png import decode

from chatterbox_turbo_rs.parity.report import html
from chatterbox_turbo_rs.parity.report.axes import BINS, outline, ticks
from chatterbox_turbo_rs.parity.report.markup import Markup, el
from chatterbox_turbo_rs.parity.report.png import LEVELS, NOT_FINITE, NOTHING

VOID = {"meta", "link", "img", "br"}
PAIR = ["official", "rust"]


class Tree(HTMLParser):
    """Checks that elements are closed in order, and collects them: (name, attributes, text inside)."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.stack: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(page)
        self.close()
        assert not self.stack, f"not closed: {[name for name, _, _ in self.stack]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"{tag} has an attribute twice: {attrs}"
        entry: tuple[str, dict[str, str | None], list[str]] = (tag, dict(attrs), [])
        self.found.append(entry)
        if tag not in VOID:
            self.stack.append(entry)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack and self.stack[-1][0] == tag, f"</{tag}> closes {self.stack[-1][0] if self.stack else 'nothing'}"
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        for _, _, inside in self.stack:
            inside.append(data)

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attributes, "".join(inside)) for name, attributes, inside in self.found if name == tag]


@pytest.fixture(scope="module", params=["passing", "failing", "hostile"])
def page(request: pytest.FixtureRequest) -> str:
    title = synthetic_report.HOSTILE if request.param == "hostile" else "plain"
    return html(getattr(synthetic_report, request.param)(), synthetic_report.plots(title))


def figures_of(kind: str, **plot: Any) -> Tree:
    plots = {kind: [{"title": "one", "comparison": PAIR, **plot}]}
    return Tree(html(synthetic_report.passing(), plots))


def test_the_page_is_well_formed_and_has_its_landmarks(page: str) -> None:
    assert page.startswith('<!doctype html>\n<html lang="en">')
    tree = Tree(page)
    for name in ("title", "header", "nav", "main", "h1"):
        assert len(tree.all(name)) == 1, name
    ids = [attributes["id"] for _, attributes, _ in tree.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes, _ in tree.all("a"):
        assert (attributes["href"] or "")[1:] in ids, attributes


def test_the_page_asks_for_nothing_outside(page: str) -> None:
    for name, attributes, _ in Tree(page).found:
        for key, value in attributes.items():
            if key in ("src", "href", "srcset", "data", "action", "poster", "background"):
                assert (value or "").startswith(("data:", "#")), f"<{name} {key}={value}>"
            assert not key.startswith("on"), f"<{name} {key}>: a script in an attribute"
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert "url(" not in style and "@import" not in style and "http" not in style
    (policy,) = (a["content"] or "" for a, _ in Tree(page).all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "img-src data:" in policy
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert len(scripts) == 1 and f"script-src 'sha256-{digests[0]}'" in policy and "http" not in scripts[0]


def test_hostile_texts_are_shown_and_nothing_else() -> None:
    page = html(synthetic_report.hostile(), synthetic_report.plots(synthetic_report.HOSTILE))
    assert page.count("<script") == 1 and "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;" in page
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", page)
    tree = Tree(page)
    assert "<script>alert('x')</script>" in tree.all("h1")[0][1]
    assert "nan" in page and "inf" in page


def test_headings_do_not_skip_a_level(page: str) -> None:
    levels = [int(name[1]) for name, _, _ in Tree(page).found if re.fullmatch(r"h[1-6]", name)]
    assert levels[0] == 1
    for before, after in zip(levels, levels[1:]):
        assert after <= before + 1, levels


def test_tables_have_captions_and_headers_and_pictures_a_text(page: str) -> None:
    tree = Tree(page)
    assert len(tree.all("caption")) == len(tree.all("table")) > 0
    assert all("scope" in attributes for attributes, _ in tree.all("th"))
    for attributes, _ in tree.all("img"):
        assert attributes.get("alt")
    for attributes, _ in tree.all("svg"):
        assert attributes["role"] == "img" and attributes["aria-label"]
    for attributes, _ in tree.all("div"):
        if attributes.get("class") == "scroll":
            assert attributes["tabindex"] == "0" and attributes["aria-label"], "cannot be scrolled with the keyboard"


def test_a_page_that_passes_says_so_and_keeps_its_boxes_closed() -> None:
    tree = Tree(html(synthetic_report.passing()))
    (banner,) = (text for attributes, text in tree.all("p") if "banner" in (attributes.get("class") or ""))
    assert "✓" in banner and "All 36 rows are within their limits" in banner
    assert all("open" not in attributes for attributes, _ in tree.all("details") if "box" in (attributes["class"] or ""))
    assert not [text for _, text in tree.all("h2") if text in ("Failed", "Missing", "Plots")]
    assert "7 boxes: 7 ok" in [text for _, text in tree.all("li")]


def test_a_page_that_fails_says_what_failed_and_links_to_its_box() -> None:
    tree = Tree(html(synthetic_report.failing()))
    (banner,) = (text for attributes, text in tree.all("p") if "banner" in (attributes.get("class") or ""))
    assert "✗" in banner and "5 of 11 rows failed, 1 could not be measured" in banner
    links = {text: attributes["href"] for attributes, text in tree.all("a")}
    boxes = {f"#{attributes['id']}": (attributes, text) for attributes, text in tree.all("details") if "id" in attributes}
    attributes, text = boxes[str(links["official → rust, isolated s3gen.flow, plain"])]
    assert "Inference Logic" in text and "open" in attributes and "relative_rms 0.00101, expected at most 1e-05" in text
    assert "voice_encoder.mel" in boxes[str(links["official → rust, isolated voice_encoder.mel, short"])][1]


def test_every_row_of_the_report_is_in_a_table() -> None:
    report = synthetic_report.failing()
    cells = [text for _, text in Tree(html(report)).all("tr")]
    for row in report["rows"]:
        assert any(row["stage"] in text and row["case"] in text and row["verdict"] in text for text in cells), row


def test_settings_stand_in_one_line_with_a_column_for_every_party() -> None:
    report = synthetic_report.passing()
    lines = [text for _, text in Tree(html(report)).all("tr") if "t3.layers" in text]
    assert lines == ["✓okt3.layers242424"]
    row = next(row for row in report["rows"] if row["stage"] == "t3.layers" and row["comparison"] == ["python", "rust"])
    row.update(values=[24, 23], verdict="FAIL", wrong=["python has 24, rust has 23"])
    lines = [text for _, text in Tree(html(report)).all("tr") if "t3.layers" in text]
    assert lines == ["✓okt3.layers242424", "✗FAILt3.layerspython has 24, rust has 23–2423"]


def test_layers_and_times() -> None:
    report = synthetic_report.failing()
    tree = Tree(html(report))
    assert "Layers of s3gen.encoder, python → rust" in [text for _, text in tree.all("h2")]
    first = [text for attributes, text in tree.all("tr") if attributes.get("class") == "first"]
    assert len(first) == 1 and "flow.encoder.encoders.3first difference" in first[0] and "FAIL" in first[0]
    assert "python0.750 s0.50 ×" in [text for _, text in tree.all("tr")]
    widths = [a["style"] for a, _ in tree.all("div") if (a.get("class") or "").startswith("bar-")]
    assert widths[:3] == ["width:100.00%", "width:50.00%", "width:33.33%"]
    assert "times" not in {
        a.get("id") for a, _ in Tree(html({**report, "times": {"official": {}, "rust": {"a": 0.0}}})).all("section")
    }


def pictures(tree: Tree) -> list[np.ndarray]:
    """The indices of every picture, [height, width], but not those of the colour scales."""
    files = [(attributes["src"] or "").partition(",")[2] for attributes, _ in tree.all("img") if attributes["alt"] != "to"]
    return [decode(base64.b64decode(file))[0] for file in files]


def test_mels_are_drawn_on_one_scale_and_axis() -> None:
    reference = np.tile(np.linspace(-8, 0, 80, dtype=np.float32), (50, 1))
    candidate = reference[:40].copy()
    candidate[7, 70] += 2
    candidate[8, 3] = np.nan
    tree = figures_of("mels", reference=reference, candidate=candidate)
    a, b, difference = pictures(tree)
    assert a.shape == b.shape == difference.shape == (80, 50)
    assert a[79, 0] == 0 and a[0, 0] > a[40, 0] > 0, "band 0 is at the bottom"
    assert (b[:, 40:] == NOTHING).all() and (difference[:, 40:] == NOTHING).all() and (a != NOTHING).all()
    assert b[79 - 3, 8] == difference[79 - 3, 8] == NOT_FINITE
    assert difference[79 - 70, 7] == LEVELS - 1, "a positive difference is red"
    assert np.count_nonzero(difference[:, :40] != LEVELS // 2) == 2
    caption = tree.all("figcaption")[0][1]
    assert "official has 50 frames, rust 40" in caption and "1 number is not finite (drawn in magenta)" in caption
    assert "Largest difference 2.0 at 0.14 s, band 70." in caption
    assert "0.2 s" in [text for _, text in tree.all("span")]


def test_a_waveform_shows_every_peak_and_leaves_a_gap_where_nothing_is() -> None:
    signal = np.zeros(48000, np.float32)
    signal[20001] = 0.5
    other = signal.copy()
    other[30000:40000] = np.nan
    tree = figures_of("waveforms", reference=signal, candidate=other[:-4800], rate=24000)
    paths = [
        a["d"] or "" for a, _ in tree.all("path") if (a.get("class") or "").startswith("line-") and a["class"] != "line-zero"
    ]
    assert len(paths) == 3
    assert " 0" in paths[0] and paths[0].count("M") == 1, "the single sample of the peak is lost"
    assert paths[1].count("M") == 2
    caption = tree.all("figcaption")[0][1]
    assert "official has 48000 samples, rust 43200" in caption and "10000 numbers are not finite (left out)" in caption


def test_an_outline_holds_the_extremes_of_every_column() -> None:
    signal = np.random.default_rng(1).standard_normal(10 * BINS)
    numbers = np.array([float(n) for n in re.findall(r"-?[\d.]+", outline(signal, -5, 5, signal.size))]).reshape(-1, 2)
    top, bottom = numbers[:BINS, 1], numbers[BINS:, 1][::-1]
    columns = signal.reshape(BINS, 10)
    assert np.abs(top - (5 - columns.max(1)) * 10).max() < 0.06 and np.abs(bottom - (5 - columns.min(1)) * 10).max() < 0.06
    assert outline(np.full(10, np.nan), -1, 1, 10) == "" and outline(np.zeros(0), -1, 1, 10) == ""


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 8.92, [0, 2, 4, 6, 8]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (0, 0, [0]),
        (float("nan"), 1, []),
        (0, 6563, [0, 2000, 4000, 6000]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_logits_name_the_largest_difference_and_the_most_likely_token() -> None:
    reference = np.linspace(-5, 5, 6563).astype(np.float32)
    candidate = reference.copy()
    candidate[17] = 9.0
    tree = figures_of("logits", reference=reference, candidate=candidate)
    assert tree.all("figcaption")[0][1] == "Largest difference 14 at token 17. Most likely: token 6562 / token 17."
    (dots,) = (a["d"] or "" for a, _ in tree.all("path") if a.get("class") == "dots")
    assert 280 < dots.count("M") < 6563, "points that fall together are drawn once"


def test_tokens_mark_what_differs() -> None:
    tree = figures_of("tokens", reference=np.arange(30), candidate=np.array([*range(12), 99, *range(13, 25)]))
    (strip,) = (a for a, _ in tree.all("div") if a.get("class") == "strip")
    assert strip["aria-label"] == "24 of 30 positions are equal, 1 differ, 5 are held by one side only"
    assert [len(tree.all(name)) - 1 for name in ("i", "u")] == [24, 5], "one of each is in the legend"
    caption = tree.all("figcaption")[0][1]
    assert caption.startswith("First difference at position 12: official has 12, rust has 99; before it all are equal.")
    assert "1299" not in caption and "121299" in [text for _, text in tree.all("tr")]
    assert "25" in [text for _, text in tree.all("th")]


def test_equal_tokens_and_empty_ones() -> None:
    assert (
        "All 5 tokens are equal." in figures_of("tokens", reference=np.arange(5), candidate=np.arange(5)).all("figcaption")[0][1]
    )
    empty = figures_of("tokens", reference=np.zeros(0, int), candidate=np.array([7])).all("figcaption")[0][1]
    assert "First difference at position 0: official has nothing, rust has 7" in empty
    assert "Neither has a token." in figures_of("tokens", reference=[], candidate=[]).all("figcaption")[0][1]


def test_an_array_of_another_rank_is_refused() -> None:
    with pytest.raises(ValueError, match=r"plot 'one', candidate: expected 2 dimensions, found shape \[4\]"):
        figures_of("mels", reference=np.zeros((3, 80)), candidate=np.zeros(4))


def test_elements_escape_texts_and_keep_markup() -> None:
    assert el("p", "<b>", Markup("<i></i>"), None, ["a", ["&"]], class_="x", hidden=True, data_a='"') == (
        '<p class="x" hidden data-a="&quot;">&lt;b&gt;<i></i>a&amp;</p>'
    )
    assert el("br") == "<br>" and el("p", title=None, hidden=False) == "<p></p>"
