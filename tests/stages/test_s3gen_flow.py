"""Behaviour of ``s3gen.flow``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from s3gen_suite import IMPLEMENTATIONS, assert_close, create, golden, refusal, stops_at_once


@pytest.fixture(scope="module", params=IMPLEMENTATIONS)
def flow(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> Any:
    return create("flow", request.param, tiny_checkpoint)


def arguments(case: str = "even", **changes: np.ndarray) -> list[np.ndarray]:
    g = golden("flow")
    values = {"mu": g["mu"], "xvector": g["xvector"], "prompt_mel": g[f"{case}.prompt_mel"], "noise": g[f"{case}.noise"]}
    return list((values | changes).values())


@pytest.mark.parametrize("case", ["even", "odd", "no_prompt"])
def test_agrees_with_the_official_package(flow: Any, case: str) -> None:
    """An even prompt, an odd one (one output frame fewer), and none."""
    assert_close(flow(*arguments(case)), golden("flow")[f"{case}.mel"], 1e-5)


def test_the_length_of_the_xvector_does_not_count(flow: Any) -> None:
    assert_close(flow(*arguments(xvector=golden("flow")["xvector"] * 7)), golden("flow")["even.mel"], 1e-5)
    silent = flow(*arguments(xvector=np.zeros(192, np.float32)))
    assert np.isfinite(silent).all() and np.abs(silent - golden("flow")["even.mel"]).max() > 1e-3


def test_a_prompt_of_full_length_leaves_nothing(flow: Any) -> None:
    assert flow(*arguments(prompt_mel=golden("flow")["mu"])).shape == (0, 80)


def test_noise_of_the_prompt_counts_too(flow: Any) -> None:
    noise = golden("flow")["even.noise"].copy()
    noise[:40] = 0
    assert np.abs(flow(*arguments(noise=noise)) - golden("flow")["even.mel"]).max() > 1e-3


def bad(name: str, value: np.ndarray, message: str) -> Any:
    return pytest.param({name: value}, message, id=message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        bad("mu", np.zeros((0, 80), np.float32), "noise: expected shape [0, 80], got [74, 80]"),
        bad("mu", np.zeros((74, 79), np.float32), "mu: expected shape [rows, 80], got [74, 79]"),
        bad("mu", np.full((74, 80), np.nan, np.float32), "mu: expected finite values, got NaN at 0"),
        bad("xvector", np.zeros(80, np.float32), "xvector: expected 192 values, got 80"),
        bad("xvector", np.full(192, np.inf, np.float32), "xvector: expected finite values, got inf"),
        bad("prompt_mel", np.zeros((75, 80), np.float32), "prompt_mel: expected at most the 74 frames of mu, got 75"),
        bad("prompt_mel", np.zeros((4, 80)), "prompt_mel: expected float32 [time, channels], got float64"),
        bad("noise", np.zeros((73, 80), np.float32), "noise: expected shape [74, 80], got [73, 80]"),
    ],
)
def test_bad_arguments_are_named(flow: Any, changes: dict[str, np.ndarray], message: str) -> None:
    assert message in refusal(flow, *arguments(**changes))


def test_no_frames_are_refused(flow: Any) -> None:
    empty = np.zeros((0, 80), np.float32)
    assert "mu: expected at least one frame" in refusal(flow, *arguments(mu=empty, prompt_mel=empty, noise=empty))


def test_a_callback_stops_the_work(flow: Any) -> None:
    assert stops_at_once(flow, *arguments()) == 1
