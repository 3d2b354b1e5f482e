"""``chatterbox-turbo say --texts FILE -o DIRECTORY``: every line of a file into a sound file of its own, many decoded together.

Blank lines are left out. ``007.wav`` is line 7. A file is written as soon as its line is spoken; what went wrong with a line is
said at the end, and the exit code is then 2.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ChatterboxError, FileError, TextError
from ..progress import Bar
from ..speech import Speech

DIRECTORY = Path("speech")


def decoded(name: str, data: bytes) -> str:
    """UTF-8 text; raises ``TextError`` that names where it came from."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TextError(f"{name}: expected UTF-8, found byte 0x{error.object[error.start]:02x} at {error.start}") from None


def lines_of(path: Path) -> dict[int, str]:
    """The texts of a file (``-``: standard input) by the number of their line; raises ``FileError`` and ``TextError``."""
    name = "standard input" if str(path) == "-" else str(path)
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}") from None
    lines = decoded(name, data.removeprefix(b"\xef\xbb\xbf")).split("\n")
    texts = {number: line.strip() for number, line in enumerate(lines, 1) if line.strip()}
    if not texts:
        raise TextError(f"{name}: expected a text on each line, found none")
    return texts


def directory_for(path: Path) -> None:
    """Raises ``FileError`` when ``path`` is no directory and cannot become one, or cannot be written into."""
    if path.exists() and not path.is_dir():
        raise FileError(f"{path}: expected a directory, found a file")
    parent = path if path.is_dir() else path.parent
    if not parent.is_dir():
        raise FileError(f"{path}: cannot be written: no directory {parent}")
    if not os.access(parent, os.W_OK):
        raise FileError(f"{path}: cannot be written: no permission to write into {parent}")


def run(options: argparse.Namespace, bar: Bar, load: Callable[[], Any], speaking: dict[str, Any]) -> int:
    """Speaks and prints; ``speaking`` are the keyword arguments that ``generate`` would have. 2 when a line failed."""
    texts = lines_of(options.texts)
    directory = options.output or DIRECTORY
    directory_for(directory)
    started = time.perf_counter()
    tts = load()
    loaded = time.perf_counter() - started
    directory.mkdir(exist_ok=True)
    numbers = list(texts)
    width = max(3, len(str(numbers[-1])))
    files = [directory / f"{number:0{width}}.wav" for number in numbers]

    def save(index: int, result: Speech | ChatterboxError) -> None:
        if isinstance(result, Speech):
            result.save(files[index])

    voice, seed = speaking.pop("voice"), speaking.pop("seed")
    started = time.perf_counter()
    results = tts.generate_many(
        texts.values(), voice, seed, batch=options.batch, errors="return", finished=save, progress=bar, **speaking
    )
    taken = time.perf_counter() - started
    bar.close()
    seconds = sum(result.seconds for result in results if isinstance(result, Speech))
    failed = [(number, result) for number, result in zip(numbers, results) if isinstance(result, ChatterboxError)]
    if options.json:
        entries = [_entry(*row) for row in zip(numbers, files, results)]
        whole = {"seconds": seconds, "real_time_factor": taken / seconds if seconds else None, "load_seconds": loaded}
        print(json.dumps({"output": str(directory), "precision": tts.precision, **whole, "texts": entries}))
    else:
        for file, result in zip(files, results):
            if isinstance(result, Speech):
                print(f"{file}: {result.seconds:.2f} s, seed {result.seed}")
        factor = f", real-time factor {taken / seconds:.2f}" if seconds else ""
        print(
            f"{directory}: {len(results) - len(failed)} of {len(results)} texts, {seconds:.2f} s of sound in {taken:.2f} s{factor}"
        )
    for number, error in failed:
        print(f"chatterbox-turbo: {options.texts}: line {number}: {' '.join(str(error).split())}", file=sys.stderr)
    return 2 if failed else 0


def _entry(number: int, file: Path, result: Speech | ChatterboxError) -> dict[str, Any]:
    if isinstance(result, ChatterboxError):
        return {"line": number, "error": str(result), "kind": type(result).__name__}
    return {
        "line": number,
        "output": str(file),
        "seconds": result.seconds,
        "sample_rate": result.sample_rate,
        "seed": result.seed,
        "plan": dict(result.plan),
        "timings": dict(result.timings),
        "tokens": len(result.tokens),
        "watermarked": result.watermarked,
        "text": result.text,
    }
