"""One row of a parity report: a stage (or a part of one) of one party against another's on one clip, text or configuration entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .metrics import Figures, compare, log_spectra
from .tolerances import describe, judge, limits, margin


@dataclass
class Row:
    """``mode`` is ``loaded`` (configuration), ``isolated`` (the reference's own input) or ``chained`` (each from its own stage before).

    ``seconds`` are the reference's and the candidate's; ``values`` the two values of a row that compares no arrays.
    """

    comparison: tuple[str, str]
    mode: str
    stage: str
    case: str
    figures: Figures | None = None
    allowed: Mapping[str, Any] = field(default_factory=dict)
    values: tuple[Any, Any] | None = None
    wrong: list[str] = field(default_factory=list)
    missing: str | None = None
    note: str = ""
    seconds: tuple[float | None, float | None] = (None, None)
    informative: bool = False
    """Says how far apart two ways are that need not agree."""
    device: str = "cpu"
    """What Rust's networks ran on."""

    @property
    def verdict(self) -> str:
        if self.missing:
            return "missing"
        return "FAIL" if self.wrong else "note" if self.informative else "ok"

    @property
    def used(self) -> float | None:
        """Share of the tightest limit; None where no arrays can be compared."""
        used = margin(self.figures, self.allowed) if self.figures else None
        return used if used is not None and np.isfinite(used) else None

    def as_dict(self) -> dict[str, Any]:
        """For the report."""
        return {
            "comparison": list(self.comparison),
            "mode": self.mode,
            "stage": self.stage,
            "case": self.case,
            "verdict": self.verdict,
            "figures": self.figures.as_dict() if self.figures else None,
            "values": list(self.values) if self.values else None,
            "tolerance": describe(self.allowed) if self.allowed else "",
            "used": self.used,
            "wrong": self.wrong,
            "missing": self.missing,
            "note": self.note,
            "seconds": [None if s is None else round(s, 6) for s in self.seconds],
        }


def fill(row: Row, reference: Any, candidate: Any, levels: np.ndarray | None = None) -> Row:
    """Compares two arrays or texts and judges by ``tolerances.toml`` (section ``row.mode``, key ``row.stage``).

    A ``@spectrum`` compares log spectra. ``levels``, the reference's numbers before rounding [tokens, digits], explain a token
    that differs where every digit that differs comes from a near tie.
    """
    allowed = limits(row.stage, row.mode, row.device)
    if row.stage.endswith("@spectrum"):
        reference, candidate = log_spectra(reference, candidate)
    row.allowed, row.figures = allowed, compare(reference, candidate)
    row.wrong = judge(row.figures, allowed)
    if row.wrong and levels is not None and row.figures.comparable:
        ties = near_ties(
            np.asarray(reference), np.asarray(candidate), levels, limits("s3tokenizer.near_tie", device=row.device)["max_abs"]
        )
        if ties is not None:
            row.wrong, row.note = [], f"{ties} tokens differ, each at a number within the near-tie limit of 0.5"
    return row


def near_ties(reference: np.ndarray, found: np.ndarray, levels: np.ndarray, limit: float) -> int | None:
    """How many tokens differ, when every digit that differs comes from a number within ``limit`` of ±0.5; otherwise None."""
    powers = 3 ** np.arange(levels.shape[1])
    digits = reference[:, None] // powers % 3, found[:, None] // powers % 3
    differ = digits[0] != digits[1]
    if (np.abs(np.abs(levels[differ]) - 0.5) > limit).any() or (np.abs(digits[0] - digits[1]) > 1).any():
        return None
    return int(differ.any(axis=1).sum())
