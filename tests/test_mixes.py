"""Every mix of the seven networks, each on either side, makes the same sound: all 128 of them, at tiny size.

Three networks prepare the voice (eight mixes), four speak with it (sixteen each). All other stages are on their usual side.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.engine import registry
from chatterbox_turbo_rs.parity.metrics import compare, log_spectra
from chatterbox_turbo_rs.parity.tolerances import judge, limits

VOICE = ("voice_encoder.embedding", "s3tokenizer.tokens", "speaker_encoder.xvector")
SPEECH = ("t3.decoder", "s3gen.encoder", "s3gen.flow", "s3gen.vocoder")
SIDES = registry.IMPLEMENTATIONS

pytestmark = pytest.mark.skipif(
    registry.missing("t3.decoder", "python") is not None, reason=str(registry.missing("t3.decoder", "python"))
)


@pytest.fixture(scope="module")
def tts(tiny_checkpoint: Path) -> ChatterboxTurbo:
    return ChatterboxTurbo.from_pretrained(tiny_checkpoint, precision="f32")


def speak(tts: ChatterboxTurbo, clip: Path, plan: dict[str, str], voice=None):
    voice = voice or tts.voice(clip, backends=plan)
    return tts.generate("Any mix [laugh] will do.", voice=voice, seed=3, max_tokens=24, backends=plan)


@pytest.fixture(scope="module")
def expected(tts, data):
    return speak(tts, data / "clips" / "short.flac", dict.fromkeys(VOICE + SPEECH, "rust"))


@pytest.mark.parametrize("sides", list(itertools.product(SIDES, repeat=3)), ids="-".join)
def test_every_mix_makes_the_same_sound(tts, data, expected, sides):
    prepare = dict(zip(VOICE, sides))
    clip = data / "clips" / "short.flac"
    voice = tts.voice(clip, backends=prepare)
    for speaking in itertools.product(SIDES, repeat=4):
        plan = prepare | dict(zip(SPEECH, speaking))
        speech = speak(tts, clip, plan, voice)
        assert {key: speech.plan[key] for key in plan} == plan
        assert np.array_equal(speech.tokens, expected.tokens), plan
        figures = compare(*log_spectra(expected.samples, speech.samples))
        assert not judge(figures, limits("end_to_end@spectrum", "chained")), (plan, figures)


def test_the_switch_is_heard(tts, data, expected):
    """The sides differ in the last bits, so a plan that did nothing would be seen."""
    python = speak(tts, data / "clips" / "short.flac", dict.fromkeys(VOICE + SPEECH, "python"))
    assert not np.array_equal(python.samples, expected.samples)
    assert {"t3.decoder", "t3.sampler", "s3gen.flow", "s3gen.vocoder"} <= set(python.timings)
