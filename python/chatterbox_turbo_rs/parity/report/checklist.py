"""The checklist of the HTML report: sections and boxes that open, and the lists of what failed and what is missing."""

from __future__ import annotations

from . import text as words
from .markup import Child, Markup, el
from .model import Node, Report, Row, leaves, of_verdict, tree
from .tables import CLASSES, badge, of_rows, prose


def checklist(report: Report) -> list[Child]:
    """All sections; what is not ``ok`` stands open."""
    parts: list[Child] = []
    for index, (title, nodes) in enumerate(tree(report)):
        boxes = [_box(report, node, f"box-{index}-{i}", 4) for i, node in enumerate(nodes)]
        counts = _counts([node.verdict for _, node in leaves(nodes)])
        head = el("summary", el("h3", title), el("span", counts, class_="counts"))
        parts.append(el("details", head, boxes, class_="section", open=True, id=f"section-{index}"))
    return parts


def anchors(report: Report) -> dict[int, str]:
    """``id`` of a row object -> the box in which it stands, for links."""
    found: dict[int, str] = {}
    for index, (_, nodes) in enumerate(tree(report)):
        for i, node in enumerate(nodes):
            found.update({id(row): f"box-{index}-{i}" for row in node.rows})
            for j, child in enumerate(node.children):
                found.update({id(row): f"box-{index}-{i}-{j}" for row in child.rows})
    return found


def problems(report: Report, verdict: str, title: str, key: str) -> Markup | None:
    """Every row of one verdict with its reasons, linked to its box; nothing when there is none."""
    rows = of_verdict(report, verdict)
    if not rows:
        return None
    where = anchors(report)
    items = [el("li", _place(row, where.get(id(row))), el("span", words.reasons(row), class_="remark")) for row in rows]
    return el("section", el("h2", title), el("ul", items, class_=f"problems {CLASSES[verdict]}"), id=key, class_="card")


def _place(row: Row, anchor: str | None) -> Markup:
    text = words.place(row)
    return el("a", text, href=f"#{anchor}") if anchor else el("span", text)


def _counts(verdicts: list[str]) -> str:
    parts = [f"{verdicts.count('ok')} of {len(verdicts)} ok"]
    names = {"FAIL": "failed", "missing": "missing", "note": "noted"}
    return ", ".join(parts + [f"{verdicts.count(key)} {name}" for key, name in names.items() if key in verdicts])


def _box(report: Report, node: Node, key: str, level: int) -> Markup:
    if node.children:
        head = el("div", badge(node.verdict), _words(node, level), class_="head")
        children = [_box(report, child, f"{key}-{i}", level + 1) for i, child in enumerate(node.children)]
        own = of_rows(node.title, node.rows)
        return el("div", head, own, el("div", children, class_="children"), class_=f"group {CLASSES[node.verdict]}", id=key)
    head = el("span", badge(node.verdict), _words(node, level), class_="head")
    chips = el("span", [_chip(comparison, node) for comparison in report["comparisons"]], class_="chips")
    if not node.rows:
        return el("div", head, class_=f"box plain {CLASSES[node.verdict]}", id=key)
    body = el("div", of_rows(node.title, node.rows), class_="body")
    open_ = node.verdict in ("FAIL", "missing")
    return el("details", el("summary", head, chips), body, class_=f"box {CLASSES[node.verdict]}", open=open_, id=key)


def _words(node: Node, level: int) -> Markup:
    name = f"h{min(level, 6)}"
    title = el(name, node.heading) if node.heading else el(name, prose(node.text))
    text = el("span", prose(node.text), class_="words") if node.heading and node.text else None
    answer = el("span", prose(node.answer), class_="answer") if node.answer else None
    return el("span", title, text, answer, class_="title")


def _chip(comparison: object, node: Node) -> Markup | None:
    rows = [row for row in node.rows if list(row["comparison"]) == list(comparison)]  # type: ignore[call-overload]
    if not rows:
        return None
    failed = any(row["verdict"] == "FAIL" for row in rows)
    measured = words.measured(rows, 2)
    return el(
        "span", el("span", words.pair(rows[0]["comparison"])), el("b", f"✗ {measured}" if failed else measured), class_="chip"
    )
