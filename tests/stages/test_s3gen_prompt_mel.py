"""``s3gen.prompt_mel``: both implementations against the official package."""

from __future__ import annotations

import numpy as np
import pytest
from mel_suite import Golden, Stage, check_count, check_form, check_refusals, check_views, load

KEY = "s3gen.prompt_mel"
GOLDEN = Golden("s3gen_prompt_mel")


@pytest.fixture(params=["python", "rust"])
def impl(request: pytest.FixtureRequest) -> Stage:
    return load(KEY, request.param)


@pytest.mark.parametrize("clip", GOLDEN.clips)
def test_equals_the_official_package(impl: Stage, clip: str) -> None:
    found, expected = impl(GOLDEN.clip(clip)), GOLDEN.frames(clip)
    check_form(found, expected)
    assert np.abs(found - expected).max() < 2e-4


def test_equals_the_official_function_in_float64_where_float32_is_noise(impl: Stage) -> None:
    expected = GOLDEN.arrays["band_limited.float64"]
    found = impl(GOLDEN.arrays["band_limited"])
    check_form(found, expected)
    assert np.abs(found - expected).max() < 2e-5


@pytest.mark.parametrize(("samples", "frames"), GOLDEN.counts)
def test_frames_of_a_length(impl: Stage, samples: int, frames: int) -> None:
    check_count(impl, samples, frames)


def test_silence_is_the_floor(impl: Stage) -> None:
    np.testing.assert_allclose(impl(np.zeros(4800, np.float32)), np.log(1e-5), rtol=1e-6)


def test_views_and_read_only_clips(impl: Stage) -> None:
    check_views(impl)


def test_refusals(impl: Stage) -> None:
    check_refusals(impl, KEY, 721)
