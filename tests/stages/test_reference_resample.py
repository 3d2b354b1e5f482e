"""`reference.resample`: librosa's soxr HQ over the whole clip, torchaudio's sinc over its first 10 s."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import reference_clips as clips

from chatterbox_turbo_rs.errors import ArgumentError
from chatterbox_turbo_rs.stages.reference.soxr_hq import soxr_hq

GOLDENS = Path(__file__).parents[1] / "goldens"
GOLDEN = np.load(GOLDENS / "reference_resample.npz")
LENGTHS = json.loads((GOLDENS / "reference_resample_lengths.json").read_text())
SIGNALS = {
    "tones": lambda: clips.tones(24_000, 10.5),
    "sweep": lambda: clips.sweep(24_002),
    "noise": lambda: clips.noise(24_001),
    "impulses": lambda: clips.impulses(3_000),
    "one": lambda: np.array([0.5], np.float32),
}


@pytest.fixture(params=["python", "rust"])
def impl(request):
    return importlib.import_module(f"chatterbox_turbo_rs.stages.reference.resample.{request.param}").create(None)


@pytest.mark.parametrize("name", SIGNALS)
def test_equals_official(impl, name):
    x = SIGNALS[name]()
    assert clips.digest(x) == GOLDEN[f"{name}.digest"], "the clip is not the golden's"
    for key, got in zip(("w16", "r16"), impl(x), strict=True):
        assert got.dtype == np.float32 and got.flags.c_contiguous
        assert len(got) == GOLDEN[f"{name}.{key}.length"], key
        assert np.abs(clips.probe(got, 41) - GOLDEN[f"{name}.{key}"]).max() < 1e-6, key


def test_the_sample_that_librosa_appends_is_zero(impl):
    w16, r16 = impl(np.full(24_002, 0.5, np.float32))
    assert len(w16) == 16_002 and w16[-1] == 0 and r16[-1] != 0


def test_lengths_at_24_to_16_khz(impl):
    for n, want in LENGTHS["24000-16000"]:
        w16, r16 = impl(np.zeros(n, np.float32))
        assert (len(w16), len(r16)) == (want, -(-2 * min(n, 240_000) // 3)), n


@pytest.mark.parametrize("pair", LENGTHS)
def test_lengths_of_the_python_side_at_any_rate(pair):
    source, target = map(int, pair.split("-"))
    for n, want in LENGTHS[pair]:
        assert len(soxr_hq(np.zeros(n, np.float32), source, target)) == want, n


def test_only_ten_seconds_reach_r16(impl):
    x = clips.noise(240_300)
    _, whole = impl(x)
    _, first = impl(x[:240_000])
    assert len(whole) == 160_000
    np.testing.assert_array_equal(whole, first)


def test_the_two_signals_differ(impl):
    w16, r16 = impl(clips.noise(24_000))
    assert np.linalg.norm(w16 - r16) > 1e-2 * np.linalg.norm(r16)


def test_empty(impl):
    w16, r16 = impl(np.zeros(0, np.float32))
    assert w16.shape == r16.shape == (0,) and w16.dtype == r16.dtype == np.float32


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_samples(impl, bad):
    x = clips.noise(3_000)
    x[7] = bad
    with pytest.raises(ArgumentError, match=r"samples: expected finite values, got (?i:nan|inf) at 7"):
        impl(x)


@pytest.mark.parametrize("x", [np.zeros(9, np.float64), np.zeros((3, 3), np.float32), np.zeros(9, np.int16), [0.0, 0.1], None])
def test_unusable_samples(impl, x):
    with pytest.raises(ArgumentError, match=r"samples: expected float32 \[n\], got"):
        impl(x)
