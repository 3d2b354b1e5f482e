"""``s3tokenizer.tokens`` against the official package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import encoder_suite as suite
import implementations
import numpy as np
import pytest

from chatterbox_turbo_rs.errors import ArgumentError
from chatterbox_turbo_rs.stages.s3tokenizer.tokens import MAX_FRAMES, SHRINK

KEY = "s3tokenizer.tokens"
CASES = list(suite.cases("s3tokenizer_tokens", "mel"))
MEL = CASES[1][0]


@pytest.fixture(params=implementations.of(KEY))
def implementation(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def impl(implementation: str) -> Any:
    return suite.load(KEY, implementation)


@pytest.fixture(params=[implementations.param(KEY, "python")])
def network(request: pytest.FixtureRequest) -> Any:
    """The PyTorch side."""
    return suite.load(KEY, request.param)


@pytest.mark.parametrize("case", range(3))
def test_equals_the_official_package(impl: Any, case: int) -> None:
    mel, golden = CASES[case]
    levels, ids = impl.pre_codes(mel), impl(mel)
    suite.check_form(levels, golden["levels"])
    suite.check_form(ids, golden["tokens"])
    assert np.abs(levels - golden["levels"]).max() < 1e-4
    assert (ids == golden["tokens"]).all()


def test_ids_are_the_rounded_levels_in_base_3(impl: Any) -> None:
    levels = impl.pre_codes(MEL)
    assert (impl(MEL) == (np.rint(levels) + 1).astype(np.int64) @ 3 ** np.arange(8)).all()
    assert np.abs(levels).max() <= np.float32(SHRINK)


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 8, 9, 149])
def test_a_token_for_every_four_frames(impl: Any, frames: int) -> None:
    assert impl(MEL[:frames]).shape == (-(-frames // 4),)


def test_clips_together_have_the_tokens_that_they_have_alone(impl: Any) -> None:
    clips = [MEL, MEL[::-1].copy(), MEL[:3], MEL[20:99]]
    together = impl.of_all(clips)
    assert all((ids == impl(clip)).all() for clip, ids in zip(clips, together, strict=True))
    assert (impl.of_all([MEL])[0] == impl(MEL)).all()


def test_order_of_tokens_matters(impl: Any) -> None:
    """Without positions the same frames all over would give one token everywhere but at the ends."""
    levels = impl.pre_codes(np.tile(MEL[:4], (100, 1)))
    assert np.abs(levels[30] - levels[60]).max() > 1e-4


def test_longest_clip(impl: Any) -> None:
    mel = np.tile(MEL, (21, 1))[: MAX_FRAMES + 1]
    assert impl(mel[:MAX_FRAMES]).shape == (MAX_FRAMES // 4,)
    with pytest.raises(ArgumentError, match="mel: expected at most 3000 frames .* got 3001"):
        impl(mel)


def test_bad_input_is_refused(impl: Any) -> None:
    suite.check_refusals(impl, "mel", MEL)
    suite.check_refusals(impl.pre_codes, "mel", MEL)


def test_is_pure(impl: Any) -> None:
    suite.check_pure(impl, MEL)


def test_threads_share_it(impl: Any) -> None:
    suite.check_threads(impl.pre_codes, MEL)


def test_callback(impl: Any) -> None:
    suite.check_callback(impl, KEY, MEL)


def test_tensors_are_checked(implementation: str, tmp_path: Path) -> None:
    suite.check_load_refusals(KEY, implementation, "s3gen", "tokenizer.encoder.blocks.1.attn.fsmn_block.weight", tmp_path)


def test_can_be_trained(network: Any) -> None:
    import torch

    mel = torch.from_numpy(np.stack([MEL.T, MEL[::-1].T]))
    target = torch.linspace(-1, 1, 2 * 38 * 8).reshape(2, 38, 8)
    suite.check_training(network, lambda module: (module(mel) - target).square().mean())


def test_padding_of_a_batch_is_not_heard(network: Any) -> None:
    import torch

    mel = np.stack([MEL, MEL[::-1]])
    lengths = torch.tensor([len(MEL), 61])
    mel[1, 61:] = 7
    with torch.inference_mode():
        levels = network.module(torch.from_numpy(mel).transpose(1, 2), lengths).numpy()
    assert np.abs(levels[0] - network.pre_codes(mel[0])).max() < 1e-5
    assert np.abs(levels[1, :16] - network.pre_codes(mel[1, :61])).max() < 1e-5


def test_tensors_have_upstreams_names(network: Any) -> None:
    suite.check_tensor_names(KEY, "S3Tokenizer", "s3tokenizer", "s3gen")


def test_hyperparameters_are_those_of_the_network(network: Any) -> None:
    others = {"ffn_size": 512, "activation": "gelu", "query_bias": True, "key_bias": False, "value_bias": True}
    suite.check_hyperparameters(network, "s3tokenizer", others)
