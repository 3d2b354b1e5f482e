"""One run of the parity program: records every party, compares them in pairs, and makes the report.

Parties: ``official`` (where its package is), ``python`` and ``rust``. In a pair the one that stands first in that order is the
reference. Where PyTorch is not installed the Python side cannot run the networks: then its other stages alone are compared with
what Rust recorded, and the networks' rows say what is missing.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..bench.machine import machine
from ..checkpoint import locate
from ..checkpoint.resources import Resources
from ..constants import SAMPLE_RATE
from ..engine import registry
from ..errors import ArgumentError, BackendError
from . import checklist, configuration, official_party, open_boxes, taps
from .cases import Cases
from .recording import NETWORKS, Recorder, Recording, describe, plan_of, record
from .rows import Row
from .stages import Comparison

PARTIES = ("official", "python", "rust")
MODES = ("isolated", "chained")
PACKAGES = ("numpy", "torch", "soxr", "pyloudnorm", "tokenizers", "resemble-perth", "soundfile", "scipy")


@dataclass
class Options:
    """What is compared. ``directory`` takes the work files; ``parties`` are those of ``PARTIES`` that take part."""

    checkpoint: Path
    config: Mapping[str, Any]
    cases: Cases
    directory: Path
    parties: tuple[str, ...] = ("python", "rust")
    official_python: Path | None = None
    reuse: bool = False
    modes: tuple[str, ...] = MODES
    device: str = "cpu"
    against: str | None = None
    taps: str | None = None
    stages: tuple[str, ...] = ()
    base_tokenizer: Path | None = None
    note: Callable[[str], None] = print
    replaced: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    """Stage → a function that changes the Python side's stage: how the tests plant errors."""


class Parity:
    """The state of one run."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.recordings: dict[str, Recording] = {}
        self.recorders: dict[str, Recorder] = {}
        self.rows: list[Row] = []
        self.comparisons: list[tuple[str, str]] = []
        self.files = _files(options.checkpoint, options.config)
        self.place = taps.where(options.taps, options.cases) if options.taps else None

    def run(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The report and its plots, see ``report/``."""
        started = time.perf_counter()
        partial = self._parties()
        for party in PARTIES:
            if party in self.options.parties and party != partial:
                self._record(party)
        for a, b in self._pairs(partial):
            self._compare(a, b)
        answers = self._answers()
        report = self._report(answers, time.perf_counter() - started)
        return report, self._plots()

    def _parties(self) -> str | None:
        """Checks that the parties can run; gives the one that can only run a part of its stages."""
        o = self.options
        unknown = [p for p in o.parties if p not in PARTIES]
        if unknown or len(set(o.parties)) < 2:
            raise ArgumentError(f"parties: expected at least two of {', '.join(PARTIES)}, got {', '.join(o.parties) or 'none'}")
        if "official" in o.parties and o.official_python is None:
            raise BackendError(
                "official: the official package cannot be imported here; pass --official-python PATH, the Python of an environment that has chatterbox-tts"
            )
        if "python" in o.parties:
            lacking = [r for key in registry.TABLE if (r := registry.missing(key, "python"))]
            if lacking and not ({"official", "rust"} & set(o.parties)):
                raise BackendError(f"python: {lacking[0]}")
            if lacking:
                o.note(f"python: only a part of the stages can run: {lacking[0]}")
                return "python"
        return None

    def _pairs(self, partial: str | None) -> list[tuple[str, str]]:
        present = [p for p in PARTIES if p in self.options.parties and p != partial]
        pairs = [(a, b) for i, a in enumerate(present) for b in present[i + 1 :]]
        if partial:
            pairs += [(a, partial) for a in present]
        if self.options.against is not None:
            pairs = [pair for pair in pairs if pair[0] == self.options.against]
            if not pairs:
                raise ArgumentError(f"--against {self.options.against}: no other party to compare with it")
        return pairs

    def _recorder(self, party: str) -> Recorder:
        if party not in self.recorders:
            o = self.options
            resources = Resources(o.checkpoint, o.config, o.device if party == "rust" else "cpu", "f32", {"digests": True})
            partly = {key: party if registry.missing(key, party) is None else "rust" for key in registry.TABLE}
            recorder = Recorder(resources, registry.Plan(partly))
            if party == "python":
                for key, change in o.replaced.items():
                    recorder._stages[key, "python"] = change(recorder.raw(key))
            self.recorders[party] = recorder
        return self.recorders[party]

    def _record(self, party: str) -> None:
        o = self.options
        if party == "official":
            assert o.official_python is not None
            job = official_party.write_job(o.directory, o.checkpoint, o.config, o.cases, self.place)
            if not o.reuse or not (o.directory / "official" / "report.json").exists():
                o.note("official: all clips, texts and conversions")
                official_party.run(o.official_python, job)
            recording = official_party.read(job)
        else:
            plan_of(party)
            recorder = self._recorder(party)
            start = next(iter(self.recordings.values()), None)
            recording = record(recorder, party, o.cases, start, o.note)
            recording.hyperparameters = dict(describe(recorder))
            recording.digests = _digests(recorder, party)
            recording.versions = _versions(party, o.device)
        if party != "official":
            recording.files = self.files
        self.recordings[party] = recording

    def _load(self, party: str) -> Callable[[str], Any]:
        """The stages of a party; one that cannot run raises its reason."""

        def load(key: str) -> Any:
            reason = registry.missing(key, party)
            if reason is not None:
                raise BackendError(reason)
            return self._recorder(party).raw(key)

        return load

    def _compare(self, a: str, b: str) -> None:
        o, reference = self.options, self.recordings[a]
        self.comparisons.append((a, b))
        complete = b in self.recordings
        if complete:
            wanted = [row for row in configuration.rows(reference, self.recordings[b]) if _asked(row.stage, o.stages)]
            self.rows += wanted
        comparison = Comparison(reference, b, self._load(b), o.cases, o.stages, o.device if "rust" in (a, b) else "cpu")
        if "isolated" in o.modes:
            o.note(f"{b} on the inputs of {a}")
            comparison.isolated()
        if "chained" in o.modes and complete:
            comparison.chained(self.recordings[b])
        self.rows += comparison.rows

    def _answers(self) -> dict[str, str]:
        """The sentences of the boxes that the checklist leaves open."""
        party = next(p for p in ("rust", "python") if p in self.recordings or p in self.options.parties)
        o = self.options
        first = next(iter(self.recordings.values()))
        clips = [(name, take.arrays["reference.load/out.samples"]) for name, take in first.clips.items()]
        text = next(iter(first.texts.values()))
        resources = self._recorder(party).resources
        present = [p for p in ("python", "rust") if p in o.parties]

        def sides(key: str) -> dict[str, Any]:
            return {p: self._load(p)(key) for p in present if registry.missing(key, p) is None}

        self.open = {
            "model_files": open_boxes.tokenizer_source(resources, o.base_tokenizer),
            "loudness_normalization": open_boxes.loudness(clips, sides("reference.loudness")),
            "watermarking": open_boxes.watermark(text.arrays["watermark/in.samples"], sides("watermark")),
        }
        return {box: open_boxes.sentence(found) for box, found in self.open.items()}

    def _report(self, answers: Mapping[str, str], seconds: float) -> dict[str, Any]:
        o = self.options
        bisected = None
        if o.taps and self.place:
            bisected = self._taps(o.taps, *self._pair_to_bisect(o.taps))
        failed = sum(row.verdict == "FAIL" for row in self.rows)
        return {
            "format": 1,
            "title": "Chatterbox Turbo: Python vs. Rust feature parity, measured",
            "model": {"name": o.config["name"], "files": self.files},
            "machine": machine(),
            "parties": {name: {"versions": recording.versions} for name, recording in self.recordings.items()}
            | {name: {"versions": _versions(name, o.device)} for _, name in self.comparisons if name not in self.recordings},
            "comparisons": [list(pair) for pair in self.comparisons],
            "sections": checklist.sections(self.rows, answers),
            "rows": [row.as_dict() | {"box": box_of(row)} for row in self.rows],
            "open": self.open,
            "times": {name: times(recording) for name, recording in self.recordings.items()},
            "taps": bisected,
            "summary": {
                "rows": len(self.rows),
                "failed": failed,
                "missing": sum(row.verdict == "missing" for row in self.rows),
                "seconds": round(seconds, 3),
                "isolated": "isolated" in o.modes,
                "chained": "chained" in o.modes,
            },
        }

    def _pair_to_bisect(self, stage: str) -> tuple[str, str]:
        """The first comparison in which the stage failed; without one, the first reference against the last party."""
        failed = [row.comparison for row in self.rows if row.verdict == "FAIL" and row.stage.partition("@")[0] == stage]
        whole = [pair for pair in self.comparisons if pair[1] in self.recordings]
        return next((pair for pair in whole if pair in failed), [pair for pair in whole if pair[0] == whole[0][0]][-1])

    def _taps(self, stage: str, a: str, b: str) -> dict[str, Any]:
        reference = self.recordings[a]
        sides = {}
        for party in (a, b):
            if party == "official":
                sides[party] = reference.taps
                continue
            found = self._load(party)(stage)
            take = taps.record_python if party == "python" else taps.record_rust
            sides[party] = take(stage, found, lambda: taps.run(stage, found, reference, self.options.cases))
        return taps.report(stage, (a, b), sides[a], sides[b])

    def _plots(self) -> dict[str, Any]:
        """The arrays behind the plots: the first text's mel, samples and first logits, and the tokens of four texts."""
        plots: dict[str, Any] = {"mels": [], "waveforms": [], "logits": [], "tokens": []}
        for a, b in self.comparisons:
            if b not in self.recordings:
                continue
            for n, text in enumerate(self.options.cases.texts[:4]):
                x, y = (self.recordings[p].texts[text.name].arrays for p in (a, b))

                def pair(title: str, key: str, at: Any = slice(None)) -> dict[str, Any]:
                    return {"title": title, "comparison": [a, b], "reference": x[key][at], "candidate": y[key][at]}

                plots["tokens"].append(pair(f"Tokens of “{text.name}”", "t3.sampler/out.tokens"))
                if n == 0:
                    plots["mels"].append(pair(f"Mel of “{text.name}”", "s3gen.flow/out.mel"))
                    wave = pair(f"Samples of “{text.name}”", "end_to_end/out.samples")
                    plots["waveforms"].append({**wave, "rate": SAMPLE_RATE})
                    plots["logits"].append(pair(f"First logits of “{text.name}”", "t3.decoder/out.logits", 0))
        return plots


def box_of(row: Row) -> str | None:
    """The first box that a row answers."""
    return next((box.id for box in checklist.BOXES if checklist.belongs(row, box)), None)


def _asked(stage: str, stages: tuple[str, ...]) -> bool:
    """Whether a configuration row (``config.t3.decoder``, ``files``) belongs to the stages that were asked for."""
    key = stage.partition(".")[2]
    return not stages or any(key == prefix or key.startswith(f"{prefix}.") for prefix in stages)


def times(recording: Recording) -> dict[str, float]:
    """Seconds of every stage over all clips, texts and conversions."""
    total: dict[str, float] = {}
    for take in [*recording.clips.values(), *recording.texts.values(), *recording.conversions.values()]:
        for key, seconds in take.seconds.items():
            stage = key.partition("@")[0]
            if stage in registry.TABLE:
                total[stage] = total.get(stage, 0.0) + seconds
    return {key: round(total[key], 6) for key in registry.TABLE if key in total}


def _files(directory: Path, config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found = {}
    for name in [*config["files"].values(), *locate.TOKENIZER_FILES]:
        path = directory / name
        if path.exists():
            found[name] = {"bytes": path.stat().st_size, "sha256": configuration.sha256(path)}
    return found


def _digests(recorder: Recorder, party: str, networks: Sequence[str] = NETWORKS) -> dict[str, dict[str, Any]]:
    """Weight file → tensor → digest, as the party's networks were given them."""
    from .digests import digest

    found: dict[str, dict[str, Any]] = {"t3": {}, "s3gen": {}, "voice_encoder": {}}
    if party == "rust":
        for name, value in recorder.resources.core.digests().items():
            which = (
                "s3gen"
                if name.startswith(configuration.S3GEN_PREFIXES)
                else "voice_encoder"
                if name.startswith(("lstm.", "proj.", "similarity"))
                else "t3"
            )
            found[which][name] = value
        return found
    for network in networks:
        stage, which = recorder.raw(network), configuration.TENSORS[network][0]
        for name, value in stage.module.state_dict().items():
            if value.is_floating_point():
                found[which][stage.prefix + name] = digest(value.cpu().numpy())
    return found


def _versions(party: str, device: str) -> dict[str, str]:
    from .. import _core

    if party == "rust":
        return {name: str(value) for name, value in _core.build_info().items()} | {"device": device}
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def to_json(report: Mapping[str, Any]) -> str:
    """The report as JSON text."""
    return json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False, default=_plain) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"cannot be written as JSON: {type(value).__name__}")
