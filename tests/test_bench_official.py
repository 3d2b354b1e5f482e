"""``make bench``: its tables and ratios, its refusals, and everybody on the same work where the official package is installed."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import pytest

import bench_official
from bench_official import main, ratios, report
from chatterbox_turbo_rs.bench import fresh_process, measure

ROOT = Path(__file__).resolve().parents[1]
NEEDED = pytest.mark.skipif(importlib.util.find_spec("chatterbox") is None, reason="the official package is not installed")


def seconds(**runs: list[float]) -> dict[str, Any]:
    return {name: measure.summary(values) for name, values in runs.items()}


def test_a_ratio_below_one_is_faster():
    times = seconds(official=[9.0, 4.0, 8.0, 2.0], python=[9.0, 2.0, 8.0, 4.0], rust=[4.5, 1.0, 4.0, 1.0])
    assert ratios(times, "rust") == {"first": 0.5, "best": 0.5, "median": 0.5}
    assert ratios(times, "python") == {"first": 1.0, "best": 1.0, "median": 1.0}, "pairs of a turn: 0.5, 1 and 2"
    assert ratios(seconds(official=[1.0, 1.0, 2.0], rust=[1.0, 1.0, 4.0]), "rust")["median"] == 1.5


def canned(cold: bool = True) -> dict[str, Any]:
    """A result of the form that ``run`` gives."""
    parties = ["official", "rust"]
    times = seconds(official=[9.0, 4.0, 5.0], rust=[3.0, 1.0, 2.0])
    ratio = {"rust": ratios(times, "rust")}
    factors = {name: {which: times[name][which] / 2.12 for which in ("first", "best", "median")} for name in parties}
    versions = {"torch": "2.0", "package": "0.1.0", "level": "avx2", "precision": "int8"}
    whole = {
        "name": "2 s",
        "audio_seconds": 2.12,
        "seconds": times,
        "ratio": ratio,
        "real_time_factor": factors,
        "versions": versions,
    }
    alone = {
        "seconds": {"load": 1.5, "voice": 2.5, "speak": 3.5},
        "peak_bytes": {"start": 10e6, "load": 20e6, "voice": None, "speak": 40e6},
        "cold": cold,
    }
    found = {
        "end_to_end": [whole],
        "stages": [{"name": "s3gen.flow", "seconds": times, "ratio": ratio}],
        "alone": dict.fromkeys(parties, alone),
    }
    machine = {"cpu": "A CPU", "features": ["avx2"], "threads": 2}
    head = {"machine": machine, "precision": "f32", "lengths": "forced", "stages_at": 2.0, "repeat": 2, "parties": parties}
    return {**head, "threads": [{"threads": 1, **found}, {"threads": 2, **found}]}


def test_the_report_has_every_number():
    lines = {line[:34].strip(): line[34:].split() for line in report(canned()).splitlines()}
    assert lines["2 threads, from end to end"] == ["official", "rust", "×", "rust"]
    assert lines["2.12 s of sound"] == lines["s3gen.flow"] == ["4.000", "1.000", "0.25"]
    assert lines["real-time factor"] == ["1.887", "0.472"] and lines["real-time factor, first run"] == ["4.245", "1.415"]
    assert lines["utterance of 2 s, first"] == ["3.500", "3.500"] and lines["after speak"] == ["40", "40"]
    assert lines["after voice"] == ["–", "–"]
    assert "A CPU (avx2)" in report(canned()) and "1 thread, alone in a process" in lines
    assert "3.500*" in report(canned(cold=False)) and "* not quite the first" in report(canned(cold=False))


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "checkpoint"),
        (["/no/such/folder"], "/no/such/folder: expected a directory"),
        ([".", "--seconds", "99"], "--seconds: expected a number from 0.08 to 40"),
        ([".", "--threads", "two"], "--threads: expected a whole number"),
        ([".", "--repeat", "0"], "--repeat: expected a whole number from 1"),
        ([".", "--parties", "python,rust"], "--parties: expected official and some of python, rust, auto"),
        ([".", "--parties", "official"], "--parties"),
        ([".", "--parties", "official,java"], "'official,java'"),
        ([".", "--json", "no/folder/x"], "no directory"),
    ],
)
def test_bad_input_is_one_line(arguments, part, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench_official.py"])
    try:
        code = main(arguments)
    except SystemExit as stopped:  # argparse
        code = stopped.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "") and part in err and err.count("\n") == 1


def test_quick_has_other_defaults_and_every_process_its_work(monkeypatch, tmp_path):
    asked: list[tuple[Any, ...]] = []

    def call(function: str, job: dict[str, Any], threads: int) -> Any:
        found = canned()["threads"][0]
        kind = function.partition(":")[2]
        asked.append((kind, job["seconds"], job["repeat"], threads, job.get("party")))
        return found["alone"]["rust"] if kind == "alone" else found[kind][0] if kind == "end_to_end" else found[kind]

    monkeypatch.setattr(fresh_process, "call", call)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main([str(tmp_path), "--quick", "--parties", "official,rust"]) == 0
    whole, stages, *alone = asked
    assert (whole, stages) == (("end_to_end", 2.0, 1, 2, None), ("stages", 2.0, 1, 2, None))
    assert alone == [("alone", 2.0, 1, 2, "official"), ("alone", 2.0, 1, 2, "rust")]
    asked.clear()
    assert main([str(tmp_path), "--parties", "rust, official", "--json", str(tmp_path / "x.json")]) == 0
    assert [a[:4] for a in asked if a[0] == "end_to_end"] == [("end_to_end", s, 2, t) for t in (1, 2) for s in (2.0, 10.0, 30.0)]
    assert {a[1] for a in asked if a[0] != "end_to_end"} == {bench_official.STAGES_AT}
    assert (tmp_path / "x.json").stat().st_size > 1000


@NEEDED
def test_everybody_does_the_same_work(tiny_checkpoint, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "python" / "chatterbox_turbo_rs" / "parity"))
    job = {
        "checkpoint": str(tiny_checkpoint),
        "precision": "auto",
        "repeat": 1,
        "seconds": 0.4,
        "parties": list(bench_official.PARTIES),
    }
    whole, stages, alone = fresh_process.call(f"{__name__}:everybody", job, 1)
    assert whole["audio_seconds"] == 0.52 and whole["versions"]["threads"] == whole["versions"]["torch_threads"] == 1
    assert len(stages) == 16
    for row in [whole, *stages]:
        assert tuple(row["seconds"]) == bench_official.PARTIES, row["name"]
        assert all(len(side["runs"]) == 2 and 0 < side["best"] < math.inf for side in row["seconds"].values()), row["name"]
    assert list(alone["peak_bytes"]) == ["start", "load", "voice", "speak"]
    assert all(value > 0 for value in alone["seconds"].values()) and isinstance(alone["cold"], bool)


def everybody(job: dict[str, Any]) -> list[Any]:
    import bench_parties

    return [bench_parties.end_to_end(job), bench_parties.stages(job), bench_parties.alone({**job, "party": "official"})]
