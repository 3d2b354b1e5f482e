"""``chatterbox-turbo say --stream``: sound into a pipe or a file while it is made."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..audio.encode import Encoder, pcm, wav_header
from ..audio.files import whole_file
from ..constants import SAMPLE_RATE
from ..errors import ArgumentError
from ..options import seed_of
from . import streams
from .common import given, load, speaking, target

if TYPE_CHECKING:
    from ..options import Latency

Write = Callable[[np.ndarray], object]


def run(
    bar: streams.Line,
    text: str,
    output: Path,
    form: str | None,
    latency: Latency,
    values: dict[str, Any],
    remark: Callable[[], str] | None,
) -> int:
    """Speaks ``text`` (``-``: standard input) into ``output`` (``-``: standard output) chunk by chunk, and says how; 0."""
    form = target(output, form)
    piped = str(output) == "-"
    if piped and form not in ("wav", "pcm"):
        raise ArgumentError(f"--format: expected wav or pcm with --stream -o -, got {form}")
    arguments = speaking(values)
    arguments["seed"] = seed_of(arguments["seed"])
    text = given(text)
    started = time.perf_counter()
    tts = load(values)
    loaded = time.perf_counter() - started
    started, first, last = time.perf_counter(), 0.0, None
    with _pipe(form) if piped else _file(output, form) as write:
        with contextlib.closing(tts.stream(text, latency=latency, progress=bar, **arguments)) as chunks:
            for chunk in chunks:
                write(chunk.samples)  # not beside the bar: the reader may let this wait, and the work draws the bar
                first = first or time.perf_counter() - started
                last = chunk
    taken = time.perf_counter() - started
    bar.close()
    assert last is not None  # no text is without sound
    facts = {
        "output": str(output),
        "seconds": last.seconds,
        "sample_rate": SAMPLE_RATE,
        "seed": arguments["seed"],
        "latency": latency,
        "first_sound_seconds": first,
        "finish_reason": last.finish_reason,
        "watermarked": arguments["watermark"] is not None,
        "precision": tts.precision,
        "load_seconds": loaded,
        "real_time_factor": taken / last.seconds,
        "remark": remark() if remark else None,
    }
    line = f"{output}: {last.seconds:.2f} s of sound in {taken:.2f} s, the first after {first:.2f} s, "
    line += f"real-time factor {facts['real_time_factor']:.2f}, seed {facts['seed']}"
    report = json.dumps(facts) if values["as_json"] else "\n".join([line, *([facts["remark"]] if remark else [])])
    streams.out(report, sys.stderr if piped else None)
    return 0


@contextlib.contextmanager
def _pipe(form: str) -> Iterator[Write]:
    """Writes to standard output; whoever reads there has every chunk at once."""

    def write(data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()

    if form == "wav":
        write(wav_header(SAMPLE_RATE))
    yield lambda samples: write(pcm(samples))


@contextlib.contextmanager
def _file(output: Path, form: str) -> Iterator[Write]:
    """Writes a file that is there, whole, when the last sample is."""
    with whole_file(output) as temporary, open(temporary, "w+b") as file:
        with Encoder(file, SAMPLE_RATE, form) as encoder:
            yield encoder.write
