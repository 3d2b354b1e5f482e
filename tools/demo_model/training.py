"""What the trainings of the sound share: settings, a resumable loop with its checkpoint and its log, and a cosine of trained time.

A run is one file ``WORK/checkpoints/NAME.pt`` (weights, optimizer, random states, seconds trained) and one log
``WORK/logs/NAME.jsonl`` (a JSON object a line). The same command goes on where a killed one stopped; a larger ``--minutes`` goes on
where a finished one ended.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from chatterbox_turbo_rs.checkpoint.tensor_file import TensorFile
from chatterbox_turbo_rs.stages.shared import torch_network

SAVE_EVERY = 120.0
"""Seconds between two checkpoints."""
LOG_EVERY = 30.0
WARM_UP = 60
"""Steps over which the learning rate rises."""
HALF = torch.cpu._is_avx512_bf16_supported()
"""Whether products of bfloat16 are the processor's own: elsewhere they take thirty times as long as those of float32."""


def work_folder(parser: argparse.ArgumentParser) -> None:
    """Adds ``--work`` (default: ``DEMO_WORK`` or a folder of the user's cache)."""
    default = os.environ.get("DEMO_WORK", str(Path.home() / ".cache" / "chatterbox-turbo-rs" / "demo-model"))
    parser.add_argument("--work", type=Path, default=Path(default), help="folder of data, checkpoints and logs")


def arguments(description: str, minutes: float, rate: float, batch: int) -> argparse.ArgumentParser:
    """A parser with what every training takes."""
    parser = argparse.ArgumentParser(description=description)
    work_folder(parser)
    parser.add_argument(
        "--minutes",
        type=float,
        default=minutes,
        help="to train in all, earlier runs included: processor time, divided by the threads",
    )
    parser.add_argument("--rate", type=float, default=rate, help="highest learning rate")
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--model", type=Path, help="assembled model whose weights a new run begins with: only these survive a machine"
    )
    return parser


def begin(module: nn.Module, model: Path | None, file: str, prefix: str) -> None:
    """Begins with the weights of an assembled model (``--model``): its ``file``, the tensors below ``prefix``."""
    if model is None:
        return
    source = torch_network.load(copy.deepcopy(module), TensorFile(model / file), prefix, within=())
    with torch.no_grad():
        for name, value in source.state_dict().items():
            module.state_dict()[name].copy_(value)


def checkpoint(work: Path, name: str) -> Path:
    return work / "checkpoints" / f"{name}.pt"


def weights(work: Path, name: str) -> dict[str, Tensor]:
    """The weights of a run's last checkpoint: the running average where there is one."""
    state = torch.load(checkpoint(work, name), map_location="cpu", weights_only=False)
    return state["average"]


def orthogonal(grad: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Muon's Newton-Schulz iteration in float32, where PyTorch's takes bfloat16 (Jordan et al. 2024)."""
    a, b, c = coefficients
    x = grad.T if grad.size(0) > grad.size(1) else grad
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if grad.size(0) > grad.size(1) else x


if not HALF:
    torch.optim._muon._zeropower_via_newtonschulz = orthogonal


class Optimizers:
    """Muon for the matrices that ``inner`` chooses (a convolution counts as one, outputs by the rest), AdamW for all else."""

    def __init__(self, module: nn.Module, rate: float, inner: Callable[[str, nn.Parameter], bool], share: float = 1.0) -> None:
        """``share``: AdamW's rate against Muon's, which makes changes of AdamW's size."""
        named = list(module.named_parameters())
        self.matrices = [p for name, p in named if p.dim() > 1 and inner(name, p)]
        self.flat = [nn.Parameter(p.detach().flatten(1)) for p in self.matrices]  # the same memory
        rest = [p for name, p in named if not (p.dim() > 1 and inner(name, p))]
        self.muon = torch.optim.Muon(
            self.flat, lr=rate, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw", ns_steps=4
        )
        self.adam = torch.optim.AdamW(rest, lr=rate * share, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self.param_groups = [*self.muon.param_groups, *self.adam.param_groups]

    def step(self) -> None:
        for flat, matrix in zip(self.flat, self.matrices):
            flat.grad = None if matrix.grad is None else matrix.grad.flatten(1)
        self.muon.step()
        self.adam.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for matrix in self.matrices:
            matrix.grad = None
        self.adam.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        self.param_groups = [*self.muon.param_groups, *self.adam.param_groups]


class Loop:
    """Calls ``step(rng) -> {name: loss}`` with an optimizer around it until the minutes are over."""

    def __init__(self, name: str, module: nn.Module, optimizer: Any, args: argparse.Namespace) -> None:
        self.name, self.module, self.optimizer, self.args = name, module, optimizer, args
        self.seconds, self.steps = 0.0, 0
        self.rng = np.random.default_rng(args.seed)
        self.extra: dict[str, Any] = {}  # what else the checkpoint tells
        self.average = {key: value.detach().clone() for key, value in module.state_dict().items()}
        self.path = checkpoint(args.work, name)
        self.log_path = args.work / "logs" / f"{name}.jsonl"
        for path in (self.path, self.log_path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self.base = [group["lr"] / args.rate for group in optimizer.param_groups]
        if self.path.exists():
            self._resume()

    def progress(self) -> float:
        """0 at the beginning, 1 when the minutes are over."""
        return min(1.0, self.seconds / (60 * self.args.minutes))

    def run(
        self, step: Callable[[np.random.Generator], Mapping[str, Tensor]], held_out: Callable[[], Mapping[str, float]]
    ) -> None:
        """``step`` gives losses, of which ``loss`` is minimised; ``held_out`` what is logged beside them at every checkpoint."""
        sums: dict[str, list[float]] = defaultdict(list)
        saved = logged = time.perf_counter()
        busy = time.process_time()
        while self.progress() < 1.0:
            rate = self.args.rate * min(1.0, (self.steps + 1) / WARM_UP) * (0.02 + 0.98 * self._shape())
            for group, base in zip(self.optimizer.param_groups, self.base):
                group["lr"] = rate * base
            losses = step(self.rng)
            self.optimizer.zero_grad(set_to_none=True)
            losses["loss"].backward()
            norm = nn.utils.clip_grad_norm_(self.module.parameters(), 5.0)
            if torch.isfinite(norm):
                self.optimizer.step()
            self._follow()
            for key, value in {**losses, "norm": norm}.items():
                sums[key].append(float(value.detach()))
            self.steps += 1
            now, before, busy = time.perf_counter(), busy, time.process_time()
            self.seconds += (busy - before) / self.args.threads
            if now - logged > LOG_EVERY:
                self._log({key: round(float(np.mean(values)), 4) for key, values in sums.items()} | {"rate": round(rate, 7)})
                logged, sums = now, defaultdict(list)
            if now - saved > SAVE_EVERY or self.progress() >= 1.0:
                self.save()
                self.module.eval()
                with torch.no_grad():
                    self._log({f"held_out_{key}": round(float(value), 4) for key, value in held_out().items()})
                self.module.train()
                saved, busy = time.perf_counter(), time.process_time()

    def save(self) -> None:
        state = {
            "weights": self.module.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "seconds": self.seconds,
            "steps": self.steps,
            "rng": self.rng.bit_generator.state,
            "torch_rng": torch.get_rng_state(),
            **self.extra,
        }
        temporary = self.path.with_suffix(".part")
        torch.save(state, temporary)
        temporary.replace(self.path)

    def _resume(self) -> None:
        state = torch.load(self.path, map_location="cpu", weights_only=False)
        self.module.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average = state["average"]
        self.seconds, self.steps = state["seconds"], state["steps"]
        self.rng.bit_generator.state = state["rng"]
        torch.set_rng_state(state["torch_rng"])

    def _shape(self) -> float:
        """1 for the first half, then half a cosine."""
        return 1.0 if self.progress() < 0.5 else 0.5 + 0.5 * math.cos(2 * math.pi * (self.progress() - 0.5))

    def _follow(self) -> None:
        """An exponential average of the weights over some 200 steps, fewer at the beginning."""
        share = max(0.005, 1.0 / (self.steps + 1))
        with torch.no_grad():
            for key, value in self.module.state_dict().items():
                if value.is_floating_point():
                    self.average[key].lerp_(value, share)
                else:
                    self.average[key].copy_(value)

    def _log(self, entry: dict[str, Any]) -> None:
        line = json.dumps({"minutes": round(self.seconds / 60, 2), "step": self.steps, **entry})
        with open(self.log_path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)
