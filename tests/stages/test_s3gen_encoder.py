"""Behaviour of ``s3gen.encoder``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from s3gen_suite import IMPLEMENTATIONS, assert_close, create, golden, refusal, stops_at_once


@pytest.fixture(scope="module", params=IMPLEMENTATIONS)
def encoder(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> Any:
    return create("encoder", request.param, tiny_checkpoint)


@pytest.mark.parametrize("case", ["a", "b"])
def test_agrees_with_the_official_package(encoder: Any, case: str) -> None:
    assert_close(encoder(golden("encoder")[f"{case}.ids"]), golden("encoder")[f"{case}.mu"], 1e-5)


def test_one_token_is_enough(encoder: Any) -> None:
    mu = encoder(np.array([4299]))
    assert mu.shape == (2, 80) and np.isfinite(mu).all()


def test_attends_to_the_whole_sequence(encoder: Any) -> None:
    """A token changes frames far before and far after it."""
    ids = golden("encoder")["a.ids"].copy()
    before = encoder(ids)
    ids[18] = (ids[18] + 1000) % 6561
    changed = np.abs(encoder(ids) - before).max(axis=1)
    assert changed[0] > 1e-4 and changed[-1] > 1e-4


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.array([], np.int64), "s3gen.encoder: ids: expected at least one token"),
        (np.array([1, 6561]), "ids: id 6561 at position 1, expected 0 to 6560"),
        (np.array([-1]), "ids: id -1 at position 0, expected 0 to 6560"),
        (np.array([1.0], np.float32), "ids: expected int64 [n], got float32"),
        (np.array([[1]]), "ids: expected int64 [n], got int64 array of shape (1, 1)"),
    ],
)
def test_bad_ids_are_named(encoder: Any, ids: np.ndarray, message: str) -> None:
    assert message in refusal(encoder, ids)


def test_a_callback_stops_the_work(encoder: Any) -> None:
    assert stops_at_once(encoder, golden("encoder")["a.ids"]) == 1
