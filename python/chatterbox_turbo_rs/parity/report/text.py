"""Numbers, values and verdicts as short texts, the same in every renderer."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from .model import Group, Row, badness, is_setting

ARROW = "→"
MARKS = {"ok": "[x]", "FAIL": "[ ]", "missing": "[~]", "note": "[~]"}
COLUMNS = ("max abs", "rel rms", "norm", "cosine", "prefix")
NAMES = {"max_abs": "abs", "mean_abs": "mean abs", "peak": "peak", "relative_rms": "rel", "worst_cosine": "1 − cos"}
LIMIT = re.compile(r"(\w+) [≤≥] ([-+.\de]+)")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


def one_line(content: object) -> str:
    """The text without line breaks, control characters (a terminal would obey them) and changes of direction."""
    return CONTROL.sub(" ", str(content)).strip()


def pair(comparison: Sequence[str]) -> str:
    """``official → rust``."""
    return one_line(f" {ARROW} ".join(comparison))


def number(figure: float | None, form: str) -> str:
    """A number in the given format; a dash for what is not known."""
    if figure is None:
        return "–"
    return format(figure, form) if math.isfinite(figure) else str(float(figure))


def short(value: float | None, digits: int = 2) -> str:
    """A number rounded to so many significant digits, without padding: ``5e-7``, ``0.07``, ``120``."""
    if value is None or not math.isfinite(value):
        return number(value, "g")
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    if 1e-3 <= abs(rounded) < 1e5:
        return f"{rounded:.{max(0, digits - 1 - math.floor(math.log10(abs(rounded))))}f}".replace("-", "−")
    mantissa, _, exponent = f"{rounded:.{digits - 1}e}".partition("e")
    mantissa = (mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa).replace("-", "−")
    return f"{mantissa}e{int(exponent)}"


def seconds(time: float | None) -> str:
    """A time: ``31 µs``, ``3.1 ms``, ``1.23 s``, ``241 s``; empty when nothing was timed."""
    if time is None or not math.isfinite(time):
        return ""
    if time < 1e-3:
        return f"{time * 1e6:.0f} µs"
    return f"{short(1e3 * time, 2)} ms" if time < 0.1 else f"{time:.0f} s" if time >= 100 else f"{short(time, 3)} s"


def figure_cells(row: Row) -> tuple[str, str, str, str, str]:
    """The cells below ``COLUMNS``; empty for a row without figures."""
    f = row["figures"]
    if f is None:
        return ("", "", "", "", "")
    return (
        number(f["max_abs"], ".2e"),
        number(f["relative_rms"], ".2e"),
        number(f["norm_ratio"], ".6f"),
        number(f["worst_cosine"], ".7f"),
        f"{f['prefix']}/{f['length']}",
    )


def value(setting: Any, width: int = 60) -> str:
    """A setting as JSON (texts as they are, lists of plain things with commas), cut in the middle to ``width`` characters."""
    if isinstance(setting, (list, tuple)) and all(isinstance(part, str) for part in setting):
        setting = ", ".join(setting)
    text = one_line(setting if isinstance(setting, str) else json.dumps(setting, ensure_ascii=False, default=str))
    return text if len(text) <= width else f"{text[: width // 2 - 1]}…{text[-(width - width // 2) :]}"


def both_values(row: Row) -> str:
    """``= 1024``, ``1024 ≠ 1000``."""
    if row["values"] is None:
        return ""
    reference, candidate = row["values"]
    return f"= {value(reference, 24)}" if reference == candidate else f"{value(reference, 24)} ≠ {value(candidate, 24)}"


def case(group: Group) -> str:
    """What the worst row of a group was measured on: its case, or its values."""
    row, count = group.worst, len(group.rows)
    if is_setting(row):
        return both_values(row) if count == 1 or row["verdict"] != "ok" else "equal"
    return f"{row['case']} (of {count})" if count > 1 else row["case"]


def tolerance(limits: str) -> str:
    """The limits by the names of the columns: ``rel rms ≤ 1e-05``."""
    text = one_line(limits)
    for name, column in (
        ("relative_rms", "rel rms"),
        ("worst_cosine", "cosine"),
        ("max_abs", "max abs"),
        ("mean_abs", "mean abs"),
    ):
        text = text.replace(name, column)
    return text


def reasons(row: Row) -> str:
    """Why a row is not ``ok``, or what is remarked on it."""
    texts = [row["missing"] or "", *row["wrong"], row["note"]]
    return one_line("; ".join(text for text in texts if text)) or (both_values(row) if row["verdict"] != "ok" else "")


def place(row: Row) -> str:
    """``official → rust, chained s3gen.flow, plain``."""
    return one_line(f"{pair(row['comparison'])}, {row['mode']} {row['stage']}" + (f", {row['case']}" if row["case"] else ""))


def share(row: Row) -> str:
    """How much of the tightest limit is used, percent."""
    used = row["used"]
    if used is None:
        return ""
    if not math.isfinite(used):
        return "∞"
    return "0 %" if used == 0 else "< 0.1 %" if used < 1e-3 else f"{short(100 * used)} %"


def measured(rows: Sequence[Row], digits: int = 1) -> str:
    """The worst of these rows in a few words: ``rel 5e-7 (limit 1e-5)``, ``identical``, ``2 of 30 settings differ``."""
    if not rows:
        return "–"
    worst = max(rows, key=badness)
    settings = [row for row in rows if is_setting(row)]
    differ = [row for row in settings if row["verdict"] != "ok"]
    if any(row["verdict"] == "FAIL" for row in differ):
        return f"{len(differ)} of {len(settings)} settings differ"
    if worst["verdict"] == "missing":
        return "not measured"
    figure = max((row for row in rows if row["figures"] is not None), key=badness, default=None)
    if figure is not None and not _exact(figure):
        return _figure(figure, digits)
    if differ:
        return f"{len(differ)} of {len(settings)} settings differ (see note)"
    if settings:
        return f"{len(settings)} settings identical"
    return "identical" if figure is not None else "see note" if worst["verdict"] == "note" else worst["verdict"]


def _exact(row: Row) -> bool:
    f = row["figures"]
    return f is not None and f["same_shape"] and f["same_dtype"] and not f["non_finite"] and f["prefix"] == f["length"]


def _figure(row: Row, digits: int) -> str:
    f = row["figures"]
    if f is None:
        return "–"
    if not f["same_shape"] or not f["same_dtype"]:
        return f"shapes {one_line(f['shapes'])}"
    if f["non_finite"]:
        return f"not finite: {f['non_finite']}"
    candidates = []
    for name, text in LIMIT.findall(row["tolerance"]):
        found, limit = f.get(name), float(text)
        if found is None or name not in NAMES:
            continue
        if name == "worst_cosine":
            found, limit = 1.0 - found, 1.0 - limit
        used = math.inf if math.isnan(found) or limit <= 0 < found else found / limit if limit else 0.0
        candidates.append((used, f"{NAMES[name]} {short(max(found, 0.0), digits)} (limit {_limit(limit)})"))
    if candidates:
        return max(candidates)[1]
    return f"{f['prefix']} of {f['length']} equal" if "exact" in row["tolerance"] else f"rel {short(f['relative_rms'], digits)}"


def _limit(limit: float) -> str:
    return short(limit, 3) if limit < 1e-3 else f"{limit:g}"
