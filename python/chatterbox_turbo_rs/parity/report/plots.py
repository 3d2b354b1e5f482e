"""The plots of the HTML report: mels, waveforms, logits and tokens of two parties, and their difference.

Every function takes one ``model.Pair`` and gives a ``<figure>``. Nothing is cropped: the axes hold the longer of the two, and a
caption says what the eye can miss (the largest difference and its place, other lengths, numbers that are not finite).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...constants import HOP, SAMPLE_RATE
from . import png
from . import text as words
from .axes import BINS, difference, lengths, not_finite, outline, panel, path, reach, span, svg, tick
from .markup import Child, Markup, el
from .model import Pair, Wave

MEL_RATE = SAMPLE_RATE / HOP
# A picture with fewer frames is drawn with hard edges; a longer one would lose frames on a narrow page.
CRISP = 350


def mel(plot: Pair) -> Markup:
    """Two mels [T, bands] in one range of colours, and candidate - reference in a diverging map around 0."""
    a, b = _two(plot, 2)
    names = [words.one_line(name) for name in plot["comparison"]]
    frames = max(len(a), len(b))
    low, high = span(a, b)
    apart = difference(a, b) if a.shape[1:] == b.shape[1:] else np.zeros((0, a.shape[1]))
    most = reach(apart)
    notes = [
        lengths(a, b, "frames", names),
        not_finite(a, b, "drawn in magenta"),
        f"Bands: {a.shape[1]} / {b.shape[1]}." * (a.shape[1:] != b.shape[1:]),
    ]
    if apart.size and np.isfinite(apart).any():
        t, band = np.unravel_index(int(np.nanargmax(np.where(np.isfinite(apart), np.abs(apart), -1))), apart.shape)
        notes.append(f"Largest difference {words.short(most)} at {t / MEL_RATE:.2f} s, band {band}.")
    panels = [
        _mel_panel(names[0], a, frames, low, high, png.VIRIDIS),
        _mel_panel(names[1], b, frames, low, high, png.VIRIDIS),
        _mel_panel(f"{names[1]} − {names[0]}", apart, frames, -most, most, png.RED_BLUE),
    ]
    return _figure(panels, notes)


def _mel_panel(name: str, values: np.ndarray, frames: int, low: float, high: float, anchors: str) -> Markup:
    class_ = "diverging" if anchors is png.RED_BLUE else ""
    if values.size == 0:
        return _empty(name)
    colours = png.palette(anchors)
    indices = np.full((values.shape[1], frames), png.NOTHING, np.uint8)
    indices[:, : len(values)] = png.levels(values, low, high).T[::-1]  # [bands, frames], band 0 at the bottom
    label = f"{name}: {len(values)} frames, {values.shape[1]} bands, {words.short(low)} to {words.short(high)}"
    image = el(
        "img",
        src=png.data_uri(png.encode(indices, colours)),
        alt=label,
        width=frames,
        height=values.shape[1],
        class_="crisp" if frames <= CRISP else None,
    )
    bar = png.encode(np.arange(png.LEVELS, dtype=np.uint8)[None], colours)
    scale = el(
        "span",
        words.short(low),
        el("img", src=png.data_uri(bar), alt="to", width=png.LEVELS, height=1),
        words.short(high),
        class_="scale",
    )
    bands = values.shape[1]
    x, y, names = (0, frames / MEL_RATE), (-0.5, bands - 0.5), "Across: time. Up: mel band." if class_ else ""
    return panel(name, image, x, y, names, scale, y_ticks=[*range(0, bands, 20)], x_form=_seconds, class_=class_)


def waveform(plot: Wave) -> Markup:
    """Two signals [n] in one range, and candidate - reference in its own."""
    a, b = _two(plot, 1)
    names = [words.one_line(name) for name in plot["comparison"]]
    rate, n = plot["rate"], max(len(a), len(b))
    apart = difference(a, b)
    notes = [lengths(a, b, "samples", names), not_finite(a, b)]
    if apart.size and np.isfinite(apart).any():
        at = int(np.nanargmax(np.where(np.isfinite(apart), np.abs(apart), -1)))
        notes.append(f"Largest difference {words.short(reach(apart))} at {at / rate:.3f} s.")
    peak = max(reach(a), reach(b))
    panels = [
        _wave_panel(names[0], a, n, rate, peak, "line-a"),
        _wave_panel(names[1], b, n, rate, peak, "line-b"),
        _wave_panel(f"{names[1]} − {names[0]}", apart, n, rate, reach(apart), "line-d"),
    ]
    return _figure(panels, notes)


def _wave_panel(name: str, signal: np.ndarray, length: int, rate: int, peak: float, class_: str) -> Markup:
    if signal.size == 0:
        return _empty(name)
    limit = peak if peak > 0 else 1.0
    label = f"{name}: {signal.size} samples, largest {words.short(reach(signal))}"
    picture = svg(label, _zero(), path(outline(signal, -limit, limit, length), class_))
    x, names = (0, length / rate), "Across: time. Up: amplitude." if class_ == "line-d" else ""
    return panel(name, picture, x, (-limit, limit), names, None, [-limit, 0, limit], _seconds, words.short, "wave")


def logits(plot: Pair) -> Markup:
    """One point for every token, reference across and candidate up, and candidate - reference by token id."""
    a, b = _two(plot, 1)
    names = [words.one_line(name) for name in plot["comparison"]]
    apart = difference(a, b)
    notes = [lengths(a, b, "logits", names), not_finite(a, b)]
    if apart.size and np.isfinite(apart).any():
        at = int(np.nanargmax(np.where(np.isfinite(apart), np.abs(apart), -1)))
        notes.append(f"Largest difference {words.short(reach(apart))} at token {at}.")
    best = [int(np.nanargmax(np.where(np.isfinite(v), v, -np.inf))) for v in (a, b) if np.isfinite(v).any()]
    if len(best) == 2:
        same = best[0] == best[1]
        notes.append(f"Most likely in both: token {best[0]}." if same else f"Most likely: token {best[0]} / token {best[1]}.")
    panels = [_scatter(names, a, b), _by_token(f"{names[1]} − {names[0]}", apart)]
    return _figure(panels, notes, "pair")


def _scatter(names: list[str], a: np.ndarray, b: np.ndarray) -> Markup:
    n = min(a.size, b.size)
    both = np.isfinite(a[:n]) & np.isfinite(b[:n])
    x, y = a[:n][both].astype(np.float64), b[:n][both].astype(np.float64)
    title = f"{names[1]} against {names[0]}"
    if x.size == 0:
        return _empty(title)
    low, high = span(x, y)
    low, high = (low, high) if high > low else (low - 1, high + 1)
    grid = np.rint(np.stack([x - low, high - y], axis=1) / (high - low) * 400).astype(int)
    points = "".join(f"M{column} {line}h0" for column, line in np.unique(grid, axis=0).tolist())
    picture = svg(
        f"{title}: {x.size} logits; on the diagonal both are equal",
        el("path", d="M0 400L400 0", class_="line-zero", vector_effect="non-scaling-stroke"),
        path(points, "dots"),
        width=400,
        height=400,
    )
    return panel(title, picture, (low, high), (low, high), f"Across: {names[0]}. Up: {names[1]}.", class_="scatter")


def _by_token(name: str, apart: np.ndarray) -> Markup:
    if apart.size == 0:
        return _empty(name)
    limit = reach(apart) or 1.0
    picture = svg(
        f"{name} by token id, ± {words.short(limit)}", _zero(), path(outline(apart, -limit, limit, apart.size), "line-d")
    )
    names = "Across: token id. Up: difference."
    return panel(
        name, picture, (0, apart.size), (-limit, limit), names, None, [-limit, 0, limit], y_form=words.short, class_="tall"
    )


def tokens(plot: Pair) -> Markup:
    """One cell for every position: equal, different, or held by one side only; and the first differences by name."""
    a, b = (np.asarray(plot[side]).ravel() for side in ("reference", "candidate"))  # type: ignore[literal-required]
    names = [words.one_line(name) for name in plot["comparison"]]
    n = min(a.size, b.size)
    different = np.flatnonzero(a[:n] != b[:n])
    prefix = int(different[0]) if different.size else n
    if max(a.size, b.size) == 0:
        return _figure([_empty("tokens")], ["Neither has a token."])
    marks = np.full(max(a.size, b.size), "<i></i>" if n else "", object)
    marks[different] = "<b></b>"
    marks[n:] = "<u></u>"
    equal = int(n - different.size)
    label = f"{equal} of {marks.size} positions are equal, {different.size} differ, {marks.size - n} are held by one side only"
    strip = el("div", Markup("".join(marks)), class_="strip", role="img", aria_label=label)
    legend = [
        el("span", Markup(mark), text)
        for mark, text in (("<i></i>", "equal"), ("<b></b>", "different"), ("<u></u>", "one side only"))
    ]
    if prefix == a.size == b.size:
        first = f"All {n} tokens are equal."
    else:
        at = [str(int(side[prefix])) if prefix < side.size else "nothing" for side in (a, b)]
        first = f"First difference at position {prefix}: {names[0]} has {at[0]}, {names[1]} has {at[1]}; before it all are equal."
    places = [*different[:10].tolist(), *range(n, marks.size)][:10]
    table = None
    if places:
        body = [
            el("tr", el("th", str(i), scope="row"), *(el("td", str(int(s[i])) if i < s.size else "–") for s in (a, b)))
            for i in places
        ]
        head = el("tr", *(el("th", text, scope="col") for text in ("position", *names)))
        caption = el("caption", "The first differences")
        table = el("table", caption, el("thead", head), el("tbody", body), class_="few")
    return _figure([strip, el("p", legend, class_="legend", aria_hidden="true"), table], [first, label + "."])


def _two(plot: Pair, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays as floats. An empty one of another rank stands for nothing; any other rank is an error."""
    found = []
    for side in ("reference", "candidate"):
        array = np.asarray(plot[side])  # type: ignore[literal-required]
        if array.ndim != dimensions and array.size:
            raise ValueError(f"plot {plot['title']!r}, {side}: expected {dimensions} dimensions, found shape {list(array.shape)}")
        found.append(array)
    widths = [array.shape[1:] for array in found if array.ndim == dimensions]
    empty = (0, *(widths[0] if widths else (80,) * (dimensions - 1)))
    a, b = (array if array.ndim == dimensions and array.size else np.zeros(empty) for array in found)
    return a, b


def _seconds(value: float) -> str:
    return f"{tick(value)} s"


def _zero() -> Markup:
    return el("path", d=f"M0 50H{BINS}", class_="line-zero", vector_effect="non-scaling-stroke")


def _empty(name: str) -> Markup:
    return el("div", el("span", name, class_="name"), el("p", "nothing to draw: empty", class_="empty"), class_="panel")


def _figure(panels: Sequence[Child], notes: list[str], class_: str = "") -> Markup:
    caption = " ".join(note for note in notes if note)
    return el("figure", el("div", panels, class_=f"panels {class_}".strip()), el("figcaption", caption))
