"""What a report holds, checked, and the orders in which it is read: the checklist as a tree, rows by stage, the worst row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict, cast

import numpy as np

FORMAT = 1
# From the best to the worst.
VERDICTS = ("ok", "note", "missing", "FAIL")


class Row(TypedDict):
    """One comparison. ``used`` is the share of the tightest limit; ``values`` and ``seconds`` are (reference, candidate)."""

    box: str
    comparison: Sequence[str]
    mode: str
    stage: str
    case: str
    verdict: str
    figures: Mapping[str, Any] | None
    values: Sequence[Any] | None
    tolerance: str
    used: float | None
    wrong: Sequence[str]
    missing: str | None
    note: str
    seconds: Sequence[float | None]


class Box(TypedDict):
    """One line of the checklist; ``rows`` are indices into the report's rows."""

    id: str
    parent: str | None
    title: str
    text: str
    verdict: str
    answer: str
    rows: Sequence[int]


class Section(TypedDict):
    """A heading of the checklist and the boxes below it."""

    title: str
    boxes: Sequence[Box]


class Tap(TypedDict):
    """One layer inside a stage, compared; its verdict may also be ``only in PARTY``."""

    name: str
    verdict: str
    max_abs: float | None
    relative_rms: float | None
    tolerance: str


class Taps(TypedDict):
    """The layers of one stage in the order in which they run; ``first`` is the first that differs."""

    stage: str
    comparison: Sequence[str]
    first: str | None
    rows: Sequence[Tap]


class Summary(TypedDict):
    """Counts of rows, and what was run; ``seconds`` is the whole run."""

    rows: int
    failed: int
    missing: int
    seconds: float
    isolated: bool
    chained: bool


class Report(TypedDict):
    """The whole report. ``times``: party -> stage -> seconds over one text or clip. ``parties``: party -> versions and the like."""

    format: int
    title: str
    model: Mapping[str, Any]
    machine: Mapping[str, Any]
    parties: Mapping[str, Mapping[str, Any]]
    comparisons: Sequence[Sequence[str]]
    sections: Sequence[Section]
    rows: Sequence[Row]
    times: Mapping[str, Mapping[str, float]]
    taps: Taps | None
    summary: Summary


class Pair(TypedDict):
    """Two arrays to be drawn: mels [T, bands], waveforms [n], logits [vocabulary] or token ids [n]. Lengths may differ."""

    title: str
    comparison: Sequence[str]
    reference: np.ndarray
    candidate: np.ndarray


class Wave(Pair):
    """Waveforms come with their sample rate, Hz."""

    rate: int


class Plots(TypedDict, total=False):
    """What ``html`` draws; every list may be absent or empty."""

    mels: Sequence[Pair]
    waveforms: Sequence[Wave]
    logits: Sequence[Pair]
    tokens: Sequence[Pair]


@dataclass
class Node:
    """A box with its rows, or a title with the boxes below it."""

    title: str
    text: str
    answer: str
    verdict: str
    rows: list[Row]
    key: str = ""
    children: list[Node] = field(default_factory=list)

    @property
    def heading(self) -> str:
        """The title, or nothing where the words already hold it."""
        return "" if self.title.lower() in self.text.lower() and len(self.title) > len(self.text) // 2 else self.title


@dataclass(frozen=True)
class Group:
    """The rows of one comparison, mode and stage; ``seconds`` are their sums, None where nothing was timed."""

    worst: Row
    rows: list[Row]
    seconds: tuple[float | None, float | None]

    @property
    def stage(self) -> str:
        """Its stage; for several settings, how many."""
        return self.worst["stage"] if len({row["stage"] for row in self.rows}) == 1 else f"{len(self.rows)} settings"


def check(report: Mapping[str, Any]) -> Report:
    """The same report, typed. Raises ``ValueError`` with the place, what was expected and what was found."""
    if not isinstance(report, Mapping) or report.get("format") != FORMAT:
        found = report.get("format") if isinstance(report, Mapping) else type(report).__name__
        raise ValueError(f"report: expected format {FORMAT}, found {found!r}")
    _keys("report", report, Report)
    _keys("summary", report["summary"], Summary)
    for index, row in enumerate(report["rows"]):
        place = f"rows[{index}]"
        _keys(place, row, Row)
        _verdict(place, row)
        for key in ("comparison", "seconds") + (("values",) if row["values"] is not None else ()):
            if len(row[key]) != 2:
                raise ValueError(f"report: {place}.{key}: expected (reference, candidate), found {row[key]!r}")
    for section_index, section in enumerate(report["sections"]):
        _keys(f"sections[{section_index}]", section, Section)
        for index, box in enumerate(section["boxes"]):
            place = f"sections[{section_index}].boxes[{index}]"
            _keys(place, box, Box)
            _verdict(place, box)
            stray = [row for row in box["rows"] if not 0 <= row < len(report["rows"])]
            if stray:
                raise ValueError(f"report: {place}.rows: expected indices below {len(report['rows'])}, found {stray[0]}")
    if report["taps"] is not None:
        _keys("taps", report["taps"], Taps)
        for index, tap in enumerate(report["taps"]["rows"]):
            _keys(f"taps.rows[{index}]", tap, Tap)
    return cast(Report, report)


def _keys(place: str, value: Any, shape: Any) -> None:
    absent = sorted(shape.__required_keys__ - set(value)) if isinstance(value, Mapping) else sorted(shape.__required_keys__)
    if absent:
        raise ValueError(f"report: {place}: expected the key {absent[0]!r}, found {sorted(value) if value else value!r}")


def _verdict(place: str, value: Mapping[str, Any]) -> None:
    if value["verdict"] not in VERDICTS:
        raise ValueError(f"report: {place}.verdict: expected {', '.join(VERDICTS)}, found {value['verdict']!r}")


def tree(report: Report) -> list[tuple[str, list[Node]]]:
    """Section title -> its boxes, those with a parent below it. Rows that no box names come last, so that nothing is hidden."""
    result = []
    seen: set[int] = set()
    for section in report["sections"]:
        nodes: list[Node] = []
        parents: dict[str, Node] = {}
        for box in section["boxes"]:
            seen.update(box["rows"])
            rows = [report["rows"][i] for i in box["rows"]]
            node = Node(box["title"], box["text"], box["answer"], box["verdict"], rows, box["id"])
            if box["parent"] is None:
                nodes.append(node)
                parents[box["title"]] = node
                continue
            if box["parent"] not in parents:
                parents[box["parent"]] = Node(box["parent"], "", "", "ok", [])
                nodes.append(parents[box["parent"]])
            parent = parents[box["parent"]]
            parent.children.append(node)
            parent.verdict = worst_verdict([parent.verdict, node.verdict])
        result.append((section["title"], nodes))
    others = [row for index, row in enumerate(report["rows"]) if index not in seen]
    if others:
        text = "Comparisons that no box of the checklist names."
        node = Node("Other rows", text, "", worst_verdict(row["verdict"] for row in others), others, "other")
        result.append(("Further comparisons", [node]))
    return result


def leaves(nodes: Iterable[Node]) -> list[tuple[Node | None, Node]]:
    """(parent, box) of every box that rows can stand in, in order."""
    pairs: list[tuple[Node | None, Node]] = []
    for node in nodes:
        if node.rows or not node.children:
            pairs.append((None, node))
        pairs += [(node, child) for child in node.children]
    return pairs


def groups(rows: Sequence[Row], condensed: bool = False) -> list[Group]:
    """One group for every (comparison, mode, stage), in the order in which they first occur.

    ``condensed`` puts all settings of one comparison and mode that are ``ok`` into one group.
    """
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        joined = condensed and is_setting(row) and row["verdict"] == "ok"
        found.setdefault((*row["comparison"], row["mode"], joined or row["stage"]), []).append(row)
    return [Group(max(group, key=badness), group, (_sum(group, 0), _sum(group, 1))) for group in found.values()]


def is_setting(row: Row) -> bool:
    """Whether a row compares a setting instead of arrays."""
    return row["values"] is not None and row["figures"] is None


def badness(row: Row) -> tuple[int, float]:
    """Orders rows: by verdict, then by how much of the limit is used."""
    used = row["used"]
    if used is None:
        return VERDICTS.index(row["verdict"]), math.inf if row["wrong"] else 0.0
    return VERDICTS.index(row["verdict"]), math.inf if math.isnan(used) else used


def worst_verdict(verdicts: Iterable[str]) -> str:
    """The worst of them; ``ok`` when there are none."""
    return max(verdicts, key=VERDICTS.index, default="ok")


def of_verdict(report: Report, verdict: str) -> list[Row]:
    """All rows of one verdict, in order."""
    return [row for row in report["rows"] if row["verdict"] == verdict]


def stages(report: Report) -> list[str]:
    """The stages that were timed, in the order of the first party that has them."""
    return list(dict.fromkeys(stage for times in report["times"].values() for stage in times))


def _sum(rows: Sequence[Row], side: int) -> float | None:
    values = [row["seconds"][side] for row in rows]
    known = [value for value in values if value is not None]
    return sum(known) if known else None
