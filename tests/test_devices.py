"""Devices: what ``"auto"`` becomes, and what is said where one is missing. What needs one stands in ``test_on_device.py``."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from toy_model import TOY

from chatterbox_turbo_rs import ChatterboxTurbo, _core
from chatterbox_turbo_rs.cli.main import main
from chatterbox_turbo_rs.engine import devices, registry
from chatterbox_turbo_rs.errors import DeviceError

HERE = {"cpu": None, "cuda": None, "metal": None}
RUST, MIXED = registry.resolve("rust"), registry.resolve("rust,t3.sampler=python")
PYTORCH = {**RUST, "s3gen.flow": "python"}


@pytest.fixture
def with_cuda(monkeypatch):
    monkeypatch.setattr(_core, "devices", lambda: HERE)


def test_reasons_are_those_of_the_core_and_of_opening():
    reasons = devices.reasons()
    assert list(reasons) == ["cpu", "cuda", "metal"] and reasons["cpu"] is None
    for kind, reason in reasons.items():
        if reason is not None:
            with pytest.raises(DeviceError, match=f"^{re.escape(f'device: {kind}: {reason}')}$"):
                ChatterboxTurbo.from_pretrained(TOY, device=kind, backends="rust")
    built = set(_core.build_info()["features"])
    assert all((f"no {kind} support" in (reasons[kind] or "")) == (kind not in built) for kind in ("cuda", "metal"))


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "", "cpu2"])
def test_names_that_are_none(name):
    with pytest.raises(DeviceError, match="^device: expected "):
        ChatterboxTurbo.from_pretrained(TOY, device=name, backends="rust")


def test_auto_is_cuda_where_everything_is_there(with_cuda):
    assert devices.resolve("auto", "auto", RUST) == devices.resolve("auto", "f32", RUST) == "cuda"
    assert devices.resolve("cpu", "auto", RUST) == "cpu" and devices.resolve("metal", "auto", RUST) == "metal"


@pytest.mark.parametrize("precision", ["int8", "bf16", "int8+bf16", "int4", "int4+bf16"])
def test_auto_is_the_cpu_for_a_format_that_it_alone_has(with_cuda, precision):
    assert devices.resolve("auto", precision, RUST) == "cpu"


def test_auto_is_the_cpu_where_something_is_missing():
    if devices.reasons()["cuda"] is None:
        pytest.skip("a CUDA device is here")
    assert devices.resolve("auto", "auto", RUST) == "cpu"


def test_auto_asks_pytorch_where_it_runs_a_network(with_cuda, monkeypatch):
    assert devices.resolve("auto", "auto", MIXED) == "cuda", "no network is PyTorch's"
    monkeypatch.setitem(sys.modules, "chatterbox_turbo_rs.stages.shared.torch_network", None)
    assert devices.resolve("auto", "auto", PYTORCH) == "cpu"


def test_libraries_are_looked_for_where_the_nvidia_wheels_have_them(monkeypatch, tmp_path: Path):
    assert all(Path(folder).is_dir() for folder in devices.folders())
    for name in ("nvidia/cu13/lib", "nvidia/cudnn/lib", "nvidia/empty"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    found = [folder for folder in devices.folders() if folder.startswith(str(tmp_path))]
    assert found == [str(tmp_path / "nvidia/cu13/lib"), str(tmp_path / "nvidia/cudnn/lib")]


def test_the_command_says_it_in_one_line(capsys):
    reason = devices.reasons()["cuda"]
    if reason is None:
        pytest.skip("a CUDA device is here")
    assert main(["say", "Hi.", "--model", TOY, "--device", "cuda"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err == f"chatterbox-turbo: device: cuda: {reason}\n"
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"device cuda: {reason}; not run on hardware by this project" in lines and "device cpu: available" in lines


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("cpu", "cpu"),
        ("cuda:1", "cuda:1"),
        ("mps", "metal"),
        ("mps:0", "metal:0"),
        (SimpleNamespace(type="cuda", index=1), "cuda:1"),
        (SimpleNamespace(type="cuda", index=None), "cuda"),
        (SimpleNamespace(type="mps", index=0), "metal:0"),
        ("auto", "auto"),
        ("mpsx", "mpsx"),
    ],
)
def test_names_of_devices(device: Any, name: str) -> None:
    assert devices.named(device) == name


@pytest.mark.parametrize("device", [None, 0, b"cpu", ["cpu"], object()])
def test_what_names_no_device(device: Any) -> None:
    with pytest.raises(DeviceError, match=r"^device: expected auto, cpu, cuda, metal or a torch\.device, got "):
        ChatterboxTurbo.from_pretrained(TOY, device=device)


def test_a_device_of_torch_runs() -> None:
    model = ChatterboxTurbo.from_pretrained(TOY, device=SimpleNamespace(type="cpu", index=None))
    assert model._pipeline.resources.device == "cpu"
