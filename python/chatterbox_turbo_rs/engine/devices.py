"""Which device ``"auto"`` is, why another cannot be used, and where packages keep CUDA's libraries."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path

from .. import _core
from ..errors import DeviceError

logger = logging.getLogger(__name__)
NETWORKS = (
    "voice_encoder.embedding",
    "s3tokenizer.tokens",
    "speaker_encoder.xvector",
    "t3.decoder",
    "s3gen.encoder",
    "s3gen.flow",
    "s3gen.vocoder",
)
"""The stages that are neural networks: what a device runs."""
NOT_RUN = ("cuda", "metal")
"""Devices that this project was never run on: their code was compiled, and its logic tested on the CPU (``docs/devices.md``)."""


def folders() -> list[str]:
    """Folders of the ``nvidia-*`` wheels that may hold CUDA 13's libraries; the core looks there after the system's own."""
    spec = importlib.util.find_spec("nvidia")
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    found = [folder for root in roots for folder in (root / "cu13" / "lib", *sorted(root.glob("*/lib")))]
    return [str(folder) for folder in dict.fromkeys(found) if folder.is_dir()]


def reasons() -> Mapping[str, str | None]:
    """Device -> why it cannot be used here, None where it can."""
    return _core.devices()


def named(device: object) -> str:
    """The name of ``device``, a string or a ``torch.device``; ``"mps"`` is torch's name of ``"metal"``.

    Raises ``DeviceError`` for anything else.
    """
    kind, index = getattr(device, "type", None), getattr(device, "index", None)
    name = device if isinstance(device, str) or kind is None else f"{kind}{'' if index is None else f':{index}'}"
    if not isinstance(name, str):
        raise DeviceError(f"device: expected auto, cpu, cuda, metal or a torch.device, got {type(device).__name__}")
    return "metal" + name[3:] if name.partition(":")[0] == "mps" else name


def resolve(device: str, precision: str, plan: Mapping[str, str]) -> str:
    """What ``"auto"`` stands for: CUDA where all that it needs is there, else the CPU; another name stands for itself.

    The CPU stays where ``precision`` names a format that it alone has, and where PyTorch runs a stage of ``plan`` and finds no
    GPU itself.
    """
    if device != "auto":
        return device
    if precision not in ("auto", "f32"):
        return "cpu"
    if (reason := reasons()["cuda"]) is not None:
        logger.info("device auto: the CPU: %s", reason)
        return "cpu"
    if any(plan[key] == "python" for key in NETWORKS):
        try:
            from ..stages.shared.torch_network import device as torch_device

            torch_device("cuda")
        except (ImportError, DeviceError) as error:
            logger.info("device auto: the CPU, since a stage is PyTorch's: %s", error)
            return "cpu"
    return "cuda"
