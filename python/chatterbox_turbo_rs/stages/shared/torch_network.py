"""What the PyTorch sides of the network stages share: devices, upstream's tensors into a ``torch.nn.Module``, arrays in and out.

The modules carry upstream's own names, so that a checkpoint is a state dict: ``load`` checks every shape, folds weight
normalisation (``<name>.parametrizations.weight.original0/1`` → ``<name>.weight``) and refuses tensors that nobody asked for.
Forward hooks on these names are the taps of ``parity`` (see ``parity/taps.py``), in upstream's layout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from ...checkpoint.tensor_file import TensorFile
from ...errors import CheckpointError, DeviceError

Callback = Callable[[str, int, int], Any]
Advance = Callable[[], None]
Module = TypeVar("Module", bound=nn.Module)
WEIGHT_NORM = "parametrizations.weight.original"


def device(name: str) -> torch.device:
    """``"cpu"``, ``"cuda"`` or ``"metal"`` (PyTorch's ``mps``). Raises ``DeviceError`` when PyTorch cannot use it here."""
    usable = {"cpu": True, "cuda": torch.cuda.is_available(), "metal": torch.backends.mps.is_available()}
    if name not in usable:
        raise DeviceError(f"device: expected {', '.join(usable)}, got {name!r}")
    if not usable[name]:
        raise DeviceError(f"device {name}: PyTorch {torch.__version__} finds none here")
    return torch.device("mps" if name == "metal" else name)


def blank(make: Callable[[], Module], to: torch.device) -> Module:
    """``make()`` with tensors on the device that hold no values yet: ``load`` fills them, and no random number is drawn."""
    with torch.device("meta"):
        module = make()
    return module.to_empty(device=to)


def load(
    module: Module, file: TensorFile, prefix: str = "", *, within: Sequence[str] | None = None, unused: Sequence[str] = ()
) -> Module:
    """Fills ``module`` with the tensors of ``file`` below ``prefix`` and returns it in evaluation mode, without gradients.

    The file may hold no other tensors below ``within`` (prefixes of full names; default: ``prefix``) but for those that end in
    one of ``unused``. Raises ``CheckpointError`` that names the tensor: missing, of another shape, not finite, or not known.
    """
    names = set(file.names())
    used: set[str] = set()

    def read(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        used.add(name)
        return torch.from_numpy(file.get(name, shape))

    state = {}
    for name, own in module.state_dict().items():
        full, shape = prefix + name, tuple(own.shape)
        stem = full.removesuffix("weight") + WEIGHT_NORM
        if full.endswith(".weight") and f"{stem}0" in names:
            gain = read(f"{stem}0", (shape[0],) + (1,) * (len(shape) - 1))
            state[name] = weight_norm(gain, read(f"{stem}1", shape)).to(own.device)
        else:
            state[name] = read(full, shape).to(own.device)
    prefixes = tuple((prefix,) if within is None else within)
    extra = [n for n in sorted(names) if n.startswith(prefixes) and n not in used and not n.endswith(tuple(unused) or "\0")]
    if extra:
        raise CheckpointError(f"{file.path}: {len(extra)} tensors that the configuration does not know, the first is {extra[0]}")
    module.load_state_dict(state, strict=True, assign=True)  # no second copy
    return module.eval().requires_grad_(False)


def weight_norm(gain: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """``w = g v / ‖v‖``, the norm over every axis but the first (arXiv:1602.07868).

    The function that ``torch.nn.utils.parametrizations.weight_norm`` calls at every step upstream, so that the weights are the
    same to the bit. In float64 they would be up to 5 ulp closer to the truth, which the vocoder's phases turn into 2e-3.
    """
    return torch._weight_norm(direction, gain, 0)


def tensor(array: np.ndarray, to: torch.device) -> torch.Tensor:
    """``array`` with a batch axis of 1 in front, on the device; the array itself is never changed."""
    return torch.from_numpy(np.array(array))[None].to(to)


def array(value: torch.Tensor) -> np.ndarray:
    """A tensor with a batch axis of 1 as a new C-contiguous array without it (float32 or int64)."""
    value = value.detach()[0]
    return np.ascontiguousarray(value.float().cpu().numpy() if value.is_floating_point() else value.long().cpu().numpy())


def unreported() -> None:
    """The ``advance`` of a ``forward`` whose progress nobody follows."""


def reporter(stage: str, callback: Callback | None, total: int) -> Advance:
    """A function to call after each of ``total`` steps of a stage; the first call (nothing done yet) happens here."""
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if callback is not None:
            callback(stage, min(done, total), total)

    if callback is not None:
        callback(stage, 0, total)
    return advance
