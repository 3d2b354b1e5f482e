"""The comparison finds every kind of difference, and never makes two arrays fit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from chatterbox_turbo_rs.parity import tolerances as tolerances_module
from chatterbox_turbo_rs.parity.metrics import compare, log_spectra
from chatterbox_turbo_rs.parity.tolerances import describe, judge, limits, margin, tolerances

RNG = np.random.default_rng(3)
MEL = RNG.standard_normal((50, 80)).astype(np.float32)
WAVE = RNG.standard_normal(4800).astype(np.float32)


def test_equal_arrays_are_exact() -> None:
    figures = compare(MEL, MEL.copy())
    assert figures.exact and figures.max_abs == 0 and figures.norm_ratio == 1 and figures.worst_cosine == pytest.approx(1)
    assert compare("naïve", "naïve").exact and compare(np.arange(4), np.arange(4)).exact


@pytest.mark.parametrize("other", [MEL[:-1], MEL[:, :-1], MEL[None], np.concatenate([MEL, MEL[-1:]])])
def test_other_shape_fails_and_is_not_cropped(other: np.ndarray) -> None:
    figures = compare(MEL, other)
    assert not figures.comparable and math.isnan(figures.max_abs)
    assert "shape" in judge(figures, {"max_abs": 1e9})[0]
    assert margin(figures, {"max_abs": 1e9}) == math.inf


def test_other_dtype_fails() -> None:
    assert judge(compare(MEL, MEL.astype(np.float64)), {"max_abs": 1e9})
    assert judge(compare(np.arange(3), np.arange(3, dtype=np.int32)), {"exact": True})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_a_single_number_that_is_not_finite_fails(value: float, side: int) -> None:
    pair = [MEL, MEL.copy()]
    pair[side] = MEL.copy()
    pair[side][7, 3] = value
    figures = compare(*pair)
    assert figures.non_finite == 1
    assert judge(figures, {"relative_rms": 1e9}) == ["1 numbers are not finite"]


def test_not_finite_in_both_fails_too() -> None:
    both = MEL.copy()
    both[0, 0] = np.nan
    assert compare(both, both).non_finite == 2


def test_wrong_scale_is_seen_though_the_cosine_is_one() -> None:
    figures = compare(MEL, MEL * np.float32(1.5))
    assert figures.worst_cosine == pytest.approx(1) and figures.norm_ratio == pytest.approx(1.5)
    assert figures.relative_rms == pytest.approx(0.5)


def test_one_wrong_frame_of_a_long_signal_is_seen() -> None:
    other = MEL.copy()
    other[31] = -other[31]
    assert compare(MEL, other).worst_cosine == pytest.approx(-1)
    wave = WAVE.copy()
    wave[960:1440] = 0
    figures = compare(WAVE, wave)
    assert figures.worst_cosine == 0 and figures.prefix == 960


def test_figures_have_their_values() -> None:
    a, b = np.array([3.0, -4.0], np.float32), np.array([3.0, -3.0], np.float32)
    figures = compare(a, b)
    assert (figures.max_abs, figures.mean_abs, figures.peak, figures.relative_rms) == (1.0, 0.5, 0.25, 0.2)
    assert figures.prefix == 1


def test_zeros_and_empty_arrays() -> None:
    zeros = np.zeros((4, 3), np.float32)
    assert compare(zeros, zeros.copy()).worst_cosine == 1 and compare(zeros, zeros.copy()).exact
    assert compare(zeros, zeros + np.float32(1)).relative_rms == math.inf
    assert judge(compare(zeros, zeros + np.float32(1)), {"relative_rms": 1e9})
    assert compare(zeros[:0], zeros[:0]).exact


def test_log_spectra_see_pitch_and_level_but_little_of_the_phase() -> None:
    time = np.arange(24000) / 24000
    tone = (0.5 * np.sin(2 * np.pi * 220 * time)).astype(np.float32)

    def difference(other: np.ndarray) -> float:
        return compare(*log_spectra(tone, other.astype(np.float32))).mean_abs

    assert difference(tone) == 0
    assert difference(0.5 * np.sin(2 * np.pi * 220 * time + 1e-3)) < 0.1  # rms of the difference: 1e-3
    assert difference(0.5 * np.sin(2 * np.pi * 225 * time)) > 0.3
    assert difference(tone * 1.5) > 0.1
    assert difference(np.roll(tone, 12000) * 0) > 1
    assert not compare(*log_spectra(tone, tone[:-1])).comparable
    assert not compare(*log_spectra(tone, tone * np.float32(np.nan))).comparable


def test_token_prefix() -> None:
    figures = compare(np.array([5, 6, 7, 8]), np.array([5, 6, 9, 8]))
    assert figures.prefix == 2 and not figures.exact
    assert judge(figures, {"exact": True}) == ["2 of 4 are equal before the first difference"]
    shorter = compare(np.array([5, 6, 7]), np.array([5, 6]))
    assert shorter.prefix == 2 and not shorter.exact and judge(shorter, {"exact": True})


def test_reports_hold_no_number_that_json_lacks() -> None:
    assert compare(MEL, MEL[:3]).as_dict()["max_abs"] is None


def test_every_limit_is_enforced() -> None:
    figures = compare(MEL, MEL + np.float32(1e-3))
    for name in ("max_abs", "mean_abs", "peak", "relative_rms"):
        found = getattr(figures, name)
        assert judge(figures, {name: found * 0.99}) and not judge(figures, {name: found * 1.01})
        assert margin(figures, {name: found}) == pytest.approx(1)
    assert judge(figures, {"worst_cosine": 1.0}) and not judge(figures, {"worst_cosine": 0.99})


def test_every_stage_has_a_tolerance() -> None:
    keys = "text.normalize text.tokenize reference.load reference.loudness voice_encoder.mel voice_encoder.embedding s3tokenizer.mel "
    keys += (
        "s3tokenizer.tokens speaker_encoder.fbank speaker_encoder.xvector s3gen.prompt_mel t3.decoder t3.sampler s3gen.encoder "
    )
    keys += "s3gen.flow s3gen.vocoder@spectrum s3gen.vocoder@f0 s3gen.vocoder@source s3gen.vocoder@decoder watermark end_to_end@spectrum reference.resample@w16 reference.resample@r16"
    for key in keys.split():
        assert describe(limits(key)) and describe(limits(key, "chained"))
    with pytest.raises(KeyError, match="no limits for stage s3gen.other"):
        limits("s3gen.other")
    assert set(tolerances()) == {"isolated", "chained", "loaded", "taps", "cuda/f32", "metal/f32"}


def test_a_device_has_its_own_limits_and_else_those_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {**tolerances(), "cuda/f32": {"s3gen.flow": {"relative_rms": 1e-3}}}
    monkeypatch.setattr(tolerances_module, "tolerances", lambda: table)
    assert limits("s3gen.flow", device="cuda:1") == limits("s3gen.flow", "chained", "cuda") == {"relative_rms": 1e-3}
    assert limits("s3gen.flow", device="metal") == limits("s3gen.flow") == {"relative_rms": 1e-5}
    assert limits("end_to_end@spectrum", "chained", "cuda") == limits("end_to_end@spectrum", "chained")
