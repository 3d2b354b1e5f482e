"""The checklist's boxes: its words, its order, and no row without a box."""

from __future__ import annotations

import numpy as np

from chatterbox_turbo_rs.parity import checklist
from chatterbox_turbo_rs.parity.rows import Row, fill
from chatterbox_turbo_rs.parity.tolerances import tolerances

ONE = np.ones((3, 2), np.float32)


def test_there_are_25_leaf_boxes_in_six_sections() -> None:
    assert len(checklist.BOXES) == 25 == len({box.id for box in checklist.BOXES})
    assert [len([b for b in checklist.BOXES if b.section.startswith(f"{n}.")]) for n in range(1, 7)] == [5, 2, 9, 4, 3, 2]
    assert sum(box.parent is not None for box in checklist.BOXES) == 7
    assert all(box.text.endswith((".", ")")) for box in checklist.BOXES)


def test_every_stage_with_a_tolerance_answers_a_box() -> None:
    parts = {"s3gen.vocoder@source", "s3gen.vocoder@decoder"}  # only with the reference's own f0 and excitation
    for mode, without in (("isolated", set()), ("chained", parts)):
        for stage in set(tolerances()["isolated"]) - {"s3tokenizer.near_tie"} - without:
            row = Row(("a", "b"), mode, stage, "")
            assert any(checklist.belongs(row, box) for box in checklist.BOXES), (mode, stage)


def test_a_box_is_as_good_as_its_worst_row() -> None:
    good = fill(Row(("a", "b"), "isolated", "text.normalize", "x"), "abc", "abc")
    bad = fill(Row(("a", "b"), "isolated", "text.normalize", "y"), "abc", "abd")
    absent = Row(("a", "c"), "isolated", "text.normalize", "x", missing="no")
    assert checklist.verdict([good]) == "ok" and checklist.verdict([good, absent]) == "missing"
    assert checklist.verdict([good, absent, bad]) == "FAIL" and checklist.verdict([]) == "missing"
    words = checklist.answer([good, absent, bad])
    assert "a → b: 2 rows, 1 failed (text.normalize, y: 2 of 3 are equal" in words and "a → c: 1 rows, 1 not measured" in words


def test_the_answer_names_the_row_that_uses_most_of_its_limit() -> None:
    near = fill(Row(("a", "b"), "isolated", "s3gen.encoder", "near"), ONE, ONE * np.float32(1 + 4e-6))
    far = fill(Row(("a", "b"), "isolated", "s3gen.encoder", "far"), ONE, ONE)
    assert checklist.answer([far, near]) == (
        "a → b: 2 rows, worst relative rms 4.1e-06 of 1e-05 allowed (s3gen.encoder, near, isolated)."
    )


def test_sections_hold_every_row() -> None:
    rows = [fill(Row(("a", "b"), "chained", stage, "x"), ONE, ONE) for stage in ("s3gen.flow", "t3.loop", "watermark")]
    found = checklist.sections(rows, {"watermarking": "More."})
    boxes = {box["id"]: box for section in found for box in section["boxes"]}
    assert [section["title"][0] for section in found] == list("123456") and len(boxes) == 25
    assert boxes["s3gen_inference"]["rows"] == [0] and boxes["t3_inference"]["rows"] == [1]
    assert boxes["watermarking"]["answer"].endswith("More.") and boxes["t3_architecture"]["verdict"] == "missing"
