"""The report as one HTML file that asks for nothing else: style, script and pictures are inside.

Its content security policy forbids every request and every script but its own.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from collections.abc import Callable, Mapping
from typing import Any

from . import plots as draw
from . import text as words
from .checklist import checklist, problems
from .markup import Child, Markup, el
from .model import Pair, Plots, Report, check, leaves, tree
from .tables import badge, prose, scroll, taps, times

KINDS: tuple[tuple[str, str, Callable[[Any], Markup]], ...] = (
    ("mels", "Mels", draw.mel),
    ("waveforms", "Waveforms", draw.waveform),
    ("logits", "Logits", draw.logits),
    ("tokens", "Tokens", draw.tokens),
)


def html(report: Mapping[str, Any], plots: Plots | None = None) -> str:
    """The whole page. Raises ``ValueError`` for a bad report or for plots whose arrays have another rank."""
    known = check(report)
    pictures = _plots(plots or {})
    bars = times(known)
    sections: list[tuple[str, str, Child]] = [
        ("failed", "Failed", problems(known, "FAIL", "Failed", "failed")),
        ("missing", "Missing", problems(known, "missing", "Missing", "missing")),
        ("checklist", "Checklist", el("section", el("h2", "Checklist"), _buttons(), checklist(known), id="checklist")),
        ("layers", "Layers", _taps(known)),
        ("plots", "Plots", el("section", el("h2", "Plots"), pictures, id="plots") if pictures else None),
        ("times", "Times", el("section", el("h2", "Times"), bars, id="times", class_="card") if bars else None),
        ("about", "What was compared", _about(known)),
    ]
    shown = [(key, name, content) for key, name, content in sections if content]
    links = el("nav", el("ul", [el("li", el("a", name, href=f"#{key}")) for key, name, _ in shown]), aria_label="Contents")
    body = el(
        "body",
        el("a", "Skip to the checklist", href="#checklist", class_="skip"),
        el("div", _header(known), links, el("main", [content for _, _, content in shown]), class_="page"),
        el("script", Markup(_asset("page.js"))),
    )
    return f"<!doctype html>\n{el('html', _head(known), body, lang='en')}\n"


def _asset(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _head(report: Report) -> Markup:
    digest = base64.b64encode(hashlib.sha256(_asset("page.js").encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="color-scheme", content="light dark"),
        el("link", rel="icon", href="data:,"),
        el("title", words.one_line(report["title"])),
        el("style", Markup(_asset("style.css"))),
    )


def _header(report: Report) -> Markup:
    s = report["summary"]
    verdicts = [node.verdict for _, nodes in tree(report) for _, node in leaves(nodes)]
    if s["failed"]:
        verdict, text = "FAIL", f"{s['failed']} of {s['rows']} rows failed"
    elif s["missing"]:
        verdict, text = "missing", f"{s['missing']} of {s['rows']} rows could not be measured, none failed"
    else:
        verdict, text = "ok", f"All {s['rows']} rows are within their limits"
    if s["failed"] and s["missing"]:
        text += f", {s['missing']} could not be measured"
    modes = " and ".join(mode for mode in ("isolated", "chained") if s[mode]) or "loaded only"  # type: ignore[literal-required]
    names = (("ok", "ok"), ("note", "noted"), ("missing", "missing"), ("FAIL", "failed"))
    counts = [(key, name, verdicts.count(key)) for key, name in names if key in verdicts]
    meter = el(
        "div",
        [el("span", class_=key.lower(), style=f"flex-grow:{count}") for key, _, count in counts],
        class_="meter",
        aria_hidden="true",
    )
    boxes = f"{len(verdicts)} boxes: " + ", ".join(f"{count} {name}" for _, name, count in counts)
    facts = [
        boxes,
        modes,
        words.seconds(s["seconds"]),
        f"model {words.value(report['model'].get('name', ''))}",
        report["machine"].get("date"),
    ]
    return el(
        "header",
        el("h1", words.one_line(report["title"])),
        el("p", badge(verdict), el("strong", text), class_=f"banner {verdict.lower()}"),
        meter,
        el("ul", [el("li", str(fact)) for fact in facts if fact], class_="facts"),
        el("dl", [_party(name, party) for name, party in report["parties"].items()], class_="parties"),
    )


def _party(name: str, party: Mapping[str, Any]) -> Markup:
    entries = {**party.get("versions", {}), **{key: value for key, value in party.items() if key != "versions"}}
    found = [el("dd", f"{key} {words.value(value, 120)}") for key, value in entries.items()]
    return el("div", el("dt", name), found or el("dd", "–"))


def _buttons() -> Markup:
    # The script shows them: without it they would do nothing.
    opening = el("button", "Open all", type="button", data_open="1")
    return el("p", opening, el("button", "Close all", type="button", data_open="0"), class_="buttons", hidden=True)


def _taps(report: Report) -> Markup | None:
    found = report["taps"]
    if found is None:
        return None
    first = f"The first difference is in `{found['first']}`." if found["first"] else "No layer differs."
    heading = el("h2", f"Layers of {found['stage']}, {words.pair(found['comparison'])}")
    return el("section", heading, el("p", prose(first)), taps(found), id="layers", class_="card")


def _plots(plots: Plots) -> list[Child]:
    parts: list[Child] = []
    for key, name, function in KINDS:
        found: list[Pair] = list(plots.get(key, ()))  # type: ignore[call-overload]
        figures: list[Child] = []
        for index, plot in enumerate(found):
            summary = el("summary", el("h4", plot["title"]), el("span", words.pair(plot["comparison"]), class_="counts"))
            figures.append(el("details", summary, function(plot), class_="plot", open=index == 0))
        if figures:
            parts += [el("h3", name), *figures]
    return parts


def _about(report: Report) -> Markup:
    model, machine = report["model"], report["machine"]
    lines = [
        el("tr", el("th", name, scope="row"), el("td", f"{file.get('bytes', 0):,}", class_="n"), el("td", el("code", str(file.get("sha256", ""))), class_="hash"))
        for name, file in model.get("files", {}).items()
    ]  # fmt: skip
    head = el(
        "tr", (el("th", name, scope="col", class_="n" if name == "bytes" else None) for name in ("file", "bytes", "SHA-256"))
    )
    files = scroll(
        "model files",
        el(
            "table",
            el("caption", f"Model {words.value(model.get('name', ''))}"),
            el("thead", head),
            el("tbody", lines),
            class_="files",
        ),
    )
    facts = [el("div", el("dt", str(key)), el("dd", words.value(value, 400))) for key, value in machine.items()]
    return el(
        "section",
        el("h2", "What was compared"),
        files if lines else None,
        el("dl", facts, class_="machine"),
        id="about",
        class_="card",
    )
