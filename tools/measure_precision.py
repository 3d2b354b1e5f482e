"""Measures T3 in int8 against float32 of the same build: error of the logits, speed in turn, load time, peak memory.

usage: measure_precision.py CHECKPOINT [--steps N] [--repeat N] [--threads N]

The voice has 50 and 375 prompt tokens in turn, so that the decoder runs around positions 300 and 500. Tokens are forced: both
precisions read the same 100 tokens, and every step's logits are compared. Prints the table of ``docs/precision.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

TOOLS = Path(__file__).resolve().parent
sys.path[:0] = [str(TOOLS.parent / "python"), str(TOOLS)]
PRECISIONS = ("f32", "int8")
TEMPERATURE = 0.8
PREFILLS = {267: (215, 50), 437: (375, 60)}
"""Rows of a prefill: prompt tokens, text ids (and the speaker and the start token)."""
POSITIONS = (300, 500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--load", choices=PRECISIONS, help="only load and print seconds and peak memory")
    options = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)  # read when the pool starts
    if options.load:
        print(json.dumps(load(options.checkpoint, options.load)[1:]))
        return
    from bench_official import cpu

    print(f"{options.threads} threads, {cpu()}")
    for precision in PRECISIONS * 2:
        command = [sys.executable, __file__, str(options.checkpoint), "--load", precision, "--threads", str(options.threads)]
        seconds, megabytes = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        print(f"load {precision:5} {seconds:6.2f} s, peak of the process {megabytes:6.0f} MB")
    decoders = {precision: load(options.checkpoint, precision)[0] for precision in PRECISIONS}
    for rows, (prompt, text) in PREFILLS.items():
        errors(decoders, prompt, text, options.steps, rows)
    speed(decoders, options.repeat)


def load(checkpoint: Path, precision: str):
    """The decoder, the seconds that it took, and the peak memory of this process in MB."""
    from chatterbox_turbo_rs import backends, config
    from chatterbox_turbo_rs.resources import Resources

    resources = Resources(checkpoint, config.for_directory(checkpoint), "cpu", precision)
    started = time.perf_counter()
    decoder = backends.load("t3.decoder", "rust", resources)
    seconds = time.perf_counter() - started
    return decoder, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def inputs(prompt: int, text: int):
    import numpy as np

    random = np.random.default_rng(prompt)
    speaker = random.standard_normal(256).astype(np.float32)
    speaker /= np.linalg.norm(speaker)
    return speaker, random.integers(0, 6561, prompt), random.integers(0, 50_000, text)


def errors(decoders, prompt: int, text: int, steps: int, rows: int) -> None:
    import numpy as np

    forced = np.random.default_rng(7).integers(0, 6561, steps)
    logits = {}
    for precision, decoder in decoders.items():
        session = decoder.start(*inputs(prompt, text), steps)
        found = [session.prefill(), *(session.step(int(token)) for token in forced)]
        logits[precision] = np.array(found, np.float64)

    def log_softmax(x):
        x = x / TEMPERATURE
        x = x - x.max(1, keepdims=True)
        return x - np.log(np.exp(x).sum(1, keepdims=True))

    exact, found = logits["f32"], logits["int8"]
    relative = np.linalg.norm(found - exact, axis=1) / np.linalg.norm(exact, axis=1)
    p, q = log_softmax(exact), log_softmax(found)
    divergence = (np.exp(p) * (p - q)).sum(1)
    same = (exact.argmax(1) == found.argmax(1)).mean()
    entropy = -(np.exp(p) * p).sum(1)
    print(
        f"after {rows} rows, {steps} forced steps: relative error of the logits mean {relative.mean():.4f} max {relative.max():.4f} "
        f"(prefill {relative[0]:.4f}), KL at {TEMPERATURE} mean {divergence.mean():.2e} max {divergence.max():.2e} "
        f"(entropy {entropy.mean():.2f} nats), same best token {same:.1%}"
    )


def speed(decoders, repeat: int) -> None:
    def report(name: str, times: dict[str, list[float]]) -> None:
        ratio = median(a / b for a, b in zip(times["int8"], times["f32"]))
        figures = ", ".join(f"{p} best {1e3 * min(t):.2f} median {1e3 * median(t):.2f} ms" for p, t in times.items())
        print(f"{name}: {figures}, int8 / f32 {ratio:.3f}", flush=True)

    for rows, (prompt, text) in PREFILLS.items():
        times: dict[str, list[float]] = {p: [] for p in decoders}
        for _ in range(repeat):
            for precision, decoder in decoders.items():
                session = decoder.start(*inputs(prompt, text), 1)
                started = time.perf_counter()
                session.prefill()
                times[precision].append(time.perf_counter() - started)
        report(f"prefill {rows} rows", times)
    for position in POSITIONS:
        sessions = {
            p: decoder.start(*inputs(min(position - 82, 375), max(60, position - 397)), 40 + 10 * repeat)
            for p, decoder in decoders.items()
        }
        for session in sessions.values():
            session.prefill()
        times = {p: [] for p in decoders}
        for _ in range(repeat):
            for precision, session in sessions.items():
                started = time.perf_counter()
                for _ in range(5):
                    session.step(9)
                times[precision].append((time.perf_counter() - started) / 5)
        report(f"step near position {position}", times)


if __name__ == "__main__":
    main()
