"""The comparison with the official package fails where it has to: wrong values, errors, missing stages, unexplained tokens."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("safetensors", reason="the parity tools read safetensors")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from parity_official import TEXTS, table, write_job
from parity_stages import Parity, near_ties

MU = np.random.default_rng(1).standard_normal((40, 80)).astype(np.float32)


def parity(stage: object) -> Parity:
    def load(key: str) -> object:
        if isinstance(stage, Exception):
            raise stage
        return stage

    return Parity(load, {})


def run(stage: object, reference: np.ndarray = MU, key: str = "s3gen.encoder") -> Parity:
    found = parity(stage)
    found.check("isolated", key, "case", reference, lambda s: s(3), 0.5)
    return found


def test_equal_passes_and_a_small_error_fails() -> None:
    assert run(lambda _: MU.copy()).rows[0].verdict == "ok"
    row = run(lambda _: MU * np.float32(1.0001)).rows[0]
    assert row.verdict == "FAIL" and "relative_rms" in row.wrong[0]


def test_cropped_output_fails() -> None:
    assert "shape" in run(lambda _: MU[:-1]).rows[0].wrong[0]


def test_missing_and_raising_stages_are_told_apart() -> None:
    missing = run(ImportError("no such stage")).rows[0]
    assert missing.verdict == "missing" and "no such stage" in (missing.missing or "")

    def raises(_: object) -> np.ndarray:
        raise ValueError("cannot")

    failed = run(raises).rows[0]
    assert failed.verdict == "FAIL" and failed.wrong == ["ValueError: cannot"]


def test_a_stage_is_loaded_once() -> None:
    loads = []
    found = Parity(lambda key: loads.append(key) or (lambda _: MU), {})
    for _ in range(3):
        found.check("isolated", "s3gen.encoder", "case", MU, lambda s: s(3), None)
    assert loads == ["s3gen.encoder"]


def levels(values: list[float]) -> tuple[np.ndarray, np.ndarray]:
    array = np.array([values], np.float32)
    return array, ((np.rint(array) + 1) @ 3 ** np.arange(8)).astype(np.int64)


def test_only_a_near_tie_explains_another_token() -> None:
    near, ids = levels([0.49995, -0.9, 0.1, 0.2, 0.9, -0.6, 0.7, 0.0])
    assert near_ties(ids, ids + 1, near, 1e-4) == 1  # digit 0 rounds up instead
    assert near_ties(ids, ids + 3, near, 1e-4) is None  # digit 1 is far from a tie
    assert near_ties(ids, ids + 1, near + 1e-3, 1e-4) is None
    far, ids = levels([-0.50001, -0.9, 0.1, 0.2, 0.9, -0.6, 0.7, 0.0])
    assert near_ties(ids, ids + 2, far, 1e-4) is None  # from 0 to 2 is no rounding


def test_tokens_pass_with_an_explanation_and_fail_without() -> None:
    near, ids = levels([0.49995, -0.9, 0.1, 0.2, 0.9, -0.6, 0.7, 0.0])
    for official, verdict in ((near, "ok"), (near + np.float32(0.01), "FAIL")):
        found = parity(lambda _: ids + 1)
        found.check("isolated", "s3tokenizer.tokens", "case", ids, lambda s: s(0), None, levels=official)
        assert found.rows[0].verdict == verdict
        assert bool(found.rows[0].note) == (verdict == "ok")


def test_table_shows_the_worst_case_and_every_failure() -> None:
    found = parity(lambda scale: MU * np.float32(scale))
    for case, scale in (("good", 1.0), ("bad", 1.1), ("fine", 1.000001)):
        found.check("isolated", "s3gen.encoder", case, MU, lambda s: s(scale), 0.5)
    text = table(found.rows, every=False)
    assert "bad (of 3)" in text and "good" not in text and "FAIL: isolated s3gen.encoder, bad" in text
    assert len(table(found.rows, every=True).splitlines()) == 6
    json.dumps([row.as_dict() for row in found.rows], allow_nan=False)


def test_job_is_the_same_every_time_and_covers_ten_texts(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for directory in (first, second):
        directory.mkdir()
        write_job(directory, tmp_path)
    assert (first / "draws.safetensors").read_bytes() == (second / "draws.safetensors").read_bytes()
    assert (first / "job.json").read_text() == (second / "job.json").read_text()
    assert len(TEXTS) == 10 and len({text["name"] for text in TEXTS}) == 10
    assert "" in [text["text"] for text in TEXTS] and max(len(text["text"]) for text in TEXTS) > 5000
