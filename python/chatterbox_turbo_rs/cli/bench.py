"""``chatterbox-turbo bench``: times of every stage and from end to end, first and later runs, memory.

Every number of threads and every length is measured in a process of its own (``bench/measure.py``). The result is a table, and JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from ..audio.files import whole_file
from ..bench import fresh_process
from ..bench.table import table, threads_of
from ..checkpoint import locate
from ..engine import devices, registry
from ..errors import ArgumentError, ChatterboxError, FileError
from ..progress import on_terminal
from . import streams
from .common import FILE, backends, device, model_option, precision, report_file, revision

MEASURE = "chatterbox_turbo_rs.bench.measure:run"
ATTEMPTS = 8
"""Seeds that are tried until T3's loop reaches the length: random weights stop one time in six thousand tokens."""
MOST_THREADS = 1024
MOST_REPEATS = 1000


@click.command()
@model_option("demo")
@revision
@click.option("--seconds", default="2,10,30", metavar="LIST", help="Lengths of the sound.")
@click.option("--threads", default="1,2", metavar="LIST", help="Numbers of threads.")
@backends
@click.option("--repeat", default="3", metavar="N", help="Runs after the first.")
@click.option("--batch", default="1", metavar="N", help="Also speak N texts together, where it is above 1.")
@click.option("--stream", is_flag=True, help="Also stream the text: when its sound begins, and whether a player would wait.")
@precision
@device
@click.option("--clip", type=FILE, show_default="the packaged one", help="A reference clip of more than 5 s.")
@report_file("json")
def command(
    seconds: str, threads: str, repeat: str, batch: str, stream: bool, clip: Path | None, json_file: Path | None, **asked: Any
) -> None:
    """Time every stage and the whole, in first and later runs, and measure memory."""
    from .. import _core
    from ..bench import measure
    from ..bench.machine import machine
    from ..options import MOST_ROWS

    lengths = numbers("--seconds", seconds, float, measure.SHORTEST, measure.LONGEST)
    counts = numbers("--threads", threads, int, 1, MOST_THREADS)
    (runs_after,) = numbers("--repeat", repeat, int, 1, MOST_REPEATS, count=1)
    (rows,) = numbers("--batch", batch, int, 1, MOST_ROWS, count=1)
    if clip is not None and not clip.is_file():
        raise FileError(f"{clip}: no such file")
    chosen = devices.resolve(asked["device"], asked["precision"], registry.resolve(asked["backends"]))
    _, config = locate.locate(asked["model"], asked["revision"], progress=on_terminal())
    job = {**asked, "device": chosen, "repeat": runs_after, "batch": rows, "stream": stream, "clip": str(clip) if clip else None}
    runs = []
    for count in counts:
        for length in lengths:
            streams.remark(f"{length:g} s on {threads_of(count)}")
            runs.append({"threads": count, **reached({**job, "seconds": length}, count)})
    result = {
        "format": 1,
        "package": _core.build_info()["version"],
        "model": config["name"],
        "device": chosen,
        "precision": asked["precision"],
        "machine": machine(),
        "lengths": measure.LENGTHS,
        "repeat": runs_after,
        "runs": runs,
    }
    text = json.dumps(result, indent=1, allow_nan=False)
    if json_file is not None and str(json_file) != "-":
        with whole_file(json_file) as part:
            part.write_text(f"{text}\n", encoding="utf-8")
    streams.out(text if str(json_file) == "-" else table(result).rstrip("\n"))


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
