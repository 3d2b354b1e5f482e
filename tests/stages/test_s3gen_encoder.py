"""Behaviour of ``s3gen.encoder``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import implementations
import numpy as np
import pytest
from s3gen_suite import assert_close, create, golden, refusal, stops_at_once


@pytest.fixture(scope="module", params=implementations.of("s3gen.encoder"))
def encoder(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> Any:
    return create("encoder", request.param, tiny_checkpoint)


@pytest.mark.parametrize("case", ["a", "b"])
def test_agrees_with_the_official_package(encoder: Any, case: str) -> None:
    assert_close(encoder(golden("encoder")[f"{case}.ids"]), golden("encoder")[f"{case}.mu"], 1e-5)


def test_one_token_is_enough(encoder: Any) -> None:
    mu = encoder(np.array([4299]))
    assert mu.shape == (2, 80) and np.isfinite(mu).all()


def test_attends_to_the_whole_sequence(encoder: Any) -> None:
    """A token changes frames far before and far after it."""
    ids = golden("encoder")["a.ids"].copy()
    before = encoder(ids)
    ids[18] = (ids[18] + 1000) % 6561
    changed = np.abs(encoder(ids) - before).max(axis=1)
    assert changed[0] > 1e-4 and changed[-1] > 1e-4


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.array([], np.int64), "s3gen.encoder: ids: expected at least one token"),
        (np.array([1, 6561]), "ids: id 6561 at position 1, expected 0 to 6560"),
        (np.array([-1]), "ids: id -1 at position 0, expected 0 to 6560"),
        (np.array([1.0], np.float32), "ids: expected int64 [n], got float32"),
        (np.array([[1]]), "ids: expected int64 [n], got int64 array of shape (1, 1)"),
    ],
)
def test_bad_ids_are_named(encoder: Any, ids: np.ndarray, message: str) -> None:
    assert message in refusal(encoder, ids)


def test_a_callback_stops_the_work(encoder: Any) -> None:
    assert stops_at_once(encoder, golden("encoder")["a.ids"]) == 1


def test_the_ids_are_left_as_they_are_and_calls_do_not_depend_on_each_other(encoder: Any) -> None:
    ids = golden("encoder")["a.ids"].copy()
    first = encoder(ids)
    encoder(ids[:3])
    assert (encoder(ids) == first).all() and (ids == golden("encoder")["a.ids"]).all()


@pytest.fixture(scope="module", params=[implementations.param("s3gen.encoder", "python")])
def in_torch(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> Any:
    return create("encoder", request.param, tiny_checkpoint)


def test_every_block_is_reported(in_torch: Any) -> None:
    calls: list[tuple[str, int, int]] = []
    in_torch(np.array([5, 6]), lambda *call: calls.append(call))
    assert calls == [("s3gen.encoder", done, 4) for done in range(5)]


def test_the_hyperparameters_are_those_of_the_configuration(in_torch: Any, tiny_checkpoint: Path) -> None:
    config = json.loads((tiny_checkpoint / "config.json").read_text())["s3gen"]
    fixed = {"activation": "silu", "key_bias": True, "embedding_scale": 32**0.5}
    assert in_torch.hyperparameters() == {"vocab": 6561, "mels": 80, **config["encoder"], **fixed}


def test_a_batch_is_its_sequences(in_torch: Any) -> None:
    import torch

    ids = np.random.default_rng(1).integers(0, 6561, (3, 20))
    with torch.inference_mode():
        batch = in_torch.module(torch.from_numpy(ids), torch.tensor([20, 20, 20])).numpy()
    for row, mu in zip(ids, batch):
        assert_close(mu, in_torch(row), 1e-6)


def test_padding_is_not_seen(in_torch: Any) -> None:
    """What stands behind a sequence changes nothing; that something stands there does, in the frames that look ahead."""
    import torch

    ids = torch.randint(0, 6561, (2, 24), generator=torch.Generator().manual_seed(2))
    ids[1, :15] = ids[0, :15]
    with torch.inference_mode():
        first, second = in_torch.module(ids, torch.tensor([15, 15]))[:, :30]
        alone = in_torch.module(ids[:1, :15])[0]
    assert torch.equal(first, second)
    assert 1e-4 < (first - alone).abs().max() < 0.5 * alone.abs().max()


def test_training_reaches_every_parameter(in_torch: Any, tiny_checkpoint: Path) -> None:
    import torch

    from chatterbox_turbo_rs.stages.s3gen.encoder.python import FlowEncoder

    torch.manual_seed(0)
    module = FlowEncoder(json.loads((tiny_checkpoint / "config.json").read_text())["s3gen"])
    module.load_state_dict(in_torch.module.state_dict())
    ids, goal = torch.randint(0, 6561, (2, 12)), torch.randn(2, 24, 80)
    optimizer = torch.optim.SGD(module.parameters(), 1e-2)
    losses = []
    for _ in range(3):
        module.train()
        optimizer.zero_grad()
        (module(ids, torch.tensor([12, 9])) - goal).square().mean().backward()
        optimizer.step()
        module.eval()
        losses.append((module(ids, torch.tensor([12, 9])) - goal).square().mean().item())
    assert losses == sorted(losses, reverse=True)
    for name, parameter in module.named_parameters():
        # A bias of the keys moves all scores of a row alike, which softmax does not see.
        assert parameter.grad is not None and (name.endswith("linear_k.bias") or parameter.grad.abs().max() > 1e-7), name


def test_relative_shift_takes_the_column_of_the_relative_position(in_torch: Any) -> None:
    import torch

    from chatterbox_turbo_rs.stages.s3gen.encoder.python import relative_shift

    for rows in (1, 2, 5):
        x = torch.randn(2, 3, rows, 2 * rows - 1)
        shifted = relative_shift(x)
        assert shifted.shape == (2, 3, rows, rows)
        for i in range(rows):
            for j in range(rows):
                assert torch.equal(shifted[..., i, j], x[..., i, rows - 1 - i + j])
