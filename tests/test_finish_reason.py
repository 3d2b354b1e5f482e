"""Why speech ended: T3's stop token or the limit; who asked for it is told of the second."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_model import TOY

from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.checkpoint.resources import Resources
from chatterbox_turbo_rs.engine import token_loop
from chatterbox_turbo_rs.errors import TruncatedSpeechWarning
from chatterbox_turbo_rs.stages.t3.decoder import rust as decoder_stage
from chatterbox_turbo_rs.stages.t3.sampler import SamplerParameters
from chatterbox_turbo_rs.stages.t3.sampler.python import sample
from chatterbox_turbo_rs.tts_turbo import ChatterboxTurboTTS

STOP, VOCAB = 6562, 6563
GOLDEN = np.load(Path(__file__).parent / "goldens/t3_loop.npz")


class Script:
    """A decoder that makes one token certain at each step (None: a row of -inf)."""

    start_token, stop_token = 6561, STOP

    def __init__(self, tokens: list[int | None]) -> None:
        self.tokens, self.at = tokens, 0

    def start(self, *inputs: Any) -> Script:
        return self

    def prefill(self, callback: Any = None) -> np.ndarray:
        row, token = np.full(VOCAB, -np.inf, np.float32), self.tokens[self.at]
        if token is not None:
            row[token] = 1.0
        return row

    def step(self, token: int) -> np.ndarray:
        self.at += 1
        return self.prefill()


@pytest.mark.parametrize(
    ("script", "limit", "reason"),
    [
        ([5, 6, STOP], 50, "stop"),
        ([5, 6, STOP], 2, "stop"),  # the last token that is allowed is the stop token
        ([5, 6, 7], 2, "length"),
        ([5], 0, "length"),
        ([STOP], 0, "stop"),
        ([STOP, 7, 8], 2, "length"),  # the first token is never compared with the stop token
        ([5, None], 1, "stop"),
        ([None], 0, "stop"),
    ],
)
def test_why_the_loop_ended(script: list[int | None], limit: int, reason: str) -> None:
    inputs = (np.zeros(1, np.float32), np.zeros(1, np.int64), np.zeros(1, np.int64))
    tokens = token_loop.generate(Script(script), sample, *inputs, SamplerParameters(), lambda step: 0.5, limit)
    assert token_loop.finish_reason(tokens, limit) == reason


def test_why_the_loop_in_rust_ended(tiny_checkpoint: Path) -> None:
    """The official run that stops, with limits around the token that stops it."""
    resources = Resources(tiny_checkpoint, json.loads((tiny_checkpoint / "config.json").read_text()))
    decoder = decoder_stage.create(resources)
    temperature, top_k, top_p, penalty = GOLDEN["stops.sampling"].tolist()
    parameters = SamplerParameters(temperature, int(top_k), top_p, penalty)
    inputs, spoken = (GOLDEN["speaker"], GOLDEN["prompt"], GOLDEN["text"]), len(GOLDEN["stops.tokens"])

    def reason(limit: int) -> str:
        return token_loop.finish_reason(decoder.generate(*inputs, parameters, limit, uniforms=GOLDEN["stops.uniforms"]), limit)

    assert [reason(limit) for limit in (spoken - 2, spoken - 1, spoken, spoken + 1)] == ["length", "length", "stop", "stop"]


LONG = "This is one sentence of a story that goes on for a while. " * 3


def test_speech_that_was_cut_says_so(toy: ChatterboxTurbo) -> None:
    with pytest.warns(
        TruncatedSpeechWarning, match=r"^the speech \(0\.5 s\): cut off at max_tokens=8 .*raise max_tokens"
    ) as caught:
        speech = toy.generate(LONG, seed=1, max_tokens=8, watermark=None)
    assert speech.finish_reason == "length" and "cut at max_tokens" in repr(speech)
    assert [warning.filename for warning in caught] == [__file__]


def test_the_whole_limit_says_what_else_helps(toy: ChatterboxTurbo) -> None:
    with pytest.warns(
        TruncatedSpeechWarning, match=r"\(40\.\d s\): cut off at max_tokens=1000 .*; speak the text in shorter parts$"
    ):
        assert toy.generate(LONG * 4, seed=1, watermark=None, split="never").finish_reason == "length"


def test_speech_that_ended_warns_of_nothing() -> None:
    toy = ChatterboxTurbo.from_pretrained(TOY)
    loop = toy._pipeline.tokens
    toy._pipeline.tokens = lambda *arguments: loop(*arguments)[:5]  # type: ignore[method-assign]  # as if T3 ended there
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        speech = toy.generate("Yes.", seed=1, max_tokens=30, watermark=None)
    assert (speech.finish_reason, caught) == ("stop", []) and "cut" not in repr(speech)


def test_many_texts_are_named_in_one_warning(toy: ChatterboxTurbo) -> None:
    with pytest.warns(TruncatedSpeechWarning) as caught:
        found = toy.generate_many(["One.", "Two.", "\udcff"], seeds=1, max_tokens=8, watermark=None, errors="return")
    assert len(caught) == 1 and caught[0].filename == __file__
    assert str(caught[0].message).startswith("texts[0] (0.5 s), texts[1] (0.5 s): cut off at max_tokens=8 ")
    assert [getattr(result, "finish_reason", None) for result in found] == ["length", "length", None]


def test_every_yielded_text_is_named(toy: ChatterboxTurbo) -> None:
    with pytest.warns(TruncatedSpeechWarning) as caught:
        found = dict(toy.iter_many(["One.", "Two."], seeds=1, max_tokens=8, watermark=None))
    assert [str(warning.message).partition(" ")[0] for warning in caught] == ["texts[0]", "texts[1]"]
    assert {warning.filename for warning in caught} == {__file__}
    assert {speech.finish_reason for speech in found.values()} == {"length"}


def test_the_drop_in_warns_where_it_was_called(toy: ChatterboxTurbo) -> None:
    model = ChatterboxTurboTTS(toy, "cpu")
    model.conds = ChatterboxTurboTTS._wrap(toy, "cpu", False).conds
    with pytest.warns(TruncatedSpeechWarning, match=r"\(40\.\d s\): cut off") as caught:
        model.generate(LONG * 4)
    assert [warning.filename for warning in caught] == [__file__]
