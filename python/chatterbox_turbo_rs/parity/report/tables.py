"""The tables of the HTML report: rows of a box, settings, layers of a stage, and times as bars."""

from __future__ import annotations

import re
from collections.abc import Sequence

from . import text as words
from .markup import Child, Markup, el, join
from .model import Group, Report, Row, Taps, groups, is_setting, stages, worst_verdict

SIGNS = {"ok": "✓", "FAIL": "✗", "missing": "?", "note": "i"}
CLASSES = {"ok": "ok", "FAIL": "fail", "missing": "missing", "note": "note"}
INLINE = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*")
# Times a and b are those of the comparison's two parties.
HEAD = ("verdict", "stage", "mode", "case", *words.COLUMNS, "limit used", "tolerance", "time a / b")
NUMBERS = {*words.COLUMNS, "limit used", "time a / b", "seconds"}


def badge(verdict: str) -> Markup:
    """A verdict as sign and word; its colour says nothing more."""
    class_ = CLASSES.get(verdict, "missing")
    sign = el("span", SIGNS.get(verdict, "?"), aria_hidden="true", class_="sign")
    return el("span", sign, verdict, class_=f"badge {class_}")


def prose(text: str) -> Markup:
    """A text whose ``**bold**`` and `` `code` `` are shown as such."""
    parts: list[Child] = []
    end = 0
    for match in INLINE.finditer(text):
        parts += [text[end : match.start()], el("code", match[1]) if match[1] else el("strong", match[2])]
        end = match.end()
    return join([*parts, text[end:]])


def scroll(label: str, table: Child) -> Markup:
    """A box in which a wide table scrolls, with the keyboard too."""
    return el("div", table, class_="scroll", role="region", aria_label=label, tabindex="0")


def of_rows(title: str, rows: Sequence[Row]) -> list[Child]:
    """Settings in one table, the worst row of every stage in another, and below it all cases where there are more."""
    settings = [row for row in rows if is_setting(row)]
    others = [row for row in rows if not is_setting(row)]
    parts: list[Child] = []
    if others:
        grouped = groups(others)
        caption = "The worst case of every stage" if len(grouped) < len(others) else "Every case"
        worst = [(group.worst, _row(group.worst, group)) for group in grouped]
        parts.append(scroll(f"{title}: measurements", _table(caption, HEAD, _by_comparison(worst), "stack")))
        if len(grouped) < len(others):
            cases = _by_comparison([(row, _row(row, None)) for row in others])
            every = scroll(f"{title}: all cases", _table("Every case", HEAD, cases, "wide"))
            parts.append(el("details", el("summary", f"All {len(others)} cases"), every, class_="more"))
    if settings:
        parts.append(scroll(f"{title}: settings", _settings(settings)))
    return parts


def taps(found: Taps) -> Markup:
    """The layers of a stage in order; the first that differs is marked."""
    lines: list[Child] = []
    for tap in found["rows"]:
        first = tap["name"] == found["first"]
        name = el("th", el("code", tap["name"]), el("span", "first difference", class_="remark") if first else None, scope="row")
        figures = (el("td", words.number(tap[key], ".2e"), class_="n") for key in ("max_abs", "relative_rms"))  # type: ignore[literal-required]
        cells = (el("td", badge(tap["verdict"])), name, *figures, el("td", words.tolerance(tap["tolerance"])))
        lines.append(el("tr", cells, class_="first" if first else None))
    head = ("verdict", "layer", "max abs", "rel rms", "tolerance")
    return scroll("layers", _table("Layers in the order in which they run", head, el("tbody", lines), "wide"))


def times(report: Report) -> Markup | None:
    """One bar for every stage and party, all on one scale; the others beside the first party as a ratio."""
    parties = list(report["times"])
    known = [value for each in report["times"].values() for value in each.values()]
    most = max(known, default=0.0)
    if not known or not most > 0:
        return None
    lines: list[Child] = []
    for stage in stages(report):
        values = [(index, party, report["times"][party].get(stage)) for index, party in enumerate(parties)]
        values = [entry for entry in values if entry[2] is not None]
        base = report["times"][parties[0]].get(stage)
        for position, (index, party, value) in enumerate(values):
            name = el("th", el("code", stage), scope="rowgroup", rowspan=len(values)) if position == 0 else None
            ratio = f"{words.short(value / base)} ×" if value is not None and base and index else ""
            bar = el("div", style=f"width:{100 * (value or 0.0) / most:.2f}%", class_=f"bar-{index % 3}")
            cells = (
                el("td", party),
                el("td", bar, class_="bars"),
                el("td", words.seconds(value), class_="n"),
                el("td", ratio, class_="n ratio"),
            )
            lines.append(el("tr", name, *cells, class_="start" if position == 0 else None))
    head = ("stage", "party", "time", "seconds", f"of {words.one_line(parties[0])}")
    return scroll("times", _table("Seconds of every stage", head, el("tbody", lines), "times"))


def _table(caption: str, head: Sequence[str], lines: Sequence[Child], class_: str) -> Markup:
    # The roles keep a table a table where the style sheet makes cards of its rows.
    cells = [el("th", name, scope="col", role="columnheader", class_=_class(name)) for name in head]
    body = el("tbody", lines, role="rowgroup")
    return el(
        "table",
        el("caption", caption),
        el("thead", el("tr", cells, role="row"), role="rowgroup"),
        body,
        class_=class_,
        role="table",
    )


def _by_comparison(lines: Sequence[tuple[Row, Markup]]) -> list[Markup]:
    """The lines, those of one comparison below its name."""
    found: dict[str, list[Markup]] = {}
    for row, line in lines:
        found.setdefault(words.pair(row["comparison"]), []).append(line)
    parts = []
    for name, own in found.items():
        head = el("th", name, scope="rowgroup", colspan=len(HEAD), role="rowheader")
        parts.append(el("tbody", el("tr", head, role="row", class_="comparison"), own, role="rowgroup"))
    return parts


def _row(row: Row, group: Group | None) -> Markup:
    remark = words.reasons(row)
    times = group.seconds if group else row["seconds"]
    cells: dict[str, Child] = {
        "verdict": badge(row["verdict"]),
        "stage": [el("code", row["stage"]), el("span", remark, class_="remark") if remark else None],
        "mode": row["mode"],
        "case": words.case(group) if group else row["case"],
        **dict(zip(words.COLUMNS, words.figure_cells(row))),
        "limit used": words.share(row),
        "tolerance": words.tolerance(row["tolerance"]),
        "time a / b": " / ".join(words.seconds(time) or "–" for time in times) if any(times) else "",
    }
    return el("tr", *(_cell(key, cell) for key, cell in cells.items()), role="row", class_=CLASSES[row["verdict"]])


def _cell(name: str, content: Child) -> Markup:
    if name == "stage":
        return el("th", content, scope="row", role="rowheader", data_label=name)
    return el("td", content, role="cell", data_label=name if content else None, class_=_class(name))


def _class(column: str) -> str | None:
    return "n" if column in NUMBERS else "n ratio" if column.startswith("of ") else None


def _settings(rows: Sequence[Row]) -> Markup:
    """One line for every setting with a column for every party; a second line where a party gave two values."""
    parties = list(dict.fromkeys(party for row in rows for party in row["comparison"]))
    lines: list[tuple[str, dict[str, str], list[Row]]] = []
    for row in rows:
        values = dict(zip(row["comparison"], (words.value(value, 40) for value in row["values"] or ())))
        alike = [line for line in lines if line[0] == row["stage"]]
        fits = [line for line in alike if all(line[1].get(party, value) == value for party, value in values.items())]
        if fits:
            fits[0][1].update(values)
            fits[0][2].append(row)
        else:
            lines.insert(lines.index(alike[-1]) + 1 if alike else len(lines), (row["stage"], values, [row]))
    body: list[Child] = []
    for stage, known, same in lines:
        verdict = worst_verdict(row["verdict"] for row in same)
        remarks = dict.fromkeys("; ".join(filter(None, [*row["wrong"], row["note"]])) for row in same)
        remark = "; ".join(filter(None, remarks))
        cells = [el("td", el("code", known[party]) if party in known else "–", class_="value") for party in parties]
        name = el("th", el("code", stage), el("span", remark, class_="remark") if remark else None, scope="row")
        body.append(el("tr", el("td", badge(verdict)), name, *cells, class_=CLASSES[verdict]))
    return _table("Settings as each side uses them", ("verdict", "setting", *parties), el("tbody", body), "settings")
