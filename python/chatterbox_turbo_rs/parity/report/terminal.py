"""The report as aligned text: the checklist in its own order, every box with its answer and the worst row of every stage."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from . import text as words
from .model import Node, Report, Row, check, groups, of_verdict, tree

WIDTH = 118
HEAD = ("comparison", "mode", "stage", "worst case", *words.COLUMNS, "tolerance", "verdict", "time a", "time b")
TIMES = slice(len(HEAD) - 2, len(HEAD))
FIGURES = slice(4, 4 + len(words.COLUMNS))
INDENT = "    "

Line = tuple[str, ...]


def terminal(report: Mapping[str, Any], every: bool = False) -> str:
    """The whole report; ``every`` shows each case instead of the worst of each stage. Raises ``ValueError`` for a bad report."""
    known = check(report)
    sections = tree(known)
    tables: dict[int, list[Line]] = {}
    for _, nodes in sections:
        for node in _flat(nodes):
            tables[id(node)] = _lines(node, every)
    widths = _widths([line for lines in tables.values() for line in lines])
    parts = [_header(known)]
    for title, nodes in sections:
        part = [words.one_line(title), "=" * len(title), INDENT + _aligned(HEAD, widths)]
        for node in nodes:
            part += _box(node, 0, tables, widths)
        parts.append("\n".join(part))
    parts += [part for part in (_failed(known), _missing(known), _notes(known), _taps(known), summary(known)) if part]
    return "\n\n".join(parts) + "\n"


def summary(report: Report) -> str:
    """``123 rows, 2 failed, 1 missing; isolated and chained, 75 s``."""
    s = report["summary"]
    modes = " and ".join(mode for mode in ("isolated", "chained") if s[mode]) or "loaded only"  # type: ignore[literal-required]
    return f"{s['rows']} rows, {s['failed']} failed, {s['missing']} missing; {modes}, {words.seconds(s['seconds'])}"


def _flat(nodes: Sequence[Node]) -> list[Node]:
    return [each for node in nodes for each in (node, *node.children)]


def _header(report: Report) -> str:
    model, machine = report["model"], report["machine"]
    lines = [report["title"], "", f"model    {words.value(model.get('name', ''))}"]
    for name, file in model.get("files", {}).items():
        lines.append(f"         {name}  {file.get('bytes', 0):,} bytes  sha256 {file.get('sha256', '')}")
    lines.append("machine  " + ", ".join(f"{key} {words.value(value, 200)}" for key, value in machine.items()))
    for name, party in report["parties"].items():
        details = {**party.get("versions", {}), **{key: value for key, value in party.items() if key != "versions"}}
        lines.append(f"{name:8} " + ", ".join(f"{key} {words.value(value, 200)}" for key, value in details.items()))
    return "\n".join(words.CONTROL.sub(" ", line).rstrip() for line in lines)


def _box(node: Node, level: int, tables: Mapping[int, list[Line]], widths: Sequence[int]) -> list[str]:
    indent = INDENT * level
    mark = words.MARKS[node.verdict]
    label = ": ".join(_bare(part) for part in (node.heading, node.text) if part)
    if node.verdict != "ok":
        label = f"{node.verdict}: {label}"
    lines = textwrap.wrap(f"{mark} {label}", WIDTH, initial_indent=indent, subsequent_indent=indent + INDENT)
    if node.answer:
        answer = _bare(node.answer)
        lines += textwrap.wrap(f"= {answer}", WIDTH, initial_indent=indent + INDENT, subsequent_indent=indent + INDENT + "  ")
    lines += [INDENT + _aligned(line, widths) for line in tables[id(node)]]
    for child in node.children:
        lines += _box(child, level + 1, tables, widths)
    return lines


def _bare(text: str) -> str:
    return words.one_line(text).replace("**", "")


def _lines(node: Node, every: bool) -> list[Line]:
    if every:
        return [_line(row, row["stage"], words.both_values(row) or row["case"], row["seconds"]) for row in node.rows]
    return [_line(g.worst, g.stage, words.case(g), g.seconds) for g in groups(node.rows, condensed=True)]


def _line(row: Row, stage: str, case: str, times: Sequence[float | None]) -> Line:
    names = (words.pair(row["comparison"]), *map(words.one_line, (row["mode"], stage, case)))
    return (*names, *words.figure_cells(row), words.tolerance(row["tolerance"]), row["verdict"], *map(words.seconds, times))


def _widths(lines: Sequence[Line]) -> list[int]:
    return [max(len(line[i]) for line in (HEAD, *lines)) for i in range(len(HEAD))]


def _aligned(line: Line, widths: Sequence[int]) -> str:
    right = {*range(FIGURES.start, FIGURES.stop), *range(TIMES.start, TIMES.stop)}
    cells = [cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths))]
    return "  ".join(cells).rstrip()


def _failed(report: Report) -> str:
    return "\n".join(f"FAIL: {words.place(row)}: {words.reasons(row)}" for row in of_verdict(report, "FAIL"))


def _missing(report: Report) -> str:
    return "\n".join(f"missing: {words.place(row)}: {words.reasons(row)}" for row in of_verdict(report, "missing"))


def _notes(report: Report) -> str:
    noted = [row for row in report["rows"] if row["verdict"] in ("ok", "note") and words.reasons(row)]
    return "\n".join(f"note: {words.place(row)}: {words.reasons(row)}" for row in noted)


def _taps(report: Report) -> str:
    taps = report["taps"]
    if taps is None:
        return ""
    first = f"first difference: {words.one_line(taps['first'])}" if taps["first"] else "no layer differs"
    lines = [("layer", "max abs", "rel rms", "tolerance", "verdict")]
    for tap in taps["rows"]:
        figures = (words.number(tap["max_abs"], ".2e"), words.number(tap["relative_rms"], ".2e"))
        lines.append((words.one_line(tap["name"]), *figures, words.tolerance(tap["tolerance"]), words.one_line(tap["verdict"])))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    table = [INDENT + "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    return "\n".join([f"Layers of {words.one_line(taps['stage'])}, {words.pair(taps['comparison'])}; {first}", *table])
