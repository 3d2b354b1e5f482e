"""Behaviour of ``s3gen.flow``."""

from __future__ import annotations

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import implementations
import numpy as np
import pytest
from s3gen_suite import assert_close, create, golden, progress, refusal, stops_at_once, without_gradient


@pytest.fixture(scope="module", params=implementations.of("s3gen.flow"))
def flow(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> Any:
    return create("flow", request.param, tiny_checkpoint)


def arguments(case: str = "even", **changes: np.ndarray) -> list[np.ndarray]:
    g = golden("flow")
    values = {"mu": g["mu"], "xvector": g["xvector"], "prompt_mel": g[f"{case}.prompt_mel"], "noise": g[f"{case}.noise"]}
    return list((values | changes).values())


@pytest.mark.parametrize("case", ["even", "odd", "no_prompt"])
def test_agrees_with_the_official_package(flow: Any, case: str) -> None:
    """An even prompt, an odd one (one output frame fewer), and none."""
    assert_close(flow(*arguments(case)), golden("flow")[f"{case}.mel"], 1e-5)


def test_the_length_of_the_xvector_does_not_count(flow: Any) -> None:
    assert_close(flow(*arguments(xvector=golden("flow")["xvector"] * 7)), golden("flow")["even.mel"], 1e-5)
    silent = flow(*arguments(xvector=np.zeros(192, np.float32)))
    assert np.isfinite(silent).all() and np.abs(silent - golden("flow")["even.mel"]).max() > 1e-3


def test_a_prompt_of_full_length_leaves_nothing(flow: Any) -> None:
    assert flow(*arguments(prompt_mel=golden("flow")["mu"])).shape == (0, 80)


def test_noise_of_the_prompt_counts_too(flow: Any) -> None:
    noise = golden("flow")["even.noise"].copy()
    noise[:40] = 0
    assert np.abs(flow(*arguments(noise=noise)) - golden("flow")["even.mel"]).max() > 1e-3


def bad(name: str, value: np.ndarray, message: str) -> Any:
    return pytest.param({name: value}, message, id=message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        bad("mu", np.zeros((0, 80), np.float32), "noise: expected shape [0, 80], got [74, 80]"),
        bad("mu", np.zeros((74, 79), np.float32), "mu: expected shape [rows, 80], got [74, 79]"),
        bad("mu", np.full((74, 80), np.nan, np.float32), "mu: expected finite values, got NaN at 0"),
        bad("xvector", np.zeros(80, np.float32), "xvector: expected 192 values, got 80"),
        bad("xvector", np.full(192, np.inf, np.float32), "xvector: expected finite values, got inf"),
        bad("prompt_mel", np.zeros((75, 80), np.float32), "prompt_mel: expected at most the 74 frames of mu, got 75"),
        bad("prompt_mel", np.zeros((4, 80)), "prompt_mel: expected float32 [time, channels], got float64"),
        bad("noise", np.zeros((73, 80), np.float32), "noise: expected shape [74, 80], got [73, 80]"),
    ],
)
def test_bad_arguments_are_named(flow: Any, changes: dict[str, np.ndarray], message: str) -> None:
    assert message in refusal(flow, *arguments(**changes))


def test_no_frames_are_refused(flow: Any) -> None:
    empty = np.zeros((0, 80), np.float32)
    assert "mu: expected at least one frame" in refusal(flow, *arguments(mu=empty, prompt_mel=empty, noise=empty))


def test_a_callback_stops_the_work(flow: Any) -> None:
    assert stops_at_once(flow, *arguments()) == 1


STEPS = [("s3gen.flow", done, 16) for done in range(17)]
"""Two Euler steps through four blocks (one down, two in the middle, one up) of two transformer blocks each."""


def test_progress_ends_with_the_work(flow: Any) -> None:
    """Rust leaves out steps that come too fast."""
    calls = progress(flow, *arguments())
    assert set(calls) <= set(STEPS) and calls == sorted(calls) and calls[-1] == STEPS[-1]


def test_arguments_stay_as_they_are_and_give_the_same_again(flow: Any) -> None:
    given = arguments()
    before = [value.copy() for value in given]
    assert np.array_equal(flow(*given), flow(*given))
    assert all(np.array_equal(a, b) for a, b in zip(given, before))


def test_threads_share_the_stage(flow: Any) -> None:
    alone = flow(*arguments())
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(mel, alone) for mel in pool.map(lambda _: flow(*arguments()), range(8)))


@pytest.fixture(scope="module")
def network(tiny_checkpoint: Path) -> Any:
    """The PyTorch side alone."""
    pytest.importorskip("torch", reason="s3gen.flow=python needs PyTorch")
    return create("flow", "python", tiny_checkpoint)


def test_progress_counts_the_transformer_blocks(network: Any) -> None:
    assert progress(network, *arguments()) == STEPS


def batch(*cases: list[np.ndarray]) -> Any:
    """Arguments of the PyTorch module; shorter cases are filled up with sevens, which the mask has to hide."""
    import torch

    longest = max(len(mu) for mu, *_ in cases)

    def columns(rows: np.ndarray, fill: float) -> Any:
        filled = np.full((longest, 80), fill, np.float32)
        filled[: len(rows)] = rows
        return torch.from_numpy(filled.T.copy())

    mean = torch.stack([columns(mu, 7) for mu, _, _, _ in cases])
    speaker = torch.stack([torch.from_numpy(xvector) for _, xvector, _, _ in cases])
    prompt = torch.stack([columns(prompt, 0) for _, _, prompt, _ in cases])
    noise = torch.stack([columns(noise, 7) for _, _, _, noise in cases])
    mask = torch.tensor([[[float(i < len(mu)) for i in range(longest)]] for mu, _, _, _ in cases])
    return mean, speaker, prompt, noise, mask


def test_a_batch_gives_what_its_members_give_alone(network: Any) -> None:
    long, (mu, xvector, prompt, noise) = arguments("even"), arguments("odd")
    short = [mu[:61], xvector[::-1].copy(), prompt[:20], noise[:61]]
    together = network.module(*batch(long, short)).numpy()
    for found, case in zip(together, (long, short)):
        found = found[:, len(case[2]) : len(case[0])].T
        assert_close(np.ascontiguousarray(found), network(*case), 1e-5)


def test_the_network_learns(network: Any) -> None:
    module = copy.deepcopy(network.module).train().requires_grad_(True)
    assert without_gradient(module, module(*batch(arguments())[:4]).square().mean()) == []


def test_hyperparameters_are_those_of_the_configuration(network: Any, tiny_checkpoint: Path) -> None:
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    estimator = config["s3gen"]["estimator"]
    expected = {name: value for name, value in estimator.items() if name != "steps"} | {
        "mels": config["s3gen"]["mels"],
        "xvector_size": config["speaker_encoder"]["embedding_size"],
        "ffn_size": 4 * estimator["channels"],
        "time_size": 4 * estimator["channels"],
        "time_grid": [i / estimator["steps"] for i in range(estimator["steps"] + 1)],
        "activation": "gelu",
        "resnet_activation": "mish",
        "residual_convs": estimator["mid_blocks"] + 2,
    }
    assert network.hyperparameters() == expected
