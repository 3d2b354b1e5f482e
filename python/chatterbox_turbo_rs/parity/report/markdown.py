"""The report as Markdown, and the small table for a README that can be made again and compared."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from . import text as words
from .model import Node, Report, check, groups, leaves, of_verdict, stages, tree
from .terminal import summary

SPECIAL = re.compile(r"([\\`*|\[\]])")
# The number before and the remark after the name of a section.
SECTION = re.compile(r"^\d+\. *| *\(.*\)$")
CODE = re.compile(r"(?<![`\\])(`[^`]+`)(?!`)")
WORDS = {"ok": "", "FAIL": "**FAIL**: ", "missing": "**missing**: ", "note": "**note**: "}


def markdown(report: Mapping[str, Any]) -> str:
    """The whole report. Raises ``ValueError`` for a bad report."""
    known = check(report)
    parts = [f"# {escape(known['title'])}", f"**{summary(known)}.**", _about(known)]
    for title, nodes in tree(known):
        parts += [f"## {escape(title)}", "\n".join(line for node in nodes for line in _item(node, 0))]
        rows = _rows(nodes)
        if len(rows) > 1:
            parts.append(_table(rows))
    for name, verdict in (("Failed", "FAIL"), ("Missing", "missing")):
        found = of_verdict(known, verdict)
        if found:
            parts += [f"## {name}", "\n".join(f"- {escape(words.place(row))}: {prose(words.reasons(row))}" for row in found)]
    noted = [row for row in known["rows"] if row["verdict"] in ("ok", "note") and words.reasons(row)]
    if noted:
        parts += ["## Notes", "\n".join(f"- {escape(words.place(row))}: {prose(words.reasons(row))}" for row in noted)]
    return "\n\n".join([*parts, *_taps(known), *_times(known)]) + "\n"


def parity_table(report: Mapping[str, Any]) -> str:
    """Checklist item against the worst measured difference of each comparison, one significant digit, no times and no dates."""
    known = check(report)
    pairs = [tuple(comparison) for comparison in known["comparisons"]]
    boxes = [(section, parent, node) for section, nodes in tree(known) for parent, node in leaves(nodes)]
    titles = Counter(node.title for _, _, node in boxes)
    lines = [["checklist item", *(escape(words.pair(comparison)) for comparison in pairs)]]
    for section, parent, node in boxes:
        # Some titles stand in two sections: "Model Architecture" of T3 and of S3Gen.
        above = parent.title if parent else SECTION.sub("", section) if titles[node.title] > 1 else ""
        cells = []
        for comparison in pairs:
            rows = [row for row in node.rows if tuple(row["comparison"]) == comparison]
            failed = any(row["verdict"] == "FAIL" for row in rows)
            cells.append(("**FAIL** " if failed else "") + escape(words.measured(rows)))
        lines.append([escape(f"{above}: {node.title}" if above else node.title), *cells])
    return _table(lines)


def escape(text: object) -> str:
    """A text that Markdown shows as it is, on one line and inside a table cell."""
    return SPECIAL.sub(r"\\\1", words.one_line(text)).replace("&", "&amp;").replace("<", "&lt;")


def prose(text: object) -> str:
    """A text whose backticks and asterisks are meant as Markdown; markup, links and table borders in it are shown as they are."""
    parts = CODE.split(words.one_line(text).replace("&", "&amp;").replace("<", "&lt;"))
    return "".join(re.sub(r"([|])" if i % 2 else r"([\\`|\[\]])", r"\\\1", part) for i, part in enumerate(parts))


def _table(lines: Sequence[Sequence[str]]) -> str:
    head, *rows = lines
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rows))


def _about(report: Report) -> str:
    model, machine = report["model"], report["machine"]
    lines = [f"- Model: {escape(model.get('name', ''))}"]
    for name, file in model.get("files", {}).items():
        lines.append(f"    - {escape(name)}: {file.get('bytes', 0):,} bytes, SHA-256 {escape(file.get('sha256', ''))}")
    lines.append("- Machine: " + ", ".join(f"{escape(key)} {escape(words.value(value, 200))}" for key, value in machine.items()))
    for name, party in report["parties"].items():
        details = {**party.get("versions", {}), **{key: value for key, value in party.items() if key != "versions"}}
        lines.append(f"- {escape(name)}: " + ", ".join(f"{escape(k)} {escape(words.value(v, 200))}" for k, v in details.items()))
    return "\n".join(lines)


def _item(node: Node, level: int) -> list[str]:
    indent = "    " * level
    title = f"**{escape(node.heading)}**" if node.heading else ""
    label = ": ".join(part for part in (title, prose(node.text)) if part)
    lines = [f"{indent}- {words.MARKS[node.verdict]} {WORDS[node.verdict]}{label}"]
    if node.answer:
        lines.append(f"{indent}  <br>*{prose(node.answer)}*" if "*" not in node.answer else f"{indent}  <br>{prose(node.answer)}")
    return lines + [line for child in node.children for line in _item(child, level + 1)]


def _rows(nodes: Sequence[Node]) -> list[list[str]]:
    head = ["item", "comparison", "mode", "stage", "worst case", *words.COLUMNS, "tolerance", "verdict", "time a", "time b"]
    lines = [head]
    for parent, node in leaves(nodes):
        title = f"{parent.title}: {node.title}" if parent else node.title
        for group in groups(node.rows, condensed=True):
            row = group.worst
            names = (title, words.pair(row["comparison"]), row["mode"], group.stage, words.case(group))
            verdict = row["verdict"] if row["verdict"] == "ok" else f"**{row['verdict']}**"
            cells = map(escape, (*names, *words.figure_cells(row), words.tolerance(row["tolerance"])))
            lines.append([*cells, verdict, *map(words.seconds, group.seconds)])
    return lines


def _taps(report: Report) -> list[str]:
    taps = report["taps"]
    if taps is None:
        return []
    first = f"The first difference is in {escape(taps['first'])}." if taps["first"] else "No layer differs."
    lines = [["layer", "max abs", "rel rms", "tolerance", "verdict"]]
    for tap in taps["rows"]:
        figures = [words.number(tap["max_abs"], ".2e"), words.number(tap["relative_rms"], ".2e")]
        verdict = escape(tap["verdict"]) if tap["verdict"] == "ok" else f"**{escape(tap['verdict'])}**"
        lines.append([escape(tap["name"]), *figures, escape(words.tolerance(tap["tolerance"])), verdict])
    heading = f"## Layers of {escape(taps['stage'])}, {escape(words.pair(taps['comparison']))}"
    return [heading, first, _table(lines)]


def _times(report: Report) -> list[str]:
    if not stages(report):
        return []
    lines = [["stage", *map(escape, report["times"])]]
    for stage in stages(report):
        lines.append([escape(stage), *(words.seconds(times.get(stage)) or "–" for times in report["times"].values())])
    return ["## Times", _table(lines)]
