"""The result of ``chatterbox-turbo bench`` for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .machine import describe


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
    if "stream" in runs[0]:
        lines += _streamed(runs, row, three)
    last = list(runs[0]["peak_bytes"])[-1]
    lines.append(row("peak memory, MB", lambda run: one((p := run["peak_bytes"][last]) and p / 1e6, "8.0f")))
    lines.append(row("  before loading", lambda run: one((p := run["peak_bytes"]["start"]) and p / 1e6, "8.0f")))
    names = {"load": "loading", "voice": "voice", "first": "first utterance", "later": "later utterances"}
    names |= {phase: phase for phase in ("batch", "stream") if phase in runs[0]["peak_bytes"]}
    lines += [row(f"  {name}, added", grown(phase)) for phase, name in names.items()]
    return [line.rstrip() for line in lines]


def _streamed(runs: Sequence[Mapping[str, Any]], row: Callable[..., str], three: Callable[..., str]) -> list[str]:
    """The rows of a stream."""
    names = {"first": "streamed, first sound", "waited": "  a player waited", "end_to_end": "  end to end"}
    names |= {"offline": "  generate, in turn", "ratio": "  streamed / generate"}
    return [row(name, lambda run, key=key: three(run["stream"][key])) for key, name in names.items()]


def _together(runs: Sequence[Mapping[str, Any]], row: Callable[..., str], three: Callable[..., str]) -> list[str]:
    """The rows of a batch."""
    size = runs[0]["batch"]["texts"]
    lines = [row(f"{size} texts together, end to end", lambda run: three(run["batch"]["end_to_end"]))]
    lines += [row(f"  {key}", lambda run, key=key: three(run["batch"]["stages"][key])) for key in runs[0]["batch"]["stages"]]
    lines.append(row("  real-time factor", lambda run: three(run["batch"]["real_time_factor"])))
    lines.append(row("  of one alone, in turn", lambda run: three(run["batch"]["one_by_one"])))
    lines.append(row("  together / alone", lambda run: three(run["batch"]["ratio"])))
    return lines
