"""The drift check of the table in docs/parity.md: figures may move between machines, everything else may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatterbox_turbo_rs.parity.checklist import BOXES
from parity_table import drift, parts

ROOT = Path(__file__).resolve().parents[1]
LINE = "| T3 | identical | rel 1e-6 (limit 1e-5) | mean abs 0.02 (limit 0.3) | 13 settings identical |"


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (LINE, True),
        (LINE.replace("1e-6", "5e-6"), True),
        (LINE.replace("1e-6", "8e-6"), False),
        (LINE.replace("1e-6", "1e-5"), False),
        (LINE.replace("rel 1e-6 (limit 1e-5)", "peak 1e-4 (limit 0.001)"), True),
        (LINE.replace("rel 1e-6 (limit 1e-5)", "not measured"), False),
        (LINE.replace("rel 1e-6 (limit 1e-5)", "**failed**: rel 2e-5 (limit 1e-5)"), False),
        (LINE.replace("0.02", "0.2"), False),
        (LINE.replace("13", "12"), False),
        (LINE.replace("| identical", "| rel 1e-7 (limit 1e-5)"), True),
        (LINE.replace("| identical", "| rel 6e-6 (limit 1e-5)"), False),
        (LINE.replace("T3", "T4"), False),
        (LINE + "\n" + LINE, False),
    ],
)
def test_what_counts_as_drift(other: str, same: bool) -> None:
    assert (drift(LINE, other) == []) is same


def test_the_document_has_a_line_for_every_box() -> None:
    _, table, _ = parts((ROOT / "docs" / "parity.md").read_text("utf-8"))
    assert len(table.splitlines()) == 2 + len(BOXES)
    with pytest.raises(ValueError, match="once each"):
        parts("no table here")
