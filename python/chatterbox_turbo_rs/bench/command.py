"""The command ``chatterbox-turbo bench``: times of every stage and from end to end, first and later runs, memory.

Every number of threads and every length is measured in a process of its own (``measure.py``). The result is a table, and JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..audio.files import whole_file
from ..checkpoint import locate
from ..engine import devices, registry
from ..errors import ArgumentError, ChatterboxError, FileError
from . import fresh_process

MEASURE = f"{__package__}.measure:run"
ATTEMPTS = 8
"""Seeds that are tried until T3's loop reaches the length: random weights stop one time in six thousand tokens."""
MOST_THREADS = 1024
MOST_REPEATS = 1000


def add(commands: Any) -> None:
    """Adds the command to the command line."""
    bench = commands.add_parser("bench", help="time every stage and the whole, in first and later runs, and measure memory")
    bench.add_argument("--model", default="demo", help="demo, turbo, nano, a repository id or a directory (default: demo)")
    bench.add_argument("--seconds", default="2,10,30", metavar="LIST", help="lengths of the sound (default: 2,10,30)")
    bench.add_argument("--threads", default="1,2", metavar="LIST", help="numbers of threads (default: 1,2)")
    bench.add_argument("--backends", metavar="SPEC", help="which side runs each stage, such as auto,t3=rust,text=python")
    bench.add_argument("--repeat", default="3", metavar="N", help="runs after the first (default: 3)")
    bench.add_argument("--batch", default="1", metavar="N", help="also speak N texts together (default: 1, no batch)")
    bench.add_argument("--precision", default="auto", help="as for say (default: auto)")
    bench.add_argument("--device", default="auto", help="auto, cpu, cuda or metal")
    bench.add_argument("--clip", type=Path, help="a reference clip of more than 5 s (default: the packaged one)")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON (- for standard output)")
    bench.set_defaults(run=run)


def run(options: argparse.Namespace, bar: Any) -> int:
    """Measures and prints; returns 0."""
    from .. import _core
    from ..options import MOST_ROWS
    from . import measure
    from .machine import machine

    seconds = numbers("--seconds", options.seconds, float, measure.SHORTEST, measure.LONGEST)
    threads = numbers("--threads", options.threads, int, 1, MOST_THREADS)
    (repeat,) = numbers("--repeat", options.repeat, int, 1, MOST_REPEATS, count=1)
    (batch,) = numbers("--batch", options.batch, int, 1, MOST_ROWS, count=1)
    writable("--json", options.json)
    if options.clip is not None and not options.clip.is_file():
        raise FileError(f"{options.clip}: no such file")
    device = devices.resolve(options.device, options.precision, registry.resolve(options.backends))
    _, config = locate.locate(options.model, progress=sys.stderr.isatty())
    job = {name: getattr(options, name) for name in ("model", "precision", "backends")}
    job |= {"device": device, "repeat": repeat, "batch": batch, "clip": str(options.clip) if options.clip else None}
    runs = []
    for count in threads:
        for length in seconds:
            note(f"{length:g} s on {threads_of(count)}")
            runs.append({"threads": count, **reached({**job, "seconds": length}, count)})
    result = {
        "format": 1,
        "package": _core.build_info()["version"],
        "model": config["name"],
        "device": device,
        "precision": options.precision,
        "machine": machine(),
        "lengths": measure.LENGTHS,
        "repeat": repeat,
        "runs": runs,
    }
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    if options.json is not None and str(options.json) != "-":
        with whole_file(options.json) as part:
            part.write_text(text, encoding="utf-8")
    print(text if str(options.json) == "-" else table(result), end="")
    return 0


def note(text: str) -> None:
    """A remark on standard error."""
    print(f"chatterbox-turbo: {text}", file=sys.stderr, flush=True)


def writable(name: str, path: Path | None) -> None:
    """Raises ``FileError`` when ``path`` cannot become a file."""
    if path is None or str(path) == "-":
        return
    if path.is_dir() or not path.parent.is_dir():
        why = "is a directory" if path.is_dir() else f"no directory {path.parent}"
        raise FileError(f"{name}: {path}: cannot be written: {why}")


def numbers(name: str, text: str, kind: Callable[[str], Any], low: float, high: float, count: int | None = None) -> list[Any]:
    """The numbers of a list with commas, each once; raises ``ArgumentError`` that names the argument."""
    what = "a whole number" if kind is int else "a number"
    found = []
    for part in text.split(","):
        try:
            value = kind(part.strip())
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise ArgumentError(
                f"{name}: expected {what} from {low:g} to {high:g}{'' if count else ', or several with commas'}, got {part.strip()!r}"
            )
        if value not in found:
            found.append(value)
    if count is not None and len(found) != count:
        raise ArgumentError(f"{name}: expected one number, got {text!r}")
    return found


def reached(job: Mapping[str, Any], threads: int) -> Any:
    """What ``measure.run`` gives for ``job`` with the first seed that does not stop too soon."""
    stopped = []
    for seed in range(1, 1 + ATTEMPTS):
        found = fresh_process.call(MEASURE, {**job, "seed": seed}, threads)
        if "stopped" not in found:
            return found
        stopped.append(str(found["stopped"]))
    raise ChatterboxError(
        f"--seconds {job['seconds']:g}: the length cannot be forced: with seeds 1 to {ATTEMPTS} the model stopped "
        f"after {', '.join(stopped)} tokens"
    )


def threads_of(count: int) -> str:
    """``1 thread`` or ``2 threads``."""
    return f"{count} thread{'' if count == 1 else 's'}"


def table(result: Mapping[str, Any]) -> str:
    """The result for a terminal: one block for every number of threads, three columns for every length."""
    first = result["runs"][0]
    sides = sorted(set(first["plan"].values()))
    lines = [
        f"chatterbox-turbo-rs {result['package']}, model {result['model']}, device {result['device']}, precision {result['precision']}, "
        f"{' and '.join(sides)}",
        describe(result["machine"]),
        f"Lengths: {result['lengths']}.",
        f"Seconds; first run in its process, then best and median of {result['repeat']} later ones. Every length has its own process.",
    ]
    for count in dict.fromkeys(run["threads"] for run in result["runs"]):
        lines += ["", *_block(count, [run for run in result["runs"] if run["threads"] == count], len(sides) > 1)]
    return "\n".join(lines) + "\n"


def describe(machine: Mapping[str, Any]) -> str:
    """The processor, its vector extensions and its cores in one line."""
    return f"{machine['cpu']} ({' '.join(machine['features']) or 'no vector extensions known here'}), {machine['threads']} cores seen"


def _block(count: int, runs: Sequence[Mapping[str, Any]], mixed: bool) -> list[str]:
    def row(name: str, cell: Callable[[Mapping[str, Any]], str]) -> str:
        return f"{name:34}" + "  ".join(cell(run) for run in runs)

    def three(values: Mapping[str, Any], form: str = "8.3f", scale: float = 1.0) -> str:
        return " ".join(f"{values[name] * scale:{form}}" for name in ("first", "best", "median"))

    def one(value: float | None, form: str = "8.3f") -> str:
        return f"{value:{form}}".ljust(26) if value is not None else f"{'–':>8}".ljust(26)

    def stage(of: Callable[[Mapping[str, Any]], Mapping[str, Any]], key: str) -> str:
        plan = runs[0]["plan"]
        names = "/".join(sorted({plan[k] for k in plan if k == key or k.startswith(f"{key}.")}))
        return row(f"  {key}{f' ({names})' if mixed and names else ''}", lambda run: three(of(run)[key]))

    def grown(phase: str) -> Callable[[Mapping[str, Any]], str]:
        def cell(run: Mapping[str, Any]) -> str:
            memory = run["peak_bytes"]
            phases = list(memory)
            before, after = memory[phases[phases.index(phase) - 1]], memory[phase]
            return one(None if after is None else (after - before) / 1e6, "+8.0f")

        return cell

    lines = [threads_of(count).ljust(34) + "  ".join(f"{run['audio_seconds']:.2f} s of sound".rjust(26) for run in runs)]
    lines.append(row("", lambda run: f"{'first':>8} {'best':>8} {'median':>8}"))
    lines.append(row("load", lambda run: one(run["load"])))
    lines.append(row("voice preparation", lambda run: three(run["voice"])))
    lines += [stage(lambda run: run["voice"]["stages"], key) for key in runs[0]["voice"]["stages"]]
    lines.append(row("end to end", lambda run: three(run["end_to_end"])))
    lines += [stage(lambda run: run["stages"], key) for key in runs[0]["stages"]]
    lines.append(row("  outside the stages", lambda run: three(run["outside_stages"])))
    lines.append(row("real-time factor", lambda run: three(run["real_time_factor"])))
    lines.append(row("T3 tokens a second", lambda run: three(run["tokens_per_second"], "8.1f")))
    lines.append(row("T3 prefill (measured apart), ms", lambda run: three(run["t3_prefill"], "8.1f", 1e3)))
    lines.append(row("T3 later tokens, ms each", lambda run: three(run["t3_step"], "8.2f", 1e3)))
    if "t3_step_memory" in runs[0]:
        lines.append(row("  read for each, MB", lambda run: one(run["t3_step_memory"]["bytes"] / 1e6, "8.0f")))
        lines.append(row("  read rate of this run, GB/s", lambda run: one(run["memory_bytes_per_second"] / 1e9, "8.1f")))
        lines.append(row("  reading alone, of their time", lambda run: one(run["t3_step_memory"]["share"], "8.2f")))
    if "batch" in runs[0]:
        lines += _together(runs, row, three)
    last = list(runs[0]["peak_bytes"])[-1]
    lines.append(row("peak memory, MB", lambda run: one((p := run["peak_bytes"][last]) and p / 1e6, "8.0f")))
    lines.append(row("  before loading", lambda run: one((p := run["peak_bytes"]["start"]) and p / 1e6, "8.0f")))
    names = {"load": "loading", "voice": "voice", "first": "first utterance", "later": "later utterances"}
    names |= {"batch": "batch"} if last == "batch" else {}
    lines += [row(f"  {name}, added", grown(phase)) for phase, name in names.items()]
    return [line.rstrip() for line in lines]


def _together(runs: Sequence[Mapping[str, Any]], row: Callable[..., str], three: Callable[..., str]) -> list[str]:
    """The rows of a batch."""
    size = runs[0]["batch"]["texts"]
    lines = [row(f"{size} texts together, end to end", lambda run: three(run["batch"]["end_to_end"]))]
    lines += [row(f"  {key}", lambda run, key=key: three(run["batch"]["stages"][key])) for key in runs[0]["batch"]["stages"]]
    lines.append(row("  real-time factor", lambda run: three(run["batch"]["real_time_factor"])))
    lines.append(row("  of one alone, in turn", lambda run: three(run["batch"]["one_by_one"])))
    lines.append(row("  together / alone", lambda run: three(run["batch"]["ratio"])))
    return lines
