"""A report that does not fit is refused with its place; rows and boxes are ordered so that nothing is hidden."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import synthetic_report

from chatterbox_turbo_rs.parity.report import check, html, markdown, parity_table, terminal
from chatterbox_turbo_rs.parity.report.model import groups, leaves, stages, tree
from chatterbox_turbo_rs.parity.report.text import measured, seconds, short

RENDERERS = (terminal, markdown, parity_table, html)


@pytest.mark.parametrize("render", RENDERERS)
def test_a_report_renders_the_same_after_json(render: Any) -> None:
    for report in (synthetic_report.passing(), synthetic_report.failing()):
        before = copy.deepcopy(report)
        assert render(json.loads(json.dumps(report))) == render(report)
        assert report == before, "the renderer changed the report"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda r: r.update(format=2), "expected format 1, found 2"),
        (lambda r: r.pop("sections"), "expected the key 'sections'"),
        (lambda r: r["rows"][3].pop("stage"), r"rows\[3\]: expected the key 'stage'"),
        (lambda r: r["rows"][1].update(verdict="fine"), r"rows\[1\].verdict: expected ok, note, missing, FAIL, found 'fine'"),
        (lambda r: r["rows"][0].update(comparison=["rust"]), r"rows\[0\].comparison: expected \(reference, candidate\)"),
        (lambda r: r["rows"][0].update(values=[1]), r"rows\[0\].values: expected \(reference, candidate\)"),
        (lambda r: r["sections"][1]["boxes"][0].update(rows=[999]), r"sections\[1\].boxes\[0\].rows: .* found 999"),
        (lambda r: r["sections"][0]["boxes"][1].pop("answer"), r"sections\[0\].boxes\[1\]: expected the key 'answer'"),
        (lambda r: r["taps"]["rows"][0].pop("name"), r"taps.rows\[0\]: expected the key 'name'"),
        (lambda r: r["summary"].clear(), "summary: expected the key 'chained'"),
    ],
)
def test_a_report_that_does_not_fit_is_refused(change: Any, expected: str) -> None:
    report = synthetic_report.failing()
    change(report)
    for render in RENDERERS:
        with pytest.raises(ValueError, match=expected):
            render(report)


def test_something_else_is_no_report() -> None:
    with pytest.raises(ValueError, match="expected format 1, found 'list'"):
        check([])  # type: ignore[arg-type]


def test_boxes_stand_below_their_parent_which_has_the_worst_verdict() -> None:
    sections = dict(tree(check(synthetic_report.failing())))
    (parent,) = sections["3. Audio Processing & Conditioning"]
    assert (parent.title, parent.verdict) == ("Voice Encoder Conditioning", "FAIL")
    assert [child.verdict for child in parent.children] == ["FAIL", "missing"]


def test_a_box_may_itself_be_the_parent() -> None:
    report = synthetic_report.passing()
    boxes = report["sections"][2]["boxes"]
    boxes.insert(0, {**boxes[0], "id": "ve", "parent": None, "title": "Voice Encoder Conditioning", "rows": [0]})
    (parent,) = dict(tree(check(report)))["3. Audio Processing & Conditioning"]
    assert len(parent.rows) == 1 and len(parent.children) == 2
    assert len(leaves([parent])) == 3


def test_rows_that_no_box_names_are_shown_too() -> None:
    report = synthetic_report.failing()
    title, (node,) = tree(check(report))[-1]
    assert title == "Further comparisons" and [row["stage"] for row in node.rows] == ["end_to_end@spectrum"]
    for section in report["sections"]:
        for box in section["boxes"]:
            box["rows"] = []
    assert len(tree(check(report))[-1][1][0].rows) == len(report["rows"])


def test_the_worst_row_of_a_stage_stands_for_it() -> None:
    rows = synthetic_report.passing()["rows"]
    for case, (verdict, used) in zip("abcd", [("ok", 0.9), ("FAIL", 3.0), ("missing", None), ("FAIL", 5.0)]):
        rows.append({**rows[3], "case": case, "verdict": verdict, "used": used, "stage": "own"})
    (group,) = (group for group in groups(rows) if group.stage == "own")
    assert group.worst["case"] == "d" and len(group.rows) == 4 and group.seconds == (2.0, 1.0)
    rows.append({**rows[-1], "case": "nan", "used": float("nan")})
    assert groups(rows)[-1].worst["case"] == "nan", "a share that is no number is the worst"


def test_only_equal_settings_are_condensed() -> None:
    rows = [row for row in synthetic_report.failing()["rows"] if row["box"] == "t3_config"]
    assert len(groups(rows)) == len(groups(rows, condensed=True)) == 2
    rows += [{**rows[1], "stage": "t3.heads"}, {**rows[1], "stage": "t3.ffn_size"}]
    assert [group.stage for group in groups(rows, condensed=True)] == ["t3.layers", "3 settings"]


def test_stages_come_in_the_order_of_the_parties() -> None:
    report = check({**synthetic_report.passing(), "times": {"a": {"x": 1.0}, "b": {"w": 1.0, "x": 2.0}}})
    assert stages(report) == ["x", "w"]


@pytest.mark.parametrize(
    ("number", "digits", "text"),
    [(4.8e-7, 1, "5e-7"), (4.84e-7, 2, "4.8e-7"), (9.96e-7, 1, "1e-6"), (0.0, 1, "0"), (0.0678, 1, "0.07"), (-0.099, 2, "−0.099")]
    + [(123.4, 2, "120"), (99.7, 2, "100"), (1e-3, 1, "0.001"), (5e7, 2, "5e7"), (None, 2, "–"), (float("nan"), 2, "nan")],
)
def test_short_numbers(number: float | None, digits: int, text: str) -> None:
    assert short(number, digits) == text


@pytest.mark.parametrize(
    ("time", "text"),
    [(3e-6, "3 µs"), (0.0062, "6.2 ms"), (0.45, "0.450 s"), (1.5, "1.50 s"), (241.3, "241 s"), (None, ""), (float("nan"), "")],
)
def test_times(time: float | None, text: str) -> None:
    assert seconds(time) == text


def test_measured_names_the_figure_that_uses_most_of_its_limit() -> None:
    (row,) = (r for r in synthetic_report.passing()["rows"] if r["stage"] == "watermark" and r["comparison"][1] == "python")
    figures = {**row["figures"], "max_abs": 2e-6, "worst_cosine": 1 - 5e-7}
    assert (
        measured([{**row, "figures": figures, "tolerance": "max_abs ≤ 1e-05, worst_cosine ≥ 0.999999"}])
        == "1 − cos 5e-7 (limit 1e-6)"
    )
    assert (
        measured([{**row, "figures": figures, "tolerance": "max_abs ≤ 1.2e-06, worst_cosine ≥ 0.9"}]) == "abs 2e-6 (limit 1.2e-6)"
    )
    assert measured([{**row, "figures": {**figures, "max_abs": float("nan")}}]) == "abs nan (limit 1e-4)"
    assert measured([{**row, "figures": {**figures, "prefix": 57600}}]) == "identical"
    assert measured([{**row, "tolerance": "exact"}]) == "0 of 57600 equal"
    assert measured([]) == "–"
