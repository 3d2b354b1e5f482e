"""Reads ``tolerances.toml`` and judges figures by it."""

from __future__ import annotations

import functools
import importlib.resources
import math
import sys
from collections.abc import Mapping
from typing import Any

from .metrics import Figures

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

UPPER = ("max_abs", "mean_abs", "peak", "relative_rms")
LOWER = ("worst_cosine",)
PRECISION = "f32"
"""What parity compares in."""


@functools.cache
def tolerances() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """Mode (``loaded``, ``isolated``, ``chained``, ``taps``) or device and precision (``cuda/f32``) -> stage -> limits. Raises ``ValueError`` for a limit that does not exist."""
    table = tomllib.loads(importlib.resources.files(__package__).joinpath("tolerances.toml").read_text(encoding="utf-8"))
    for mode, stages in table.items():
        for stage, limits in stages.items():
            unknown = set(limits) - {"exact", *UPPER, *LOWER}
            if unknown or not limits:
                raise ValueError(
                    f"tolerances.toml: {mode}, {stage}: expected limits exact, {', '.join(UPPER + LOWER)}, found {limits}"
                )
    return table


def limits(stage: str, mode: str = "isolated", device: str = "cpu") -> Mapping[str, Any]:
    """The limits of a stage (``"s3gen.flow"``, ``"reference.load@multistage"``) whose candidate ran on ``device``.

    Raises ``KeyError`` when it has none.
    """
    table = tolerances()
    if mode not in table:
        raise KeyError(f"mode: expected {', '.join(table)}, found {mode}")
    there = table.get(f"{device.partition(':')[0]}/{PRECISION}", {})
    found = there.get(stage, table[mode].get(stage, table["isolated"].get(stage)))
    if found is None:
        raise KeyError(f"tolerances.toml has no limits for stage {stage}")
    return found


def judge(figures: Figures, allowed: Mapping[str, Any]) -> list[str]:
    """What is wrong, one text each; empty when everything is within its limits."""
    if not figures.same_shape or not figures.same_dtype:
        return [f"shape or dtype differs: {figures.shapes}"]
    if figures.non_finite:
        return [f"{figures.non_finite} numbers are not finite"]
    wrong = []
    if allowed.get("exact") and not figures.exact:
        wrong.append(f"{figures.prefix} of {figures.length} are equal before the first difference")
    for name in UPPER:
        if name in allowed and not getattr(figures, name) <= allowed[name]:
            wrong.append(f"{name} {getattr(figures, name):.3g}, expected at most {allowed[name]:g}")
    for name in LOWER:
        if name in allowed and not getattr(figures, name) >= allowed[name]:
            wrong.append(f"{name} {getattr(figures, name):.9g}, expected at least {allowed[name]:g}")
    return wrong


def margin(figures: Figures, allowed: Mapping[str, Any]) -> float:
    """How much of the tightest limit is used, 1.0 at the limit; infinite when the arrays cannot be compared."""
    if not figures.comparable:
        return math.inf
    used = [getattr(figures, name) / allowed[name] for name in UPPER if name in allowed]
    used += [(1.0 - getattr(figures, name)) / (1.0 - allowed[name]) for name in LOWER if name in allowed]
    if allowed.get("exact"):
        used.append(0.0 if figures.exact else math.inf)
    return max(used)


def describe(allowed: Mapping[str, Any]) -> str:
    """The limits as a short text for a table."""
    parts = ["exact"] if allowed.get("exact") else []
    parts += [f"{name} ≤ {allowed[name]:g}" for name in UPPER if name in allowed]
    parts += [f"{name} ≥ {allowed[name]:g}" for name in LOWER if name in allowed]
    return ", ".join(parts)
