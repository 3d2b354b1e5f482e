"""Checks the document's table of the parity checklist against a report, or writes it.

usage: parity_table.py REPORT.json docs/parity.md [--write]

The table stands between two comments and comes from ``parity.report.parity_table``. Items, numbers of settings and words have to be
the same. Figures are other ones on another machine, and another row may be the one that uses most of its limit: the share of
the limit may be up to four times the other's and a third more. Exit code 1, with the lines, when they are not.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

BEGIN, END = "<!-- parity table: begin -->", "<!-- parity table: end -->"
FIGURE = re.compile(r"^[a-z ]*(\d\S*)(?: dB)? \(limit (\d\S*?)(?: dB)?\)$")
FACTOR, MORE = 4.0, 1 / 3


def parts(text: str) -> tuple[str, str, str]:
    """What stands before the table, the table, and what stands behind it. Raises ``ValueError`` without the two comments."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"expected {BEGIN} and {END} once each")
    before, rest = text.split(BEGIN)
    table, behind = rest.split(END)
    return before + BEGIN, table.strip(), END + behind


def drift(found: str, expected: str) -> list[str]:
    """The lines that differ by more than a figure may."""
    ours, theirs = found.splitlines(), expected.splitlines()
    if len(ours) != len(theirs):
        return [f"expected {len(theirs)} lines, found {len(ours)}"]
    wrong = []
    for a, b in zip(ours, theirs, strict=True):
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (a, b)]
        if len(cells[0]) != len(cells[1]) or not all(map(near, *cells)):
            wrong.append(f"document: {a}\nreport: {b}")
    return wrong


def near(a: str, b: str) -> bool:
    """Whether two cells say the same, but for what another machine may measure."""
    shares = [share(a), share(b)]
    if None in shares:
        return a == b
    low, high = sorted(float(s or 0.0) for s in shares)
    return high <= FACTOR * low + MORE


def share(cell: str) -> float | None:
    """The share of its limit that a cell's figure uses, 0 for ``identical``; None for other words."""
    if cell == "identical":
        return 0.0
    found = FIGURE.match(cell)
    return float(found[1]) / float(found[2]) if found else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("document", type=Path)
    parser.add_argument("--write", action="store_true")
    a = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
    from chatterbox_turbo_rs.parity import report

    table = report.parity_table(json.loads(a.report.read_text("utf-8"))).strip()
    before, found, behind = parts(a.document.read_text("utf-8"))
    if a.write:
        a.document.write_text(f"{before}\n{table}\n{behind}", encoding="utf-8")
        return 0
    wrong = drift(found, table)
    print("\n".join(wrong) or "the document's table is that of the report")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
