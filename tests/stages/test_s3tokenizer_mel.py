"""``s3tokenizer.mel``: both implementations against the official package."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mel_suite import TESTS, Golden, Stage, check_count, check_form, check_refusals, check_views, load
from safetensors.numpy import save_file

from chatterbox_turbo_rs.checkpoint.resources import Resources
from chatterbox_turbo_rs.errors import CheckpointError

KEY = "s3tokenizer.mel"
GOLDEN = Golden("s3tokenizer_mel")


def resources(directory: Path, **tensors: np.ndarray) -> Resources:
    """A checkpoint directory whose S3Gen file holds these tensors of the tokenizer."""
    config = json.loads((TESTS / "data" / "tiny.json").read_text())
    for name in config["files"].values():
        content = {f"tokenizer.{k}": v for k, v in tensors.items()} if name == config["files"]["s3gen"] else {}
        save_file(content or {"nothing": np.zeros(1, np.float32)}, directory / name)
    return Resources(directory, config)


@pytest.fixture(params=["python", "rust"])
def implementation(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def impl(implementation: str, tmp_path: Path) -> Stage:
    arrays = GOLDEN.arrays
    return load(KEY, implementation, resources(tmp_path, window=arrays["window"], _mel_filters=arrays["filters"]))


@pytest.mark.parametrize("clip", GOLDEN.clips)
def test_equals_the_official_package(impl: Stage, clip: str) -> None:
    found, expected = impl(GOLDEN.clip(clip)), GOLDEN.frames(clip)
    check_form(found, expected)
    assert np.abs(found - expected).max() < 1e-4


def test_window_and_filters_come_from_the_checkpoint(implementation: str, tmp_path: Path) -> None:
    arrays = GOLDEN.arrays
    stage = load(KEY, implementation, resources(tmp_path, window=arrays["other.window"], _mel_filters=arrays["other.filters"]))
    found, expected = stage(GOLDEN.clip("speech")[:4000]), arrays["other.expected"]
    check_form(found, expected)
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize(("samples", "frames"), GOLDEN.counts)
def test_frames_of_a_length(impl: Stage, samples: int, frames: int) -> None:
    check_count(impl, samples, frames)


def test_nothing_is_more_than_80_db_below_the_largest_value(impl: Stage) -> None:
    found = impl(GOLDEN.clip("loud_then_silent"))
    assert found.min() == pytest.approx(found.max() - 2.0, abs=1e-6)


def test_views_and_read_only_clips(impl: Stage) -> None:
    check_views(impl)


def test_refusals(impl: Stage) -> None:
    check_refusals(impl, KEY, 201)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"window": None}, r"tensor tokenizer\.window is missing"),
        ({"_mel_filters": None}, r"tensor tokenizer\._mel_filters is missing"),
        ({"window": np.ones(512, np.float32)}, r"tensor tokenizer\.window: expected shape \[400\], found \[512\]"),
        (
            {"_mel_filters": np.ones((80, 201), np.float32)},
            r"tensor tokenizer\._mel_filters: expected shape \[128, 201\], found \[80, 201\]",
        ),
        ({"window": np.full(400, np.nan, np.float32)}, r"tensor tokenizer\.window: .*finite"),
    ],
)
def test_a_damaged_checkpoint_is_refused(
    implementation: str, tmp_path: Path, changed: dict[str, np.ndarray | None], message: str
) -> None:
    tensors = {"window": GOLDEN.arrays["window"], "_mel_filters": GOLDEN.arrays["filters"]} | changed
    tensors = {name: value for name, value in tensors.items() if value is not None}
    with pytest.raises(CheckpointError, match=message):
        load(KEY, implementation, resources(tmp_path, **tensors))
