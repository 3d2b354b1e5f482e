"""Compares chatterbox-turbo-rs with the official package, stage by stage and end to end, on the same checkpoint and draws.

usage: parity_official.py [--size full|tiny] [--environment DIR] [--checkpoint DIR] [--output DIR] [--backend rust|python] ...

Builds what is missing: an environment with the official package (``reference_env.sh``; or ``--environment``, an existing one)
and a random checkpoint (``make_checkpoint.py``). Runs the official pipeline in its own process (``official_runner.py``) on the
clips of ``tests/data/clips`` and the ten texts below, then our stages on the same inputs: isolated and chained. Prints one line
per stage with its worst case (``--rows``: one per clip or text), writes ``report.json``, and exits 1 when a row fails or, unless
``--allow-missing``, when a stage is missing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from safetensors.numpy import load_file, save_file

from make_checkpoint import ROOT
from parity_stages import Parity, Row

TOOLS = Path(__file__).resolve().parent
CLIPS = ("short", "stereo", "long")
LONG_TEXT = "The quick brown fox, number seven, [sigh] jumps over the lazy dog while eleven zebras argue about jazz. " * 70
TEXTS: tuple[dict[str, Any], ...] = (
    {"name": "plain", "text": "Hello there.", "clip": "short", "max_gen_len": 40},
    {
        "name": "tags",
        "text": "oh [laugh] that is[clear throat]really [sigh] something [Laugh]",
        "clip": "stereo",
        "max_gen_len": 40,
    },
    {"name": "unicode", "text": "ßtart… “naïve” café — at 5:30, 😀 ’tis ǆ", "clip": "long", "max_gen_len": 30},
    {"name": "empty", "text": "", "clip": "short", "max_gen_len": 20},
    {"name": "over_1024_tokens", "text": LONG_TEXT, "clip": "stereo", "max_gen_len": 10},
    {"name": "greedy", "text": "One token is always the best.", "clip": "long", "max_gen_len": 220, "top_k": 1},
    {
        "name": "narrow",
        "text": "Hot, but within a narrow choice.",
        "clip": "short",
        "max_gen_len": 40,
        "temperature": 1.3,
        "top_k": 50,
        "top_p": 0.7,
        "repetition_penalty": 1.6,
    },
    {
        "name": "unfiltered",
        "text": "Nothing is filtered here!",
        "clip": "stereo",
        "max_gen_len": 30,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "repetition_penalty": 1.0,
    },
    {"name": "long_speech", "text": "This one speaks for more than eight seconds.", "clip": "short", "max_gen_len": 220},
    {
        "name": "spaces",
        "text": "  leading spaces\tand\nnew lines ; Dr. No paid $5.20 (not 1,000)",
        "clip": "long",
        "max_gen_len": 25,
    },
)
PROMPT_TOKENS = 250


def write_job(output: Path, checkpoint: Path) -> Path:
    """Writes draws and job for the official runner; the same every time."""
    random = np.random.Generator(np.random.Philox(2024))
    longest = max(text["max_gen_len"] for text in TEXTS) + 1 + 3
    draws = {
        "uniforms": random.random(longest),
        "flow": random.standard_normal((2 * (PROMPT_TOKENS + longest), 80), np.float32),
        "phases": random.uniform(-np.pi, np.pi, 9).astype(np.float32),
        "noise": random.standard_normal((480 * 2 * longest, 9), np.float32),
    }
    save_file(draws, output / "draws.safetensors")
    job = {
        "checkpoint": str(checkpoint.resolve()),
        "draws": "draws.safetensors",
        "output": "official",
        "clips": [{"name": name, "path": str(ROOT / "tests" / "data" / "clips" / f"{name}.flac")} for name in CLIPS],
        "texts": list(TEXTS),
        "save_conds": True,
    }
    path = output / "job.json"
    path.write_text(json.dumps(job, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def compare_all(output: Path, checkpoint: Path, backend: str) -> tuple[list[Row], dict[str, Any]]:
    """Runs our stages on what the official runner recorded."""
    from chatterbox_turbo_rs import backends
    from chatterbox_turbo_rs.resources import Resources

    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    resources = Resources(checkpoint, config)
    parity = Parity(lambda key: backends.load(key, backend, resources), load_file(output / "draws.safetensors"))
    official = output / "official"
    report = json.loads((official / "report.json").read_text(encoding="utf-8"))
    job = json.loads((output / "job.json").read_text(encoding="utf-8"))
    voices = {}
    for clip in job["clips"]:
        arrays, name = load_file(official / f"clip_{clip['name']}.safetensors"), clip["name"]
        rate = soundfile.info(clip["path"]).samplerate
        voices[name] = parity.clip(name, clip["path"], rate, arrays, report["clips"][name]["seconds"])
    for text in job["texts"]:
        arrays = load_file(official / f"text_{text['name']}.safetensors")
        parity.text(text["name"], text, voices[text["clip"]], arrays, report["texts"][text["name"]])
    return parity.rows, report


def table(rows: list[Row], every: bool) -> str:
    """The worst row of every stage (or every row), as aligned text."""
    head = (
        "mode",
        "stage",
        "case",
        "max abs",
        "rel rms",
        "norm",
        "worst cos",
        "prefix",
        "tolerance",
        "verdict",
        "ours",
        "official",
    )
    lines = [head]
    for key in dict.fromkeys((row.mode, row.stage) for row in rows):
        group = [row for row in rows if (row.mode, row.stage) == key]
        worst = max(group, key=_badness)
        for row in group if every else [worst]:
            case = row.case if every or len(group) == 1 else f"{row.case} (of {len(group)})"
            lines.append(_line(row, case, group if not every else [row]))
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    seen = [f"{r.verdict}: {r.mode} {r.stage}, {r.case}: {r.missing or '; '.join(r.wrong)}" for r in rows if r.verdict == "FAIL"]
    absent = {f"missing: {r.stage}: {r.missing}" for r in rows if r.missing}
    notes = [f"note: {r.mode} {r.stage}, {r.case}: {r.note}" for r in rows if r.note]
    return "\n".join([*text, "", *seen, *sorted(absent), *notes]).rstrip()


def _badness(row: Row) -> tuple[int, float]:
    rank = {"ok": 0, "missing": 1, "FAIL": 2}[row.verdict]
    used = row.as_dict()["used"]
    return rank, used if used is not None else (float("inf") if row.wrong else 0.0)


def _line(row: Row, case: str, group: list[Row]) -> tuple[str, ...]:
    f, report = row.figures, row.as_dict()
    cells = ("", "", "", "", "")
    if f:
        cosine = f"{f.worst_cosine:.7f}"
        cells = (f"{f.max_abs:.2e}", f"{f.relative_rms:.2e}", f"{f.norm_ratio:.6f}", cosine, f"{f.prefix}/{f.length}")
    times = [f"{sum(v for v in values if v):.3f} s" if any(values) else "" for values in _times(group)]
    return (row.mode, row.stage, case, *cells, report["tolerance"], row.verdict, *times)


def _times(group: list[Row]) -> tuple[list[float | None], list[float | None]]:
    return [row.seconds for row in group], [row.official_seconds for row in group]


def main() -> int:
    parser = argparse.ArgumentParser(description="Compares chatterbox-turbo-rs with the official package.")
    build = ROOT / "build" / "parity"
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--environment", type=Path, default=build / "official-environment")
    parser.add_argument("--checkpoint", type=Path, help="default: build/parity/checkpoint-SIZE, made when missing")
    parser.add_argument("--output", type=Path, help="default: build/parity/SIZE")
    parser.add_argument("--backend", choices=("rust", "python"), default="rust")
    parser.add_argument("--reuse", action="store_true", help="take the official results of the last run")
    parser.add_argument("--rows", action="store_true", help="print every row")
    parser.add_argument("--allow-missing", action="store_true", help="a missing stage is no failure")
    a = parser.parse_args()
    output, checkpoint = a.output or build / a.size, a.checkpoint or build / f"checkpoint-{a.size}"
    output.mkdir(parents=True, exist_ok=True)
    if not (a.environment / "bin" / "python").exists():
        subprocess.run(["bash", str(TOOLS / "reference_env.sh"), str(a.environment)], check=True)
    if not (checkpoint / "config.json").exists():
        command = [sys.executable, str(TOOLS / "make_checkpoint.py"), "--size", a.size, "--seed", str(a.seed), str(checkpoint)]
        subprocess.run(command, check=True)
    job = write_job(output, checkpoint)
    if not a.reuse or not (output / "official" / "report.json").exists():
        command = [str(a.environment / "bin" / "python"), "-W", "ignore", str(TOOLS / "official_runner.py"), str(job)]
        with open(output / "official.log", "wb") as log:
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            sys.exit(f"the official runner failed ({done.returncode}); its output is in {output / 'official.log'}")
    rows, official = compare_all(output, checkpoint, a.backend)
    print(table(rows, a.rows))
    failed, missing = sum(r.verdict == "FAIL" for r in rows), sum(r.verdict == "missing" for r in rows)
    summary = {"rows": len(rows), "failed": failed, "missing": missing, "size": a.size}
    report = {"summary": summary, "backend": a.backend, "official": official, "rows": [row.as_dict() for row in rows]}
    (output / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(rows)} rows, {failed} failed, {missing} missing; {output / 'report.json'}")
    return 1 if failed or (missing and not a.allow_missing) else 0


if __name__ == "__main__":
    sys.exit(main())
