"""``chatterbox-turbo say --texts FILE -o DIRECTORY``: every line of a file into a sound file of its own, many decoded together.

Blank lines are left out. ``007.wav`` is line 7. A file is written as soon as its line is spoken, and its sound is not kept; what
went wrong with a line is said at the end, and the exit code is then 1.
"""

from __future__ import annotations

import contextlib
import json
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, ChatterboxError, FileError, TextError, TruncatedSpeechWarning
from ..options import Many
from ..speech import Speech
from . import streams
from .common import load, speaking, writable_directory

DIRECTORY = Path("speech")


def facts(speech: Speech, output: Path) -> dict[str, Any]:
    """What ``--json`` says of every speech."""
    return {
        "output": str(output),
        "seconds": speech.seconds,
        "sample_rate": speech.sample_rate,
        "seed": speech.seed,
        "plan": dict(speech.plan),
        "timings": dict(speech.timings),
        "tokens": len(speech.tokens),
        "finish_reason": speech.finish_reason,
        "watermarked": speech.watermarked,
        "text": speech.text,
        "segments": [asdict(segment) for segment in speech.segments],
    }


def lines_of(path: Path) -> dict[int, str]:
    """The texts of a file (``-``: standard input) by the number of their line; raises ``FileError`` and ``TextError``."""
    name = "standard input" if str(path) == "-" else str(path)
    try:
        data = streams.standard_input() if str(path) == "-" else path.read_bytes()
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}") from None
    lines = enumerate(streams.decoded(name, data).split("\n"), 1)
    texts = {number: line.strip() for number, line in lines if line.strip()}
    if not texts:
        raise TextError(f"{name}: expected a text on each line, found none")
    return texts


def run(bar: streams.Line, path: Path, output: Path | None, batch: int, values: dict[str, Any]) -> int:
    """Speaks and prints; 1 when a line failed."""
    directory = output or DIRECTORY
    if str(directory) == "-":
        raise ArgumentError("--texts: expected -o DIRECTORY, got -")
    texts = lines_of(path)
    writable_directory(directory)
    arguments, as_json = speaking(values), values["as_json"]
    voice, seed = arguments.pop("voice"), arguments.pop("seed")
    Many(texts.values(), voice, seed, batch, "return")  # its check, before a model is loaded
    numbers = list(texts)
    width = max(3, len(str(numbers[-1])))
    warnings.simplefilter("ignore", TruncatedSpeechWarning)  # which counts texts: lines are named at the end
    started = time.perf_counter()
    tts = load(values)
    loaded = time.perf_counter() - started
    seconds, cut, failed, entries = 0.0, [], {}, {}
    started = time.perf_counter()
    spoken = tts.iter_many(texts.values(), voice, seed, batch=batch, errors="return", progress=bar, **arguments)
    with contextlib.closing(spoken):
        for index, result in spoken:
            number = numbers[index]
            file = directory / f"{number:0{width}}.wav"
            try:
                if isinstance(result, ChatterboxError):
                    raise result
                _make(directory)
                result.save(file)
            except ChatterboxError as error:
                failed[number] = str(error)
                entries[number] = {"error": failed[number], "kind": type(error).__name__}
                continue
            seconds += result.seconds
            if result.finish_reason == "length":
                cut.append(number)
            if as_json:
                entries[number] = facts(result, file)
            else:
                with bar.aside():
                    streams.out(f"{file}: {result.seconds:.2f} s, seed {result.seed}")
            del result  # the next one is made while this one would wait
    taken = time.perf_counter() - started
    bar.close()
    if as_json:
        whole = {"seconds": seconds, "real_time_factor": taken / seconds if seconds else None, "load_seconds": loaded}
        lines = [{"line": number, **entries[number]} for number in numbers]
        streams.out(json.dumps({"output": str(directory), "precision": tts.precision, **whole, "texts": lines}))
    else:
        factor = f", real-time factor {taken / seconds:.2f}" if seconds else ""
        count = f"{len(numbers) - len(failed)} of {len(numbers)} texts"
        streams.out(f"{directory}: {count}, {seconds:.2f} s of sound in {taken:.2f} s{factor}")
    if cut:
        limit = arguments["max_tokens"]
        streams.remark(f"{path}: cut off at max_tokens={limit} before the text was over: {_listed(sorted(cut))}")
    for number, message in sorted(failed.items()):
        streams.remark(f"{path}: line {number}: {message}")
    return 1 if failed else 0


def _listed(numbers: list[int]) -> str:
    """The first ten, and how many more there are."""
    more = f" and {len(numbers) - 10} more" if len(numbers) > 10 else ""
    return f"line{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers[:10]))}{more}"


def _make(directory: Path) -> None:
    """Not before there is something to put into it: what is refused leaves nothing behind."""
    try:
        directory.mkdir(exist_ok=True)
    except OSError as error:
        raise FileError(f"{directory}: cannot be written: {error.strerror or error}") from None
