"""``speaker_encoder.xvector`` against the official package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import encoder_suite as suite
import implementations
import numpy as np
import pytest

from chatterbox_turbo_rs.errors import ArgumentError
from chatterbox_turbo_rs.stages.speaker_encoder.xvector import MIN_FRAMES

KEY = "speaker_encoder.xvector"
CASES = list(suite.cases("speaker_encoder_xvector", "fbank"))
FBANK = CASES[2][0]


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
    fbank, expected = CASES[case][0], CASES[case][1]["xvector"]
    found = impl(fbank)
    suite.check_form(found, expected)
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_every_frame_counts(impl: suite.Callable[..., np.ndarray]) -> None:
    """The last segment is shorter than the others and still heard."""
    changed = FBANK.copy()
    changed[-1, 40] += 1
    assert np.abs(impl(changed) - impl(FBANK)).max() > 1e-4
    assert np.abs(impl(FBANK[:-1]) - impl(FBANK)).max() > 1e-4


def test_shortest_clip(impl: suite.Callable[..., np.ndarray]) -> None:
    assert np.isfinite(impl(FBANK[:MIN_FRAMES])).all()
    with pytest.raises(ArgumentError, match="fbank: expected at least 3 frames, got 2"):
        impl(FBANK[: MIN_FRAMES - 1])


def test_bad_input_is_refused(impl: suite.Callable[..., np.ndarray]) -> None:
    suite.check_refusals(impl, "fbank", FBANK)


def test_is_pure(impl: suite.Callable[..., np.ndarray]) -> None:
    suite.check_pure(impl, FBANK)


def test_threads_share_it(impl: suite.Callable[..., np.ndarray]) -> None:
    suite.check_threads(impl, FBANK)


def test_callback(impl: suite.Callable[..., np.ndarray]) -> None:
    suite.check_callback(impl, KEY, FBANK)


def test_tensors_are_checked(implementation: str, tmp_path: Path) -> None:
    tensor = "speaker_encoder.xvector.block2.tdnnd3.nonlinear1.batchnorm.running_var"
    suite.check_load_refusals(KEY, implementation, "s3gen", tensor, tmp_path)


def test_can_be_trained(network: Any) -> None:
    import torch

    fbank = torch.from_numpy(np.stack([FBANK[start : start + 220] for start in (0, 20, 40, 60)]))
    target = torch.linspace(-1, 1, 4 * 192).reshape(4, 192)
    suite.check_training(network, lambda module: (module(fbank) - target).square().mean())


def test_clips_of_a_batch_do_not_meet(network: Any) -> None:
    import torch

    with torch.inference_mode():
        found = network.module(torch.from_numpy(np.stack([FBANK, FBANK[::-1]]))).numpy()
    for vector, fbank in zip(found, (FBANK, FBANK[::-1])):
        assert np.abs(vector - network(fbank)).max() < 1e-5 * np.abs(vector).max()


def test_tensors_have_upstreams_names(network: Any) -> None:
    suite.check_tensor_names(KEY, "CAMPPlus", "speaker_encoder", "s3gen")


def test_hyperparameters_are_those_of_the_network(network: Any) -> None:
    suite.check_hyperparameters(network, "speaker_encoder", {})
