"""``voice_encoder.embedding`` against the official package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import encoder_suite as suite
import implementations
import numpy as np
import pytest

from chatterbox_turbo_rs.checkpoint.resources import Resources
from chatterbox_turbo_rs.errors import AudioError, ConfigError

KEY = "voice_encoder.embedding"
CASES = list(suite.cases("voice_encoder_embedding", "mel"))
MEL = CASES[2][0]


@pytest.fixture(params=implementations.of(KEY))
def implementation(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def impl(implementation: str) -> suite.Callable[..., np.ndarray]:
    return suite.load(KEY, implementation)


@pytest.fixture(params=[implementations.param(KEY, "python")])
def network(request: pytest.FixtureRequest) -> Any:
    """The PyTorch side."""
    return suite.load(KEY, request.param)


@pytest.mark.parametrize("case", range(3))
def test_equals_the_official_package(impl: suite.Callable[..., np.ndarray], case: int) -> None:
    mel, expected = CASES[case][0], CASES[case][1]["embedding"]
    found = impl(mel)
    suite.check_form(found, expected)
    assert np.abs(found - expected).max() < 1e-5
    assert found @ expected / np.linalg.norm(found) / np.linalg.norm(expected) > 0.999999


def test_has_length_one_and_nothing_negative(impl: suite.Callable[..., np.ndarray]) -> None:
    found = impl(MEL)
    assert abs(np.linalg.norm(found) - 1) < 1e-6 and found.min() >= 0 and (found > 0).sum() > 4


def test_mean_of_partials(impl: suite.Callable[..., np.ndarray]) -> None:
    """314 frames are three partials: 0, 77 and 154. Frames behind the last one do not count."""
    mean = sum(impl(MEL[start : start + 160]) for start in (0, 77, 154))
    assert np.abs(impl(MEL[:314]) - mean / np.linalg.norm(mean)).max() < 1e-6
    assert (impl(MEL[:314]) == impl(MEL[:330])).all()


def test_many_partials_are_as_good_as_few(impl: suite.Callable[..., np.ndarray]) -> None:
    """40 partials that are all the same (77 frames repeated) have the embedding of one."""
    repeated = np.tile(MEL[:77], (60, 1))
    assert np.abs(impl(repeated[: 160 + 39 * 77]) - impl(repeated[:160])).max() < 1e-6


def test_short_clip_is_filled_up_with_zeros(impl: suite.Callable[..., np.ndarray]) -> None:
    filled = np.concatenate([MEL[:100], np.zeros((60, 40), np.float32)])
    assert (impl(MEL[:100]) == impl(filled)).all()


def test_clip_without_a_voice_is_refused(implementation: str, tmp_path: Path) -> None:
    """A projection bias far below zero leaves no activation: NaN upstream, an error here."""
    from safetensors.numpy import load_file, save_file

    source = suite.checkpoint()[1]
    for file in (*source.config["files"].values(), "config.json"):
        (tmp_path / file).write_bytes((source.directory / file).read_bytes())
    path = tmp_path / source.config["files"]["voice_encoder"]
    tensors = load_file(path)
    save_file(tensors | {"proj.bias": np.full_like(tensors["proj.bias"], -100)}, path)
    stage = suite.load(KEY, implementation, suite.resources(tmp_path))
    with pytest.raises(AudioError, match="expected a voice.*frames 0 to 160 of 330"):
        stage(MEL)


def test_bad_input_is_refused(impl: suite.Callable[..., np.ndarray]) -> None:
    suite.check_refusals(impl, "mel", MEL)


def test_is_pure(impl: suite.Callable[..., np.ndarray]) -> None:
    suite.check_pure(impl, MEL)


def test_threads_share_it(impl: suite.Callable[..., np.ndarray]) -> None:
    suite.check_threads(impl, MEL)


def test_callback(impl: suite.Callable[..., np.ndarray]) -> None:
    suite.check_callback(impl, KEY, MEL)


def test_tensors_are_checked(implementation: str, tmp_path: Path) -> None:
    suite.check_load_refusals(KEY, implementation, "voice_encoder", "lstm.weight_hh_l1", tmp_path)


@pytest.mark.parametrize("rate", [0.1, 1000.0])
def test_partials_that_leave_gaps_or_stand_still_are_refused(implementation: str, rate: float) -> None:
    source = suite.checkpoint()[1]
    config = {**source.config, "voice_encoder": {**source.config["voice_encoder"], "partials_per_second": rate}}
    with pytest.raises(ConfigError, match=r"partials_per_second: expected partials 1 to 160 frames apart, found \d+"):
        suite.load(KEY, implementation, Resources(source.directory, config))


def test_can_be_trained(network: Any) -> None:
    """The loss takes neighbouring partials for one voice, others for another, and judges by their scaled cosines."""
    import torch

    partials = torch.from_numpy(np.stack([MEL[start : start + 160] for start in range(0, 151, 30)]))
    same = torch.eye(3).repeat_interleave(2, 0).repeat_interleave(2, 1)

    def loss(module: Any) -> Any:
        found = module(partials)
        scores = module.similarity_weight * (found @ found.T) + module.similarity_bias
        return torch.nn.functional.binary_cross_entropy_with_logits(scores, same)

    suite.check_training(network, loss)


def test_partials_in_a_batch_are_those_of_one_clip(network: Any) -> None:
    import torch

    partials = network.module.partials(torch.from_numpy(np.stack([MEL, 2 * MEL])))
    assert partials.shape == (2, 3, 160, 40)
    assert (partials[1].numpy() == 2 * np.stack([MEL[start : start + 160] for start in (0, 77, 154)])).all()


def test_tensors_have_upstreams_names(network: Any) -> None:
    suite.check_tensor_names(KEY, "VoiceEncoder", "voice_encoder", "voice_encoder")


def test_hyperparameters_are_those_of_the_network(network: Any) -> None:
    suite.check_hyperparameters(network, "voice_encoder", {"final_activation": "relu"})
