"""The token loop: the official tokens, the rules of stopping and of the history, and Rust's loop equal to Python's."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import implementations
import numpy as np
import pytest

from chatterbox_turbo_rs.checkpoint.resources import Resources
from chatterbox_turbo_rs.engine import draws, token_loop
from chatterbox_turbo_rs.errors import ArgumentError
from chatterbox_turbo_rs.stages.t3.decoder import rust as decoder_stage
from chatterbox_turbo_rs.stages.t3.sampler import SamplerParameters

GOLDEN = np.load(Path(__file__).parent / "goldens/t3_loop.npz")
INPUTS = GOLDEN["speaker"], GOLDEN["prompt"], GOLDEN["text"]
STOP, START, VOCAB = 6562, 6561, 6563


def resources(directory):
    return Resources(directory, json.loads((directory / "config.json").read_text()))


@pytest.fixture(scope="module")
def decoder(tiny_checkpoint):
    """The one that has a loop of its own."""
    return decoder_stage.create(resources(tiny_checkpoint))


@pytest.fixture(scope="module", params=implementations.of("t3.decoder"))
def any_decoder(request, tiny_checkpoint):
    module = importlib.import_module(f"chatterbox_turbo_rs.stages.t3.decoder.{request.param}")
    return module.create(resources(tiny_checkpoint))


@pytest.fixture(params=["python", "rust"])
def sampler(request):
    return importlib.import_module(f"chatterbox_turbo_rs.stages.t3.sampler.{request.param}").create(None)


def case(name):
    temperature, top_k, top_p, penalty = GOLDEN[f"{name}.sampling"].tolist()
    return (
        SamplerParameters(temperature, int(top_k), top_p, penalty),
        GOLDEN[f"{name}.uniforms"],
        GOLDEN[f"{name}.max_gen_len"].item(),
    )


@pytest.mark.parametrize("name", ["greedy", "sampled", "hot", "stops", "first_is_stop"])
def test_official_tokens(any_decoder, sampler, name):
    parameters, uniforms, limit = case(name)
    tokens = token_loop.generate(any_decoder, sampler, *INPUTS, parameters, lambda step: uniforms[step], limit)
    assert tokens.dtype == np.int64
    np.testing.assert_array_equal(tokens, GOLDEN[f"{name}.tokens"])


@pytest.mark.parametrize("name", ["greedy", "sampled", "hot", "stops", "first_is_stop"])
def test_official_tokens_of_the_loop_in_rust(decoder, name):
    parameters, uniforms, limit = case(name)
    tokens = decoder.generate(*INPUTS, parameters, limit, uniforms=uniforms)
    assert tokens.dtype == np.int64
    np.testing.assert_array_equal(tokens, GOLDEN[f"{name}.tokens"])


@pytest.mark.parametrize("parameters", [SamplerParameters(), SamplerParameters(top_k=1), SamplerParameters(1.5, 0, 1.0, 1.0)])
def test_both_loops_give_the_same_tokens(decoder, sampler, parameters):
    for seed in (0, 7, 2**64 - 1):
        in_python = token_loop.generate(
            decoder, sampler, *INPUTS, parameters, lambda step: draws.uniforms(seed, draws.T3, step, 1)[0], 250
        )
        np.testing.assert_array_equal(decoder.generate(*INPUTS, parameters, 250, seed=seed), in_python)
        assert len(in_python) > 100


class Script:
    """A decoder that makes one token certain at each step (None: a row of -inf), and remembers what it was fed."""

    start_token, stop_token = START, STOP

    def __init__(self, tokens):
        self.tokens, self.fed = tokens, []

    def start(self, *inputs):
        return self

    def prefill(self, callback=None):
        row, token = np.full(VOCAB, -np.inf, np.float32), self.tokens[len(self.fed)]
        if token is not None:
            row[token] = 1.0
        return row

    def step(self, token):
        self.fed.append(token)
        return self.prefill()


def loop(script, sampler, limit=50, **options):
    return token_loop.generate(script, sampler, *INPUTS, SamplerParameters(), lambda step: 0.5, limit, **options).tolist()


# The same table is run through Rust's loop in `stages/t3/generate.rs`.
@pytest.mark.parametrize(
    ("tokens", "expected", "fed"),
    [
        ([5, 6, STOP], [5, 6], [5, 6]),
        ([STOP, 7, STOP], [STOP, 7], [STOP, 7]),
        ([STOP, STOP], [STOP], [STOP]),
        ([STOP, None], [], [STOP]),
        ([5, None], [5], [5]),
        ([None], [], []),
        ([START, START, STOP], [START, START], [START, START]),
    ],
)
def test_stop_rules(sampler, tokens, expected, fed):
    script = Script(tokens)
    assert (loop(script, sampler), script.fed) == (expected, fed)


def test_limit_is_one_more_than_max_tokens(decoder, sampler):
    script = Script([9] * 2000)
    assert loop(script, sampler, 1000) == [9] * 1001 and len(script.fed) == 1000
    assert loop(Script([9]), sampler, 0) == [9]
    assert loop(Script([STOP]), sampler, 0) == []
    parameters, uniforms = SamplerParameters(), np.full(1001, 0.5)
    assert len(decoder.generate(*INPUTS, parameters, 1000, uniforms=uniforms)) == 1001
    assert len(decoder.generate(*INPUTS, parameters, 0, uniforms=uniforms)) == 1


def test_history():
    seen = []

    def sampler(logits, history, parameters, uniform):
        seen.append((history.dtype, history.tolist(), uniform))
        return 40 + len(history) if len(seen) < 4 else STOP

    token_loop.generate(Script([1] * 9), sampler, *INPUTS, SamplerParameters(), lambda step: step / 10, 50)
    histories = [[START], [41], [41, 41], [41, 41, 42]]
    assert seen == [(np.int64, history, step / 10) for step, history in enumerate(histories)]


def test_every_token_is_reported_and_a_report_can_stop_the_loop(decoder, sampler):
    reports = []

    def callback(stage, done, total):
        reports.append((stage, done, total))
        if done == 4 and stage == "t3":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop(Script([9] * 100), sampler, 50, callback=callback)
    assert reports == [("t3", done, 51) for done in (1, 2, 3, 4)]

    def soon(stage, done, total):
        if stage == "t3":
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        decoder.generate(*INPUTS, SamplerParameters(), 1000, seed=1, callback=soon)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"uniforms": np.full(5, 0.5)}, "uniforms: expected a number for every step, got 5 for step 5"),
        ({"uniforms": np.full(5, 0.5, np.float32)}, r"uniforms: expected float64 \[n\], got float32 array of shape \(5,\)"),
        ({"uniforms": np.full(20, 1.0)}, r"uniform: expected a number in \[0, 1\), got 1"),
        ({}, "seed and uniforms: expected one of them, got both or none"),
        ({"seed": 1, "uniforms": np.full(5, 0.5)}, "seed and uniforms: expected one of them, got both or none"),
        ({"seed": -1}, "seed: expected a whole number from 0 to .*, got -1"),
        ({"seed": 1.5}, "seed: expected a whole number from 0 to .*, got 1.5"),
    ],
)
def test_bad_draws(decoder, options, message):
    with pytest.raises(ArgumentError, match=message):
        decoder.generate(*INPUTS, SamplerParameters(top_p=1.0), 10, **options)


def test_prefill_and_tokens_are_reported(any_decoder, sampler):
    """Rust's reports leave some out, of which each would cost it a call into Python."""
    reports = []
    token_loop.generate(
        any_decoder, sampler, *INPUTS, SamplerParameters(), lambda step: 0.5, 4, lambda *report: reports.append(report)
    )
    prefill, tokens = [("t3.prefill", done, 3) for done in (1, 2, 3)], [("t3", done, 5) for done in (1, 2, 3, 4, 5)]
    found = len(reports) - len(tokens)
    assert reports[found:] == tokens
    assert reports[:found] == prefill or (
        found and any_decoder.__module__.endswith("rust") and set(reports[:found]) <= set(prefill)
    )


def test_filter_keeps_speech_and_adds_silence(decoder):
    config = {"vocab": 6561, "silence_token": 4299}
    for tokens, expected in (([STOP, 5, START, 6560, 0], [5, 6560, 0, 4299, 4299, 4299]), ([], [4299] * 3)):
        tokens = np.array(tokens, np.int64)
        for kept in (token_loop.keep_speech(tokens, config), decoder.keep_speech(tokens)):
            assert kept.dtype == np.int64 and kept.tolist() == expected
