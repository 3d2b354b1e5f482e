"""Times chatterbox-turbo-rs beside the official package: alternating, on the same work, from end to end and stage by stage.

usage: bench_official.py CHECKPOINT [--seconds 2,10,30] [--threads 1,2] [--quick] [--json FILE], in the environment of
``reference_env.sh``, with the core built in ``python/chatterbox_turbo_rs``. ``benches/README.md`` says how to read it.
Absolute times are noise between machines: the ratios, and the CPU's features beside them, are the result.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

TOOLS = Path(__file__).resolve().parent
PACKAGE = TOOLS.parent / "python"
sys.path[:0] = [str(TOOLS), str(PACKAGE)]

from chatterbox_turbo_rs.audio.files import whole_file  # noqa: E402
from chatterbox_turbo_rs.bench import fresh_process, measure  # noqa: E402
from chatterbox_turbo_rs.bench.machine import describe, machine  # noqa: E402
from chatterbox_turbo_rs.bench.table import threads_of  # noqa: E402
from chatterbox_turbo_rs.cli.bench import MOST_REPEATS, MOST_THREADS, numbers  # noqa: E402
from chatterbox_turbo_rs.cli.common import writable  # noqa: E402
from chatterbox_turbo_rs.cli.streams import remark  # noqa: E402
from chatterbox_turbo_rs.errors import ArgumentError, ChatterboxError  # noqa: E402

PARTIES = ("official", "python", "rust", "auto")
"""The official package; our Python and our Rust side in float32; our Rust side in the precision of ``--precision``."""

QUICK = {"seconds": "2", "threads": "2", "repeat": "1"}
FULL = {"seconds": "2,10,30", "threads": "1,2", "repeat": "2"}
STAGES_AT = 10.0
"""Seconds of sound of the tables of stages and of memory, or the longest of the lengths below that."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--seconds", metavar="LIST", help=f"lengths of the sound (default: {FULL['seconds']})")
    parser.add_argument("--threads", metavar="LIST", help=f"numbers of threads (default: {FULL['threads']})")
    parser.add_argument("--repeat", metavar="N", help=f"runs after the first (default: {FULL['repeat']})")
    parser.add_argument(
        "--quick", action="store_true", help=f"other defaults: {', '.join(f'--{k} {v}' for k, v in QUICK.items())}"
    )
    parser.add_argument("--parties", default=",".join(PARTIES), metavar="LIST", help="official and some of python, rust, auto")
    parser.add_argument(
        "--precision", default="auto", help="of the party auto, the Rust side; the others compute in float32 (default: auto)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON (- for standard output)")
    options = parser.parse_args(arguments)
    try:
        result = run(options)
    except ChatterboxError as error:
        print(f"{parser.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    if options.json is not None and str(options.json) != "-":
        with whole_file(options.json) as part:
            part.write_text(text, encoding="utf-8")
    print(text if str(options.json) == "-" else report(result), end="")
    return 0


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measures everything in processes of their own; the result, as it becomes JSON."""
    asked = {name: getattr(options, name) or default for name, default in (QUICK if options.quick else FULL).items()}
    seconds = numbers("--seconds", asked["seconds"], float, measure.SHORTEST, measure.LONGEST)
    threads = numbers("--threads", asked["threads"], int, 1, MOST_THREADS)
    (repeat,) = numbers("--repeat", asked["repeat"], int, 1, MOST_REPEATS, count=1)
    parties = [name.strip() for name in options.parties.split(",")]
    if set(parties) - set(PARTIES) or "official" not in parties or len(parties) < 2:
        raise ArgumentError(f"--parties: expected official and some of python, rust, auto, got {options.parties!r}")
    if options.json is not None and str(options.json) != "-":
        writable(options.json)
    if not options.checkpoint.is_dir():
        raise ArgumentError(f"{options.checkpoint}: expected a directory with a checkpoint")
    at = max((s for s in seconds if s <= STAGES_AT), default=min(seconds))
    sys.path.append(str(PACKAGE / "chatterbox_turbo_rs" / "parity"))  # where its package ``official`` lies
    job = {"checkpoint": str(options.checkpoint.resolve()), "precision": options.precision, "repeat": repeat}
    job["parties"] = [name for name in PARTIES if name in parties]

    def call(function: str, what: str, count: int, **more: Any) -> Any:
        remark(f"{what}, {threads_of(count)}")
        return fresh_process.call(f"bench_parties:{function}", {**job, "seconds": at, **more}, count)

    measured = []
    for count in threads:
        found = {
            "threads": count,
            "end_to_end": [call("end_to_end", f"{s:g} s from end to end", count, seconds=s) for s in seconds],
            "stages": call("stages", f"stages of {at:g} s", count),
            "alone": {name: call("alone", f"{name} alone, {at:g} s", count, party=name) for name in job["parties"]},
        }
        for row in [*found["end_to_end"], *found["stages"]]:
            row["ratio"] = {name: ratios(row["seconds"], name) for name in job["parties"] if name != "official"}
        for row in found["end_to_end"]:
            row["real_time_factor"] = {
                name: {which: row["seconds"][name][which] / row["audio_seconds"] for which in ("first", "best", "median")}
                for name in job["parties"]
            }
        measured.append(found)
    return {
        "format": 1,
        "machine": machine(),
        "precision": options.precision,
        "lengths": measure.LENGTHS,
        "stages_at": at,
        "repeat": repeat,
        "parties": job["parties"],
        "threads": measured,
    }


def ratios(seconds: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, float]:
    """Time of a party over that of the official package, below 1: faster. ``median`` is that of the runs of the same turn."""
    official, ours = seconds["official"], seconds[name]
    pairs = sorted(a / b for a, b in zip(ours["runs"][1:], official["runs"][1:]))
    middle = (pairs[(len(pairs) - 1) // 2] + pairs[len(pairs) // 2]) / 2
    return {"first": ours["first"] / official["first"], "best": ours["best"] / official["best"], "median": middle}


def report(result: Mapping[str, Any]) -> str:
    """The tables for a terminal."""
    parties, others = result["parties"], [name for name in result["parties"] if name != "official"]
    versions = result["threads"][0]["end_to_end"][0]["versions"]
    lines = [
        f"{describe(result['machine'])}; PyTorch {versions['torch']}; chatterbox-turbo-rs {versions['package']}, "
        f"CPU level {versions['level']}; auto is precision {versions['precision']}",
        f"Seconds, best of {result['repeat']} later runs, everybody in turn; × is the ratio to the official package, below 1: faster.",
        f"Lengths: {result['lengths']}.",
    ]

    def row(name: str, cells: Iterable[str]) -> str:
        return f"{name:34}" + "".join(f"{cell:>10}" for cell in cells)

    head = [*parties, *(f"× {name}" for name in others)]
    for found in result["threads"]:
        threads = threads_of(found["threads"])
        lines += ["", row(f"{threads}, from end to end", head)]
        for measured in found["end_to_end"]:
            lines.append(row(f"{measured['audio_seconds']:.2f} s of sound", _cells(measured, parties, others)))
            for which, name in (("best", "real-time factor"), ("first", "real-time factor, first run")):
                factors = [measured["real_time_factor"][party][which] for party in parties]
                lines.append(row(f"  {name}", [f"{factor:.3f}" for factor in factors]))
        lines += ["", row(f"{threads}, stages of {result['stages_at']:g} s", head)]
        lines += [row(measured["name"], _cells(measured, parties, others)) for measured in found["stages"]]
        lines += ["", row(f"{threads}, alone in a process", parties)]
        alone = [found["alone"][party] for party in parties]
        names = {"load": "load", "voice": "voice preparation, first", "speak": f"utterance of {result['stages_at']:g} s, first"}
        for key, name in names.items():
            marks = ["" if key != "speak" or one["cold"] else "*" for one in alone]
            lines.append(row(name, [f"{one['seconds'][key]:.3f}{mark}" for one, mark in zip(alone, marks)]))
        if not all(one["cold"] for one in alone):
            lines.append("  * not quite the first: the one before it stopped too soon")
        for key, name in {
            "start": "peak memory before loading, MB",
            **{k: f"  after {k}" for k in ("load", "voice", "speak")},
        }.items():
            lines.append(row(name, [f"{peak / 1e6:.0f}" if (peak := one["peak_bytes"][key]) else "–" for one in alone]))
    return "\n".join(lines) + "\n"


def _cells(measured: Mapping[str, Any], parties: Sequence[str], others: Sequence[str]) -> list[str]:
    return [f"{measured['seconds'][party]['best']:.3f}" for party in parties] + [
        f"{measured['ratio'][name]['best']:.2f}" for name in others
    ]


if __name__ == "__main__":
    sys.exit(main())
