"""What all plots share: ticks, a panel with its axes, and the outline of a long signal as an SVG path.

Pictures stretch with the page; their tick labels are HTML beside them, so that text keeps its size on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from . import text as words
from .markup import Child, Markup, el

# Columns of an outline: about one for every pixel of a wide page.
BINS = 700


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most ``most`` of them, in steps of 1, 2 or 5 times a power of ten."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    rough = (high - low) / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9)), 10 * power)
    first = math.ceil(low / step - 1e-9)
    return [i * step + 0.0 for i in range(first, math.floor(high / step + 1e-9) + 1)]


def tick(value: float) -> str:
    """The text of a tick."""
    return f"{value:g}".replace("-", "−")


def panel(
    name: str,
    picture: Child,
    x: tuple[float, float],
    y: tuple[float, float],
    names: str = "",
    scale: Child = None,
    y_ticks: Sequence[float] | None = None,
    x_form: Callable[[float], str] = tick,
    y_form: Callable[[float], str] = tick,
    class_: str = "",
) -> Markup:
    """A picture with its name, its scale, ticks along x (left to right) and y (bottom to top), and what the axes are."""
    below = [el("span", x_form(v), style=f"left:{_percent(v, *x)}") for v in ticks(*x)]
    beside = [
        el("span", y_form(v), style=f"bottom:{_percent(v, *y)}") for v in (ticks(*y, most=5) if y_ticks is None else y_ticks)
    ]
    return el(
        "div",
        el("div", el("span", name, class_="name"), scale, class_="panel-head"),
        el("div", el("div", beside, class_="y", aria_hidden="true"), el("div", picture, class_="area"), class_="row"),
        el("div", el("div", below, class_="x", aria_hidden="true"), class_="row below"),
        el("div", names, class_="axis-names") if names else None,
        class_=f"panel {class_}".strip(),
    )


def svg(label: str, *children: Child, width: float = BINS, height: float = 100) -> Markup:
    """A picture that stretches to its box."""
    box = f"0 0 {width:g} {height:g}"
    return el("svg", *children, viewBox=box, preserveAspectRatio="none", role="img", aria_label=label)


def path(data: str, class_: str) -> Markup | None:
    """A path, or nothing for one without points."""
    return el("path", d=data, class_=class_, vector_effect="non-scaling-stroke") if data else None


def outline(signal: np.ndarray, low: float, high: float, length: int) -> str:
    """Smallest to largest value of every column, as a closed path in ``BINS`` x 100; columns without a finite value are gaps.

    ``signal`` is [n]; ``length`` samples, at least n, take the whole width. A short signal becomes a line through its samples.
    """
    columns: list[tuple[float, float, float]] = []
    runs = [columns]
    edges = np.linspace(0, length, min(BINS, length) + 1).astype(int)
    height = 100.0 / (high - low) if high > low else 0.0
    for start, stop in zip(edges[:-1], edges[1:]):
        piece = signal[start : min(stop, signal.size)]
        piece = piece[np.isfinite(piece)].astype(np.float64)
        if piece.size == 0:
            columns = []
            runs.append(columns)
            continue
        at = (start + stop) / 2 / length * BINS
        columns.append((at, (high - float(piece.max())) * height, (high - float(piece.min())) * height))
    return "".join(_polygon(run) for run in runs if run)


def _polygon(columns: Sequence[tuple[float, float, float]]) -> str:
    there = "L".join(f"{_short(x)} {_short(top)}" for x, top, _ in columns)
    back = "L".join(f"{_short(x)} {_short(bottom)}" for x, _, bottom in reversed(columns))
    return f"M{there}L{back}Z"


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _percent(value: float, low: float, high: float) -> str:
    return f"{100 * (value - low) / (high - low) if high > low else 50:.2f}%"


def span(*arrays: np.ndarray) -> tuple[float, float]:
    """Smallest and largest finite value of the arrays; (0, 0) when there is none."""
    values = np.concatenate([a[np.isfinite(a)].ravel() for a in arrays]) if arrays else np.zeros(0)
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def reach(values: np.ndarray) -> float:
    """The largest finite absolute value, 0 when there is none."""
    low, high = span(values)
    return max(-low, high)


def difference(reference: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """candidate - reference in float64 over the entries that both have."""
    n = min(len(reference), len(candidate))
    with np.errstate(invalid="ignore"):
        return candidate[:n].astype(np.float64) - reference[:n].astype(np.float64)


def lengths(reference: np.ndarray, candidate: np.ndarray, unit: str, names: Sequence[str]) -> str:
    """A sentence for two lengths that differ, or nothing."""
    if len(reference) == len(candidate):
        return ""
    found = f"{words.one_line(names[0])} has {len(reference)} {unit}, {words.one_line(names[1])} {len(candidate)}"
    return f"The lengths differ: {found}; the difference is drawn where both have a value."


def not_finite(reference: np.ndarray, candidate: np.ndarray, drawn: str = "left out") -> str:
    """A sentence for numbers that are not finite, or nothing."""
    count = sum(int(np.count_nonzero(~np.isfinite(a))) for a in (reference, candidate))
    return f"{count} {'number is' if count == 1 else 'numbers are'} not finite ({drawn})." if count else ""
