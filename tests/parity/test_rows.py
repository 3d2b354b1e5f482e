"""A comparison fails where it has to: wrong values, errors, missing stages, unexplained tokens."""

from __future__ import annotations

import json

import numpy as np
import pytest

from chatterbox_turbo_rs.parity import cases
from chatterbox_turbo_rs.parity.recording import Recording
from chatterbox_turbo_rs.parity.rows import Row, fill, near_ties
from chatterbox_turbo_rs.parity.stages import Comparison, mel_range, with_stop

MU = np.random.default_rng(1).standard_normal((40, 80)).astype(np.float32)
NO_CASES = cases.Cases((), (), ())


def comparison(stage: object) -> Comparison:
    def load(key: str) -> object:
        if isinstance(stage, Exception):
            raise stage
        return stage

    return Comparison(Recording("official"), "rust", load, NO_CASES)


def run(stage: object, reference: np.ndarray = MU, key: str = "s3gen.encoder") -> Row:
    found = comparison(stage)
    found.run(key, "case", reference, lambda s: s(3), 0.5)
    return found.rows[0]


def test_equal_passes_and_a_small_error_fails() -> None:
    assert run(lambda _: MU.copy()).verdict == "ok"
    row = run(lambda _: MU * np.float32(1.0001))
    assert row.verdict == "FAIL" and "relative_rms" in row.wrong[0]


def test_cropped_output_another_dtype_and_nan_fail() -> None:
    assert "shape" in run(lambda _: MU[:-1]).wrong[0]
    assert "dtype" in run(lambda _: MU.astype(np.float64)).wrong[0]
    assert "not finite" in run(lambda _: MU * np.float32("nan")).wrong[0]


def test_missing_and_raising_stages_are_told_apart() -> None:
    missing = run(ImportError("no such stage"))
    assert missing.verdict == "missing" and "no such stage" in (missing.missing or "")

    def raises(_: object) -> np.ndarray:
        raise ValueError("cannot")

    failed = run(raises)
    assert failed.verdict == "FAIL" and failed.wrong == ["ValueError: cannot"]


def test_a_stage_is_loaded_once_and_timed() -> None:
    loads: list[str] = []
    found = Comparison(Recording("official"), "rust", lambda key: loads.append(key) or (lambda _: MU), NO_CASES)
    for _ in range(3):
        found.run("s3gen.encoder", "case", MU, lambda s: s(3), 0.5)
    assert loads == ["s3gen.encoder"]
    assert all(row.seconds[0] == 0.5 and (row.seconds[1] or 0.0) > 0.0 for row in found.rows)


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
        row = fill(Row(("a", "b"), "isolated", "s3tokenizer.tokens", "case"), ids, ids + 1, official)
        assert row.verdict == verdict and bool(row.note) == (verdict == "ok")


def test_a_row_can_be_written() -> None:
    row = fill(Row(("a", "b"), "chained", "s3gen.encoder", "case"), MU, MU[:-1])
    json.dumps(row.as_dict(), allow_nan=False)
    assert row.as_dict()["verdict"] == "FAIL" and row.as_dict()["used"] is None


def test_chained_limits_are_the_isolated_ones_unless_named() -> None:
    loose = fill(Row(("a", "b"), "chained", "end_to_end@spectrum", "case"), MU.ravel(), MU.ravel())
    tight = fill(Row(("a", "b"), "isolated", "end_to_end@spectrum", "case"), MU.ravel(), MU.ravel())
    assert loose.allowed != tight.allowed
    with pytest.raises(KeyError, match="no limits for stage s3gen.nothing"):
        fill(Row(("a", "b"), "chained", "s3gen.nothing", "case"), MU, MU)


def test_the_range_of_a_mel() -> None:
    assert mel_range(np.array([[1.0, 0.5], [-1.0, -1.0]], np.float32)).tolist() == [1.0, -1.0, 0.5]


def test_the_stop_token_that_the_loop_took_off() -> None:
    assert with_stop(np.array([3, 4]), 3, 6562).tolist() == [3, 4, 6562]
    assert with_stop(np.array([3, 4]), 2, 6562).tolist() == [3, 4]
