"""``voice_encoder.mel``: both implementations against the official package."""

from __future__ import annotations

import numpy as np
import pytest
from mel_suite import Golden, Stage, check_count, check_form, check_refusals, check_views, load

KEY = "voice_encoder.mel"
GOLDEN = Golden("voice_encoder_mel")


@pytest.fixture(params=["python", "rust"])
def impl(request: pytest.FixtureRequest) -> Stage:
    return load(KEY, request.param)


@pytest.mark.parametrize("clip", GOLDEN.clips)
def test_equals_the_official_package(impl: Stage, clip: str) -> None:
    found, expected = impl(GOLDEN.clip(clip)), GOLDEN.frames(clip)
    check_form(found, expected)
    # The absolute part is for bands of a clip of zeros or one sample: far below the rounding of any audible band.
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("samples", "frames"), GOLDEN.counts)
def test_frames_of_a_length(impl: Stage, samples: int, frames: int) -> None:
    check_count(impl, samples, frames)


def test_silence_at_the_ends_is_cut_at_whole_hops(impl: Stage) -> None:
    start, end = 30 * 512, 50 * 512
    clip = np.zeros(80 * 512, np.float32)
    clip[start:end] = np.random.default_rng(3).uniform(-0.5, 0.5, end - start)
    # Frames of 2048 centred up to one hop outside still hear a quarter of the sound (-6 dB), the next ones nothing; the
    # clip ends one hop after the last frame's centre.
    kept = clip[start - 512 : end + 1024]
    found = impl(clip)
    assert len(found) == 1 + len(kept) // 160
    np.testing.assert_array_equal(found, impl(kept))


def test_a_quiet_passage_in_the_middle_stays(impl: Stage) -> None:
    loud = np.random.default_rng(4).uniform(-0.5, 0.5, 8000).astype(np.float32)
    clip = np.concatenate([loud, np.zeros(16000, np.float32), loud])
    assert len(impl(clip)) == 1 + len(clip) // 160


def test_views_and_read_only_clips(impl: Stage) -> None:
    check_views(impl)


def test_refusals(impl: Stage) -> None:
    check_refusals(impl, KEY, 1)
