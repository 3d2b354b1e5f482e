"""What the tests of the three encoder stages share: the tiny checkpoint behind the goldens, and what all of them do and refuse."""

from __future__ import annotations

import copy
import functools
import importlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chatterbox_turbo_rs.checkpoint import config
from chatterbox_turbo_rs.checkpoint.resources import Resources
from chatterbox_turbo_rs.errors import ArgumentError, CheckpointError

TESTS = Path(__file__).parents[1]
SEED = 1234  # the goldens' checkpoint, see tests/goldens/manifest.json


@functools.cache
def checkpoint() -> tuple[tempfile.TemporaryDirectory[str], Resources]:
    """The checkpoint that made the goldens; it lives as long as the test run."""
    folder = tempfile.TemporaryDirectory()
    tool = TESTS.parent / "tools" / "make_checkpoint.py"
    subprocess.run([sys.executable, str(tool), "--size", "tiny", "--seed", str(SEED), folder.name], check=True)
    return folder, resources(Path(folder.name))


def resources(directory: Path) -> Resources:
    return Resources(directory, json.loads((directory / "config.json").read_text()))


def load(key: str, implementation: str, of: Resources | None = None) -> Any:
    module = importlib.import_module(f"chatterbox_turbo_rs.stages.{key}.{implementation}")
    return module.create(of or checkpoint()[1])


def cases(name: str, wanted: str) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """The input called ``wanted`` of every case of a golden, and all entries of that case."""
    with np.load(TESTS / "goldens" / f"{name}.npz") as file:
        arrays = dict(file)
    found = [key[: -len(wanted) - 1] for key in arrays if key.endswith(f".{wanted}")]
    assert len(found) == 3, f"{name}: expected three cases, found {found}"
    for case in found:
        yield arrays[f"{case}.{wanted}"], {k.split(".")[1]: v for k, v in arrays.items() if k.startswith(f"{case}.")}


def check_form(found: np.ndarray, expected: np.ndarray) -> None:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.flags.c_contiguous and np.isfinite(found).all()


def check_refusals(stage: Callable[[np.ndarray], np.ndarray], name: str, good: np.ndarray) -> None:
    """Bad arrays raise an ArgumentError that names the argument, what was expected and what came."""
    channels = good.shape[1]
    bad = {
        "float64": good.astype(np.float64),
        f"[0, {channels}]": good[:0],
        f"{channels - 1}]": np.ascontiguousarray(good[:, 1:]),
        f"({channels},)": good[0],
        "int64": good.astype(np.int64),
        "list": good[:2].tolist(),
    }
    for value in (np.nan, np.inf):
        bad[f"{value} at row 1, column 2".lower()] = np.where(
            np.arange(good.size).reshape(good.shape) == channels + 2, value, good
        )
    for came, array in bad.items():
        with pytest.raises(ArgumentError) as caught:
            stage(array if came in ("float64", "int64", "list") else array.astype(np.float32))
        text = str(caught.value).lower()
        assert name in text and "expected" in text and came in text, text


def check_pure(stage: Callable[[np.ndarray], np.ndarray], good: np.ndarray) -> None:
    """The same numbers twice and from a strided view; the input stays as it was."""
    kept, first = good.copy(), stage(good)
    wide = np.zeros((2 * len(good), good.shape[1]), np.float32)
    wide[::2] = good
    assert (first == stage(good)).all() and (first == stage(wide[::2])).all() and (good == kept).all()


def check_threads(stage: Callable[[np.ndarray], np.ndarray], good: np.ndarray) -> None:
    """Threads that share a stage do not disturb each other."""
    inputs = [good, np.ascontiguousarray(good[::-1]), good * np.float32(0.5)]
    alone = [stage(array) for array in inputs]
    assert any((alone[0] != other).any() for other in alone[1:])
    with ThreadPoolExecutor(3) as pool:
        for found, expected in zip(pool.map(stage, inputs * 4), alone * 4):
            assert np.array_equal(found, expected)


def check_training(stage: Any, loss: Callable[[Any], Any]) -> None:
    """In training mode the gradient of ``loss(module)`` reaches every parameter, and a small step against it lowers the loss."""
    import torch

    module = copy.deepcopy(stage.module).train().requires_grad_(True)
    before = loss(module)
    before.backward()
    idle = [name for name, value in module.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert not idle, f"no gradient in {idle}"
    length = sum(float(value.grad.square().sum()) for value in module.parameters())
    with torch.no_grad():
        for value in module.parameters():
            value -= 1e-3 * float(before) / length * value.grad
        assert float(loss(module)) < float(before)


def check_tensor_names(key: str, network: str, section: str, file: str) -> None:
    """At Turbo's sizes the module's tensors are those of upstream's file, name by name and shape by shape."""
    import torch

    python = importlib.import_module(f"chatterbox_turbo_rs.stages.{key}.python")
    turbo = config.builtin("turbo")
    with torch.device("meta"):
        module = getattr(python, network)(turbo[section])
    prefix = next(value.prefix for value in vars(python).values() if isinstance(value, type) and hasattr(value, "prefix"))
    found = {prefix + name: "x".join(map(str, value.shape)) or "scalar" for name, value in module.state_dict().items()}
    rows = [line.split("\t") for line in (TESTS / "data" / "tensor_inventory.tsv").read_text().splitlines()]
    assert found == {row[1]: row[2] for row in rows if row[0] == turbo["files"][file] and row[1].startswith(prefix)}


def check_hyperparameters(stage: Any, section: str, others: Mapping[str, Any]) -> None:
    """What the module says it computes with is what the configuration asks for, and ``others``."""
    assert stage.hyperparameters() == {**checkpoint()[1].config[section], **others}


def check_load_refusals(key: str, implementation: str, which: str, tensor: str, tmp_path: Path) -> None:
    """A missing tensor, one of another shape and one that nobody knows are named."""
    from safetensors.numpy import load_file, save_file

    source = checkpoint()[1]
    for file in (*source.config["files"].values(), "config.json"):
        (tmp_path / file).write_bytes((source.directory / file).read_bytes())
    path = tmp_path / source.config["files"][which]
    good = load_file(path)
    prefix = tensor.split(".", maxsplit=1)[0] + "." if which == "s3gen" else ""
    missing = {k: v for k, v in good.items() if k != tensor}
    changed = good | {tensor: np.zeros((3, 1), np.float32)}
    extra = good | {f"{prefix}surprise": np.zeros(1, np.float32)}
    for tensors, says in (
        (missing, f"{tensor} is missing"),
        (changed, f"{tensor}: expected shape"),
        (extra, f"{prefix}surprise"),
    ):
        save_file(tensors, path)
        with pytest.raises(CheckpointError, match=says.replace(".", r"\.")):
            load(key, implementation, resources(tmp_path))


def check_callback(stage: Callable[..., np.ndarray], key: str, good: np.ndarray) -> None:
    """Progress reaches its total, and what the callback raises stops the stage."""
    seen: list[tuple[str, int, int]] = []
    stage(good, callback=lambda *report: seen.append(report))
    assert {report[0] for report in seen} == {key} and seen[-1][1] == seen[-1][2] > 0

    def stop(*_: object) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        stage(good, callback=stop)
