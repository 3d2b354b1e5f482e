"""Bisecting a difference: the named intermediates of one stage on both sides, and the first that leaves its tolerance.

The candidate is fed the reference's own input. The official package and the PyTorch side record by hooks on upstream's module
paths (``official/torch_taps.py``), the Rust core under the same names (``tap.rs``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..constants import HOP
from ..engine import draws
from ..errors import ArgumentError
from .cases import Cases, Text
from .metrics import compare
from .recording import NETWORKS, Recording, Take
from .stages import HARMONICS, with_stop
from .tolerances import describe, judge, limits

Tap = tuple[str, np.ndarray]
CALLS = 6
"""Calls of a module that are compared: T3's prefill and its first steps."""


def where(stage: str, cases: Cases) -> dict[str, str]:
    """The clip or text whose intermediates are looked at: ``{"stage", "clip" or "text"}``. Raises ``ArgumentError``."""
    if stage not in NETWORKS:
        raise ArgumentError(f"--taps: expected one of {', '.join(NETWORKS)}, got {stage!r}")
    if stage.startswith(("t3.", "s3gen.")):
        return {"stage": stage, "text": cases.texts[0].name}
    return {"stage": stage, "clip": cases.clips[0].name}


def run(stage: str, found: Any, reference: Recording, cases: Cases) -> None:
    """Calls the candidate's stage with what the reference's had."""
    place = where(stage, cases)
    if "clip" in place:
        _clip(stage, found, reference.clips[place["clip"]])
    else:
        _text(stage, found, reference.texts[place["text"]], cases.texts[0])


def _clip(stage: str, found: Any, take: Take) -> None:
    inputs = {"voice_encoder.embedding": "mel", "speaker_encoder.xvector": "fbank"}
    if stage in inputs:
        found(take.arrays[f"{stage}/in.{inputs[stage]}"])
    else:
        for use in ("s3gen", "t3"):
            found(take.arrays[f"{stage}@{use}/in.mel"])


def _text(stage: str, found: Any, take: Take, text: Text) -> None:
    ref = take.arrays
    if stage == "t3.decoder":
        logits = ref["t3.decoder/out.logits"]
        drawn = with_stop(ref["t3.sampler/out.tokens"], len(logits), found.stop_token)
        session = found.start(*(ref[f"t3.decoder/in.{i}"] for i in ("speaker", "prompt", "text")), len(logits))
        session.prefill()
        for token in drawn[: len(logits) - 1]:
            session.step(int(token))
    elif stage == "s3gen.encoder":
        found(ref["s3gen.encoder/in.ids"])
    elif stage == "s3gen.flow":
        arguments = [ref[f"s3gen.flow/in.{i}"] for i in ("mu", "xvector", "prompt_mel")]
        found(*arguments, draws.normals(text.seed, draws.FLOW, 0, *arguments[0].shape))
    else:
        mel, f0, source = (ref[f"s3gen.vocoder/{n}"] for n in ("in.mel", "out.f0", "out.source"))
        found.f0(mel)
        noise = draws.normals(text.seed, draws.NOISE, 0, HOP * len(mel), HARMONICS)
        found.source(f0, draws.phases(text.seed, HARMONICS), noise)
        found.samples_from_source(mel, source)


def record_python(stage: str, found: Any, call: Callable[[], None]) -> list[Tap]:
    """The taps of the PyTorch side."""
    from .official import torch_taps

    taken: list[Tap] = []
    with torch_taps.recording(found.module, found.prefix, stage, taken):
        call()
    return taken


def record_rust(stage: str, found: Any, call: Callable[[], None]) -> list[Tap]:
    """The taps of the Rust core."""
    from .. import _core

    _core.taps_begin()
    try:
        call()
    finally:
        taken = _core.taps_end()
    return list(taken)


def report(stage: str, pair: tuple[str, str], reference: list[Tap], candidate: list[Tap]) -> dict[str, Any]:
    """Rows in the reference's order; ``first`` is the name of the first tap that leaves its tolerance, or None."""
    ours = dict(candidate)
    rows: list[dict[str, Any]] = []
    for name, value in reference:
        call = int(name.partition("#")[2] or 1)
        if call > CALLS:
            continue
        if name not in ours:
            rows.append({"name": name, "verdict": f"only in {pair[0]}", "max_abs": None, "relative_rms": None, "tolerance": ""})
            continue
        allowed = _limits(name)
        figures = compare(value, ours[name])
        wrong = judge(figures, allowed)
        rows.append(
            {"name": name, "verdict": "FAIL" if wrong else "ok", "max_abs": figures.as_dict()["max_abs"]}
            | {"relative_rms": figures.as_dict()["relative_rms"], "tolerance": describe(allowed), "wrong": wrong}
        )
    theirs = {name for name, _ in reference}
    rows += [
        {"name": name, "verdict": f"only in {pair[1]}", "max_abs": None, "relative_rms": None, "tolerance": ""}
        for name, _ in candidate
        if name not in theirs and int(name.partition("#")[2] or 1) <= CALLS
    ]
    first = next((row["name"] for row in rows if row["verdict"] == "FAIL"), None)
    return {"stage": stage, "comparison": list(pair), "first": first, "rows": rows}


def _limits(name: str) -> Any:
    try:
        return limits(name.partition("#")[0], "taps")
    except KeyError:
        return limits("default", "taps")
