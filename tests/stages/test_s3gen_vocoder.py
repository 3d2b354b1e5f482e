"""Behaviour of ``s3gen.vocoder``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from s3gen_suite import IMPLEMENTATIONS, assert_close, create, golden, refusal, stops_at_once

from chatterbox_turbo_rs.stages.s3gen.vocoder import FADE, HOP


@pytest.fixture(scope="module", params=IMPLEMENTATIONS)
def vocoder(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> Any:
    return create("vocoder", request.param, tiny_checkpoint)


def arguments(**changes: np.ndarray) -> list[np.ndarray]:
    return list(({name: golden("vocoder")[name] for name in ("mel", "phases", "noise")} | changes).values())


def test_f0_agrees_with_the_official_package(vocoder: Any) -> None:
    assert_close(vocoder.f0(golden("vocoder")["mel"]), golden("vocoder")["f0"], 1e-5)


def test_source_agrees_with_the_official_package(vocoder: Any) -> None:
    g = golden("vocoder")
    assert np.abs(vocoder.source(g["f0"], g["phases"], g["noise"]) - g["source"]).max() <= 1e-4


def test_samples_of_the_official_source_agree(vocoder: Any) -> None:
    """The golden has the fade-in, which ends after 960 samples; its last factor is 1."""
    g = golden("vocoder")
    samples = vocoder.samples_from_source(g["mel"], g["source"])
    assert samples.shape == g["samples"].shape
    assert np.abs(samples - g["samples"])[2 * FADE - 1 :].max() <= 1e-4 * np.abs(g["samples"]).max()


def test_samples_agree_with_the_official_package(vocoder: Any) -> None:
    g = golden("vocoder")
    samples = vocoder(*arguments())
    assert samples.shape == (HOP * len(g["mel"]),)
    assert np.abs(samples - g["samples"]).max() <= 1e-3 * np.abs(g["samples"]).max()


def test_fades_in(vocoder: Any) -> None:
    g = golden("vocoder")
    faded, plain = (
        vocoder(*arguments()),
        vocoder.samples_from_source(g["mel"], vocoder.source(vocoder.f0(g["mel"]), *arguments()[1:])),
    )
    assert not faded[: FADE + 1].any() and np.array_equal(faded[2 * FADE - 1 :], plain[2 * FADE - 1 :])
    middle = FADE + FADE // 2
    assert abs(faded[middle] - plain[middle] / 2) < 0.01 * np.abs(plain[middle]) + 1e-6


def test_the_fundamental_starts_at_phase_zero(vocoder: Any) -> None:
    phases = golden("vocoder")["phases"].copy()
    phases[0] += 1
    assert np.array_equal(vocoder(*arguments(phases=phases)), vocoder(*arguments()))
    phases[1] += 1
    assert not np.array_equal(vocoder(*arguments(phases=phases)), vocoder(*arguments()))


@pytest.mark.parametrize("frames", [2, 3])
def test_short_mels(vocoder: Any, frames: int) -> None:
    g = golden("vocoder")
    samples = vocoder(g["mel"][:frames], g["phases"], g["noise"][: HOP * frames])
    assert samples.shape == (HOP * frames,) and np.isfinite(samples).all() and np.abs(samples).max() <= 0.99


def test_one_frame_has_samples_but_no_room_for_the_fade(vocoder: Any) -> None:
    g = golden("vocoder")
    assert vocoder.samples_from_source(g["mel"][:1], g["source"][:HOP]).shape == (HOP,)
    message = refusal(vocoder, g["mel"][:1], g["phases"], g["noise"][:HOP])
    assert "mel: expected at least 2 frames (the length of the fade-in), got 1" in message


def test_loud_input_stays_within_the_limit(vocoder: Any) -> None:
    g = golden("vocoder")
    samples = vocoder.samples_from_source(g["mel"] * 40, g["source"])
    assert np.isfinite(samples).all() and np.abs(samples).max() == np.float32(0.99)


def bad(name: str, value: np.ndarray, message: str) -> Any:
    return pytest.param({name: value}, message, id=message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        bad("mel", np.zeros((0, 80), np.float32), "mel: expected at least 2 frames"),
        bad("mel", np.zeros((20, 81), np.float32), "mel: expected shape [rows, 80], got [20, 81]"),
        bad("mel", np.full((20, 80), np.inf, np.float32), "mel: expected finite values, got inf at 0"),
        bad("phases", np.zeros(8, np.float32), "phases: expected 9 values, got 8"),
        bad("phases", np.full(9, np.nan, np.float32), "phases: expected finite values"),
        bad("noise", np.zeros((9599, 9), np.float32), "noise: expected shape [9600, 9], got [9599, 9]"),
    ],
)
def test_bad_arguments_are_named(vocoder: Any, changes: dict[str, np.ndarray], message: str) -> None:
    assert message in refusal(vocoder, *arguments(**changes))


def test_a_source_of_another_length_is_named(vocoder: Any) -> None:
    message = refusal(vocoder.samples_from_source, golden("vocoder")["mel"], np.zeros(9599, np.float32))
    assert "source: expected 9600 values, got 9599" in message


def test_a_callback_stops_the_work(vocoder: Any) -> None:
    assert stops_at_once(vocoder, *arguments()) == 1
