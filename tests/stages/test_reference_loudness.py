"""`reference.loudness`: pyloudnorm's measure and upstream's gain, and the checklist's RMS variant."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import reference_clips as clips

from chatterbox_turbo_rs.errors import ArgumentError

GOLDEN = np.load(Path(__file__).parents[1] / "goldens" / "reference_loudness.npz")
SIGNALS = {
    "tones": lambda: clips.tones(24_000, 5.4),
    "quiet": lambda: clips.tones(24_000, 5.4) * np.float32(0.002),
    "sweep": lambda: clips.sweep(130_000),
    "noise": lambda: clips.noise(130_000),
}


@pytest.fixture(params=["python", "rust"])
def module(request):
    return importlib.import_module(f"chatterbox_turbo_rs.stages.reference.loudness.{request.param}")


@pytest.fixture
def impl(module):
    return module.create(None)


@pytest.mark.parametrize("name", SIGNALS)
def test_equals_official(module, impl, name):
    x = SIGNALS[name]()
    assert clips.digest(x) == GOLDEN[f"{name}.digest"], "the clip is not the golden's"
    assert abs(module.measure(x) - GOLDEN[f"{name}.lufs"]) < 1e-5
    before = x.copy()
    got = impl(x)
    np.testing.assert_array_equal(x, before)
    assert got.dtype == np.float32 and got.shape == x.shape
    want = GOLDEN[name]
    assert np.abs(clips.probe(got) - want).max() <= 2e-7 * np.abs(want).max()


def test_block_count_rounds_as_pyloudnorm_does(module):
    x = SIGNALS["tones"]()
    for n, want in zip(GOLDEN["lengths"], GOLDEN["lengths.lufs"], strict=True):
        assert abs(module.measure(x[:n]) - want) < 1e-5, n


def test_a_clip_that_cannot_be_measured_is_unchanged(module, impl):
    short = clips.noise(9_599)
    assert module.measure(short) is None
    for x in (np.zeros(0, np.float32), short, np.zeros(130_000, np.float32), clips.noise(130_000) * np.float32(1e-6)):
        np.testing.assert_array_equal(impl(x), x)
    assert module.measure(np.zeros(130_000, np.float32)) == -np.inf
    assert module.measure(clips.noise(9_600)) is not None


def test_a_nan_ends_the_measured_part(module, impl):
    """As in pyloudnorm: the filters carry it to every later block, and no gate lets such a block pass."""
    x = clips.noise(130_000)
    x[50_000] = np.nan
    assert abs(module.measure(x) - GOLDEN["nan.lufs"]) < 1e-5
    x[0] = np.nan
    np.testing.assert_array_equal(impl(x), x)
    np.testing.assert_array_equal(impl(x, "rms"), x)


def test_rms_reaches_its_target_with_a_gain_of_at_most_ten(impl):
    x = clips.noise(130_000)
    level = np.sqrt(np.mean(impl(x, "rms").astype(np.float64) ** 2))
    assert abs(20 * np.log10(level) + 27) < 1e-5
    faint = x * np.float32(1e-4)
    np.testing.assert_array_equal(impl(faint, method="rms"), faint * np.float32(10))
    silent = np.zeros(1_000, np.float32)
    np.testing.assert_array_equal(impl(silent, "rms"), silent)


def test_the_result_is_a_new_array(impl):
    x = np.zeros(130_000, np.float32)
    impl(x)[:] = 1
    assert not x.any()


@pytest.mark.parametrize("method", ["lufs", "", "BS1770"])
def test_unknown_method(impl, method):
    with pytest.raises(ArgumentError, match=f'method: expected "bs1770" or "rms", got "{method}"'):
        impl(clips.noise(9_600), method)


@pytest.mark.parametrize("x", [np.zeros(9, np.float64), np.zeros((3, 3), np.float32), np.zeros(9, np.int16), [0.0, 0.1], None])
def test_unusable_samples(impl, x):
    with pytest.raises(ArgumentError, match=r"samples: expected float32 \[n\], got"):
        impl(x)
