"""What the tests of S3Gen's stages share: goldens, the implementations, and a measure of difference."""

from __future__ import annotations

import functools
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from chatterbox_turbo_rs.checkpoint.resources import Resources
from chatterbox_turbo_rs.errors import ArgumentError

GOLDENS = Path(__file__).resolve().parents[1] / "goldens"
IMPLEMENTATIONS = ["rust"]


@functools.cache
def golden(name: str) -> dict[str, np.ndarray]:
    """The arrays of ``tests/goldens/s3gen_<name>.npz``; draws are stored as float16."""
    with np.load(GOLDENS / f"s3gen_{name}.npz") as file:
        return {key: file[key].astype(np.float32) if file[key].dtype == np.float16 else file[key] for key in file}


def create(name: str, implementation: str, directory: Path) -> Any:
    """The stage ``s3gen.<name>`` on a checkpoint directory."""
    module = importlib.import_module(f"chatterbox_turbo_rs.stages.s3gen.{name}.{implementation}")
    return module.create(Resources(directory, json.loads((directory / "config.json").read_text())))


def assert_close(found: np.ndarray, expected: np.ndarray, relative: float) -> None:
    """The relative root mean square difference is at most ``relative``; shapes are equal and all values finite."""
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert np.isfinite(found).all()
    difference = np.linalg.norm(found.astype(np.float64) - expected) / np.linalg.norm(expected.astype(np.float64))
    assert difference <= relative, f"relative difference {difference:.2e}, expected at most {relative:.0e}"


def refusal(stage: Any, *arguments: Any) -> str:
    """The message of the ``ArgumentError`` that the arguments lead to."""
    try:
        stage(*arguments)
    except ArgumentError as error:
        return str(error)
    raise AssertionError("the arguments were accepted")


class Stop(Exception):
    """Raised by callbacks."""


def stops_at_once(stage: Any, *arguments: Any) -> int:
    """Runs with a callback that raises; returns how often it was called."""
    calls: list[tuple[str, int, int]] = []

    def callback(name: str, done: int, total: int) -> None:
        calls.append((name, done, total))
        raise Stop

    try:
        stage(*arguments, callback)
    except Stop:
        return len(calls)
    raise AssertionError("the work went on although the callback raised")


def progress(stage: Any, *arguments: Any) -> list[tuple[str, int, int]]:
    """Runs to the end; returns the calls of its callback."""
    calls: list[tuple[str, int, int]] = []
    stage(*arguments, lambda *call: calls.append(call))
    return calls


def without_gradient(module: Any, loss: Any) -> list[str]:
    """The names of the parameters of a PyTorch module that ``loss`` gives no gradient, or one that is not finite."""
    module.zero_grad()
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    return [name for name, grad in gradients.items() if grad is None or not grad.isfinite().all() or not grad.any()]
