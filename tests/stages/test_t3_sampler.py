"""`t3.sampler`: tokens of the official package's processors, each parameter's edges, bad input."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from chatterbox_turbo_rs.engine import draws
from chatterbox_turbo_rs.errors import ArgumentError
from chatterbox_turbo_rs.stages.t3.sampler import SamplerParameters, python, rust

ROOT = Path(__file__).parents[2]
OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
NONE = np.zeros(0, np.int64)
INF = np.inf


def load_maker():
    spec = importlib.util.spec_from_file_location("t3_sampler_golden", ROOT / "tools/goldens/t3_sampler.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    return maker


@pytest.fixture(params=["python", "rust"])
def impl(request):
    return importlib.import_module(f"chatterbox_turbo_rs.stages.t3.sampler.{request.param}").create(None)


def possible(impl, logits, history=NONE, **changes):
    """The set of tokens that any uniform can choose."""
    parameters = SamplerParameters(**{**OFF, **changes})
    logits, history = np.array(logits, np.float32), np.array(history, np.int64)
    return {impl(logits, history, parameters, u) for u in np.linspace(0, 1, 4000, endpoint=False)}


def test_official_tokens(impl):
    maker, golden = load_maker(), np.load(ROOT / "tests/goldens/t3_sampler.npz")
    assert len(golden["tokens"]) == maker.CASES >= 500
    for index, expected in enumerate(golden["tokens"]):
        logits, history, parameters, uniforms = inputs = maker.case(index)
        assert maker.digest(*inputs) == golden["digests"][index], "the golden was made from other inputs"
        found = [impl(logits, history, SamplerParameters(**parameters), u) for u in uniforms]
        assert [-1 if token is None else token for token in found] == expected.tolist(), (index, parameters)


def test_official_number_of_kept_tokens():
    maker, golden = load_maker(), np.load(ROOT / "tests/goldens/t3_sampler.npz")
    for index, expected in enumerate(golden["kept"]):
        logits, history, parameters, _ = maker.case(index)
        scores = python.process(logits, history, SamplerParameters(**parameters))
        assert np.count_nonzero(scores > -INF) == expected, (index, parameters)


def test_implementations_agree():
    for index in range(3000):
        logits = draws.normals(11, "test", index, 1, 1500)[0] * np.float32(3)
        history = np.argsort(logits)[-20:].astype(np.int64)
        uniform = draws.uniforms(11, "test.uniform", index, 1)[0]
        arguments = (logits, history, SamplerParameters(), uniform)
        assert python.sample(*arguments) == rust.sample(*arguments), index


def test_inputs_are_not_changed(impl):
    logits, history = np.arange(10, dtype=np.float32), np.array([9, 9, 3], np.int64)
    impl(logits, history, SamplerParameters(), 0.5)
    assert logits.tolist() == list(range(10)) and history.tolist() == [9, 9, 3]


def test_all_impossible_is_none(impl):
    assert impl(np.full(5, -INF, np.float32), NONE, SamplerParameters(), 0.5) is None


def test_top_k(impl):
    logits = [1.0, 3.0, 2.0, 2.0, 0.0]
    assert possible(impl, logits, top_k=1) == {1}
    assert possible(impl, logits, top_k=2) == {1, 2, 3}, "ties of the last place stay"
    for off in (0, -1, 5, 100, 10**30):
        assert possible(impl, logits, top_k=off) == {0, 1, 2, 3, 4}


def test_top_p(impl):
    logits = np.log([0.5, 0.25, 0.125, 0.125])
    assert possible(impl, logits, top_p=0.0) == {0}
    assert possible(impl, logits, top_p=0.6) == {0, 1}
    assert possible(impl, logits, top_p=0.8) == {0, 1, 3}, "of equal scores the higher id stays"
    for off in (1.0, 2.0, INF):
        assert possible(impl, logits, top_p=off) == {0, 1, 2, 3}


def test_temperature(impl):
    logits = np.array([0.0, 1.0], np.float32)
    shares = {t: np.mean([impl(logits, NONE, SamplerParameters(**{**OFF, "temperature": t}), u / 1000) for u in range(1000)]) for t in (1.0, 0.0, -3, 0.5)}  # fmt: skip
    assert shares[1.0] == shares[0.0] == shares[-3] == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-3)
    assert shares[0.5] == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-3)


def test_penalty_comes_last_and_once(impl):
    # 0 is penalised from 4 to 2, 1 from -1 to -2; the nucleus was chosen before, so a lone survivor stays chosen.
    logits = [4.0, -1.0, 2.0]
    shares = np.bincount([impl(np.array(logits, np.float32), np.array([0, 0, 1]), SamplerParameters(**{**OFF, "repetition_penalty": 2}), u / 4096) for u in range(4096)])  # fmt: skip
    expected = np.exp([2.0, -2.0, 2.0])
    assert shares / 4096 == pytest.approx(expected / expected.sum(), abs=1e-3)
    assert possible(impl, [4.0, 3.9], history=[0], top_k=1, repetition_penalty=100.0) == {0}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"temperature": float("nan")}, "temperature: expected a finite number, got nan"),
        ({"temperature": INF}, "temperature: expected a finite number, got inf"),
        ({"temperature": "hot"}, "temperature: expected a finite number, got 'hot'"),
        ({"top_k": 1.5}, "top_k: expected a whole number, got 1.5"),
        ({"top_k": True}, "top_k: expected a whole number, got True"),
        ({"top_p": -0.1}, "top_p: expected a number of at least 0, got -0.1"),
        ({"top_p": float("nan")}, "top_p: expected a number of at least 0, got nan"),
        ({"repetition_penalty": 0}, "repetition_penalty: expected a finite number above 0, got 0"),
        ({"repetition_penalty": -1.2}, "repetition_penalty: expected a finite number above 0, got -1.2"),
        ({"repetition_penalty": 1e39}, r"repetition_penalty: expected a finite number above 0, got 1e\+39"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ArgumentError, match=message):
        SamplerParameters(**parameters)


def test_defaults_are_the_official_ones():
    assert SamplerParameters() == SamplerParameters(temperature=0.8, top_k=1000, top_p=0.95, repetition_penalty=1.2)


@pytest.mark.parametrize(
    ("logits", "history", "parameters", "uniform", "message"),
    [
        ([0.0, float("nan")], [], {}, 0.5, "logits: expected finite numbers or -inf, got (nan|NaN) for token 1"),
        ([INF, 0.0], [], {}, 0.5, "logits: expected finite numbers or -inf, got inf for token 0"),
        (
            [0.0, 1.0],
            [],
            {"temperature": 1e-40},
            0.5,
            "logits / temperature: expected finite numbers or -inf, got inf for token 1",
        ),
        ([0.0, 1.0], [1], {"repetition_penalty": 1e-40}, 0.5, "logits after repetition_penalty: expected finite"),
        ([0.0, 1.0], [2], {}, 0.5, r"history: expected tokens in 0\.\.2, got 2"),
        ([0.0, 1.0], [-1], {}, 0.5, r"history: expected tokens in 0\.\.2, got -1"),
        ([0.0, 1.0], [], {}, 1.0, r"uniform: expected a number in \[0, 1\), got 1"),
        ([0.0, 1.0], [], {}, -0.1, r"uniform: expected a number in \[0, 1\), got -0.1"),
        ([0.0, 1.0], [], {}, float("nan"), r"uniform: expected a number in \[0, 1\), got (nan|NaN)"),
    ],
)
def test_bad_input(impl, logits, history, parameters, uniform, message):
    with pytest.raises(ArgumentError, match=message):
        impl(np.array(logits, np.float32), np.array(history, np.int64), SamplerParameters(**parameters), uniform)


def test_bad_arrays(impl):
    with pytest.raises(ArgumentError, match=r"logits: expected float32 \[n\], got float64 array of shape \(3,\)"):
        impl(np.zeros(3), NONE, SamplerParameters(), 0.5)
    with pytest.raises(ArgumentError, match=r"history: expected int64 \[n\], got float32 array of shape \(1,\)"):
        impl(np.zeros(3, np.float32), np.zeros(1, np.float32), SamplerParameters(), 0.5)
