"""``speaker_encoder.fbank``: both implementations against the official package."""

from __future__ import annotations

import numpy as np
import pytest
from mel_suite import Golden, Stage, check_count, check_form, check_refusals, check_views, load

KEY = "speaker_encoder.fbank"
GOLDEN = Golden("speaker_encoder_fbank")


@pytest.fixture(params=["python", "rust"])
def impl(request: pytest.FixtureRequest) -> Stage:
    return load(KEY, request.param)


@pytest.mark.parametrize("clip", GOLDEN.clips)
def test_equals_the_official_package(impl: Stage, clip: str) -> None:
    found, expected = impl(GOLDEN.clip(clip)), GOLDEN.frames(clip)
    check_form(found, expected)
    difference = np.abs(found - expected)
    assert difference.max() < 2e-3
    assert difference.mean() < 1e-5


@pytest.mark.parametrize(("samples", "frames"), GOLDEN.counts)
def test_frames_of_a_length(impl: Stage, samples: int, frames: int) -> None:
    check_count(impl, samples, frames)


def test_every_band_has_mean_zero(impl: Stage) -> None:
    np.testing.assert_allclose(impl(GOLDEN.clip("speech")).mean(axis=0, dtype=np.float64), 0, atol=1e-5)


def test_an_offset_and_the_level_do_not_matter(impl: Stage) -> None:
    clip = np.random.default_rng(5).uniform(-0.2, 0.2, 8000).astype(np.float32)
    np.testing.assert_allclose(impl(clip + np.float32(0.5)), impl(clip), atol=2e-3)
    np.testing.assert_allclose(impl(clip * np.float32(0.5)), impl(clip), atol=1e-5)


def test_views_and_read_only_clips(impl: Stage) -> None:
    check_views(impl)


def test_refusals(impl: Stage) -> None:
    check_refusals(impl, KEY, 400)
