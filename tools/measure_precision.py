"""Measures T3 in int8 and int4 and S3Gen in bf16 against float32 of the same build: error, speed in turn, T3's load time and peak memory.

usage: measure_precision.py CHECKPOINT [--only t3|s3gen] [--steps N] [--repeat N] [--threads N]

T3: the voice has 50 and 375 prompt tokens in turn, so that the decoder runs around positions 300 and 500. Tokens are forced: all
precisions read the same 100 tokens, and every step's logits are compared.
float32 with weights of 20 bits, the default, is compared with plain float32 (``CHATTERBOX_F32=plain``, in a process of its own), and so are int8 and int4.
S3Gen: 250 prompt tokens and 253 generated ones (10 s), so 503 tokens, 1006 frames in the flow and 506 in the vocoder; each stage
gets the float32 result of the one before, and the flow in another row bf16's. Prints the tables of ``docs/precision.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

TOOLS = Path(__file__).resolve().parent
sys.path[:0] = [str(TOOLS.parent / "python"), str(TOOLS)]
PRECISIONS = ("f32", "int8", "int4")
TEMPERATURE = 0.8
PREFILLS = {267: (215, 50), 437: (375, 60)}
"""Rows of a prefill: prompt tokens, text ids (and the speaker and the start token)."""
POSITIONS = (300, 500)
PROMPT, GENERATED = 250, 253
"""Tokens of S3Gen."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--only", choices=("t3", "s3gen"), help="one of the two")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--load", choices=PRECISIONS, help="only load and print seconds and peak memory")
    parser.add_argument("--logits", type=Path, help="only write the logits of f32 into this file")
    options = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)  # read when the pool starts
    if options.load:
        print(json.dumps(load(options.checkpoint, options.load)[1:]))
        return
    if options.logits:
        write_logits(options.checkpoint, options.steps, options.logits)
        return
    from chatterbox_turbo_rs.bench.machine import describe, machine

    print(f"{options.threads} threads, {describe(machine())}")
    if options.only != "t3":
        s3gen(options.checkpoint, options.repeat)
    if options.only == "s3gen":
        return
    for precision in PRECISIONS * 2:
        command = [sys.executable, __file__, str(options.checkpoint), "--load", precision, "--threads", str(options.threads)]
        seconds, megabytes = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        print(f"load {precision:5} {seconds:6.2f} s, peak of the process {megabytes:6.0f} MB")
    decoders = {precision: load(options.checkpoint, precision)[0] for precision in PRECISIONS}
    with tempfile.TemporaryDirectory() as directory:
        plain = Path(directory) / "plain.npz"
        command = [sys.executable, __file__, str(options.checkpoint), "--logits", str(plain), "--steps", str(options.steps)]
        subprocess.run([*command, "--threads", str(options.threads)], check=True, env={**os.environ, "CHATTERBOX_F32": "plain"})
        errors(decoders, plain, options.steps)
    speed(decoders, options.repeat)


def load(checkpoint: Path, precision: str):
    """The decoder, the seconds that it took, and the peak memory of this process in MB."""
    from chatterbox_turbo_rs.checkpoint import config
    from chatterbox_turbo_rs.checkpoint.resources import Resources
    from chatterbox_turbo_rs.engine import registry

    resources = Resources(checkpoint, config.for_directory(checkpoint), "cpu", precision)
    started = time.perf_counter()
    decoder = registry.load("t3.decoder", "rust", resources)
    seconds = time.perf_counter() - started
    return decoder, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def s3gen(checkpoint: Path, repeat: int) -> None:
    import numpy as np

    from chatterbox_turbo_rs import _core
    from chatterbox_turbo_rs.checkpoint import config
    from chatterbox_turbo_rs.checkpoint.resources import Resources
    from chatterbox_turbo_rs.engine import registry

    random = np.random.default_rng(3)
    ids, frames = random.integers(0, 6561, PROMPT + GENERATED), 2 * (PROMPT + GENERATED)
    xvector = random.standard_normal(192).astype(np.float32)
    prompt = (random.standard_normal((2 * PROMPT, 80)) - 5).astype(np.float32)  # about the level of speech
    noise = _core.draws_normals(1, "flow", 0, frames, 80)
    phases = random.uniform(-np.pi, np.pi, 9).astype(np.float32)
    excitation = _core.draws_normals(1, "noise", 0, 480 * 2 * GENERATED, 9)

    stages = {}
    for precision in ("f32", "bf16"):
        resources = Resources(checkpoint, config.for_directory(checkpoint), "cpu", precision)
        stages[precision] = {name: registry.load(f"s3gen.{name}", "rust", resources) for name in ("encoder", "flow", "vocoder")}
    exact, rounded = stages["f32"], stages["bf16"]
    mu = exact["encoder"](ids)
    mel = exact["flow"](mu, xvector, prompt, noise)
    arguments = {"encoder": (ids,), "flow": (mu, xvector, prompt, noise), "vocoder": (mel, phases, excitation)}
    samples = exact["vocoder"](*arguments["vocoder"])
    found = {name: rounded[name](*given) for name, given in arguments.items()}
    both = rounded["flow"](found["encoder"], xvector, prompt, noise)

    def report(name: str, found, exact) -> None:
        found, exact = found.astype(np.float64), exact.astype(np.float64)
        relative = np.linalg.norm(found - exact) / np.linalg.norm(exact)
        print(
            f"{name}: largest error {np.abs(found - exact).max():.4f} of {np.abs(exact).max():.3f}, relative rms {relative:.5f}"
        )

    report("encoder, mu", found["encoder"], mu)
    report("flow, mel of the same mu", found["flow"], mel)
    report("flow, mel of bf16's mu", both, mel)
    report("vocoder, samples of the same mel", found["vocoder"], samples)
    # another mel has another frequency, and so in time another phase: compared with the same excitation
    source = exact["vocoder"].source(exact["vocoder"].f0(mel), phases, excitation)
    plain = exact["vocoder"].samples_from_source(mel, source)
    chained = rounded["vocoder"].samples_from_source(both, source)
    report("vocoder, samples of bf16's mel and the same excitation", chained, plain)
    print(f"f0 of bf16's mel: median error {np.median(np.abs(exact['vocoder'].f0(both) - exact['vocoder'].f0(mel))):.4f} Hz")
    for name, a, b in (("the same mel", found["vocoder"], samples), ("bf16's mel and the same excitation", chained, plain)):
        gaps = decibels(a) - decibels(b)
        print(f"vocoder, spectrum of {name}: rms {np.sqrt((gaps**2).mean()):.3f} dB, median {np.median(np.abs(gaps)):.3f} dB")
    for name, given in arguments.items():
        times: dict[str, list[float]] = {precision: [] for precision in stages}
        cpu: dict[str, list[float]] = {precision: [] for precision in stages}
        for _ in range(repeat):
            for precision, loaded in stages.items():
                started, busy = time.perf_counter(), time.process_time()
                loaded[name](*given)
                times[precision].append(time.perf_counter() - started)
                cpu[precision].append(time.process_time() - busy)
        ratios = [median(a / b for a, b in zip(of["bf16"], of["f32"])) for of in (times, cpu)]
        figures = ", ".join(
            f"{p} best {1e3 * min(t):.0f} median {1e3 * median(t):.0f} ms, busy {1e3 * min(cpu[p]):.0f} ms"
            for p, t in times.items()
        )
        print(f"{name}: {figures}, bf16 / f32 {ratios[0]:.3f}, busy {ratios[1]:.3f}", flush=True)


def decibels(samples):
    """Of frames of 1024 samples, above -100 dB."""
    import numpy as np

    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), 1024)[::256]
    return 20 * np.log10(np.abs(np.fft.rfft(frames * np.hanning(1024))) + 1e-5)


def inputs(prompt: int, text: int):
    import numpy as np

    random = np.random.default_rng(prompt)
    speaker = random.standard_normal(256).astype(np.float32)
    speaker /= np.linalg.norm(speaker)
    return speaker, random.integers(0, 6561, prompt), random.integers(0, 50_000, text)


def logits_of(decoder, prompt: int, text: int, steps: int):
    import numpy as np

    forced = np.random.default_rng(7).integers(0, 6561, steps)
    session = decoder.start(*inputs(prompt, text), steps)
    return np.array([session.prefill(), *(session.step(int(token)) for token in forced)], np.float64)


def write_logits(checkpoint: Path, steps: int, file: Path) -> None:
    import numpy as np

    decoder = load(checkpoint, "f32")[0]
    np.savez(file, **{str(rows): logits_of(decoder, *given, steps) for rows, given in PREFILLS.items()})


def errors(decoders, plain: Path, steps: int) -> None:
    import numpy as np

    with np.load(plain) as exact:
        for rows, given in PREFILLS.items():
            for precision, decoder in decoders.items():
                compare(
                    f"{precision} after {rows} rows, {steps} forced steps", exact[str(rows)], logits_of(decoder, *given, steps)
                )


def compare(title: str, exact, found) -> None:
    import numpy as np

    def log_softmax(x):
        x = x / TEMPERATURE
        x = x - x.max(1, keepdims=True)
        return x - np.log(np.exp(x).sum(1, keepdims=True))

    relative = np.linalg.norm(found - exact, axis=1) / np.linalg.norm(exact, axis=1)
    p, q = log_softmax(exact), log_softmax(found)
    divergence = (np.exp(p) * (p - q)).sum(1)
    same = (exact.argmax(1) == found.argmax(1)).mean()
    entropy = -(np.exp(p) * p).sum(1)
    print(
        f"{title}: relative error of the logits mean {relative.mean():.2g} max {relative.max():.2g} "
        f"(prefill {relative[0]:.2g}), KL at {TEMPERATURE} mean {divergence.mean():.2e} max {divergence.max():.2e} "
        f"(entropy {entropy.mean():.2f} nats), same best token {same:.1%}"
    )


def speed(decoders, repeat: int) -> None:
    def report(name: str, times: dict[str, list[float]]) -> None:
        pairs = (("int8", "f32"), ("int4", "f32"), ("int4", "int8"))
        ratios = ", ".join(f"{a} / {b} {median(x / y for x, y in zip(times[a], times[b])):.3f}" for a, b in pairs)
        figures = ", ".join(f"{p} best {1e3 * min(t):.2f} median {1e3 * median(t):.2f} ms" for p, t in times.items())
        print(f"{name}: {figures}, {ratios}", flush=True)

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
