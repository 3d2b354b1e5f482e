"""What the time of each network stage goes into: matrix products, element-wise work, memory, or something else.

usage: profile_stages.py LIBRARY CHECKPOINT [--precision auto] [--seconds 10] [--threads N] [--stages KEY,…] [--functions N]

A process loops over one stage while Linux's ``perf`` samples it (``cpu-clock``, so that no hardware counter is needed; Debian's
``linux-perf``). Functions are told apart by the module they come from: a kernel's file says what it does. LIBRARY is the core
with the names of its functions, which wheels do not have: ``cargo build --profile profiling``.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python" / "chatterbox_turbo_rs"
CLIP = ROOT / "tests" / "data" / "clips" / "long.flac"
STAGES = ("t3.prefill", "t3.step", "s3gen.encoder", "s3gen.flow", "s3gen.vocoder", "voice")
SECONDS = 6
"""How long each stage is sampled."""

KINDS = {
    "matrix": r"tiles|gemm|matmul|panels|int8::|int4::|bf16|block_float|amx|attention::product|heads|depthwise|conv2d|lstm",
    "attention over the cache": r"half_cache|float_cache|kv_cache",
    "element-wise": r"elementwise|norm::|maths|snake|rotary|affine|softmax|fft|stft|source|spectrum|exp|sin|tanh|log|draws",
    "memory": r"mem(cpy|set|move)|page|clear_|copy|alloc|free|munmap|mmap|madvise|conv1d::lay|scratch|zap_|fault|lru|cgroup|folio",
    "waiting": r"rayon|crossbeam|sched|futex|yield|syscall|idle|barrier|spin|park",
}
"""Kind of work → what the names of its functions contain; the first that fits."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the sound (default: 10)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--stages", default=",".join(STAGES), metavar="LIST", help=f"of {', '.join(STAGES)}")
    parser.add_argument("--functions", type=int, default=0, metavar="N", help="the N functions that take most, too")
    parser.add_argument("--loop", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop:
        loop(options)
    if shutil.which("perf") is None:
        parser.exit(2, f"{parser.prog}: perf: not found (Debian: apt-get install linux-perf)\n")
    if not options.library.is_file():
        parser.exit(2, f"{parser.prog}: {options.library}: no such file\n")
    unknown = set(asked := options.stages.split(",")) - set(STAGES)
    if unknown:
        parser.exit(2, f"{parser.prog}: --stages: expected {', '.join(STAGES)}, got {', '.join(sorted(unknown))}\n")
    print(f"{options.threads} threads, precision {options.precision}, {options.seconds:g} s of sound; shares of the samples in %")
    print(f"{'stage':16}" + "".join(f"{kind:>26}" for kind in (*KINDS, "other")))
    for stage in asked:
        shares, functions = profile(options, stage)
        print(f"{stage:16}" + "".join(f"{shares[kind]:26.1f}" for kind in (*KINDS, "other")), flush=True)
        for share, name in functions[: options.functions]:
            print(f"{share:10.1f}  {kind_of(name):26}{name[:110]}")
    return 0


def profile(options: argparse.Namespace, stage: str) -> tuple[dict[str, float], list[tuple[float, str]]]:
    """Shares by kind, and the functions, largest first."""
    command = [sys.executable, __file__, str(options.library), str(options.checkpoint), "--loop", stage]
    command += ["--precision", options.precision, "--seconds", str(options.seconds)]
    with tempfile.TemporaryDirectory() as directory:
        data = str(Path(directory) / "perf.data")
        package = Path(directory) / PACKAGE.name
        package.mkdir()
        for entry in PACKAGE.iterdir():
            if not entry.name.startswith("_core.abi3"):
                (package / entry.name).symlink_to(entry)
        shutil.copy(options.library, package / "_core.abi3.so")
        environment = {**os.environ, "RAYON_NUM_THREADS": str(options.threads), "PYTHONPATH": directory}
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            assert child.stdout is not None
            if child.stdout.readline().strip() != "ready":
                raise SystemExit(f"{stage}: the process ended before the stage ran")
            record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "999", "-p", str(child.pid), "-o", data, "--", "sleep"]
            subprocess.run([*record, str(SECONDS)], check=True, capture_output=True)
        finally:
            child.kill()
            child.wait()
        report = ["perf", "report", "-i", data, "--stdio", "--no-children", "--sort", "symbol", "-q"]
        text = subprocess.run(report, check=True, capture_output=True, text=True).stdout
    functions = [(float(share), name) for share, name in re.findall(r"^\s*([\d.]+)%\s+\[[.k]\]\s+(.+?)\s*$", text, re.M)]
    shares: dict[str, float] = defaultdict(float)
    for share, name in functions:
        shares[kind_of(name)] += share
    return shares, functions


def kind_of(name: str) -> str:
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name)), "other")


def loop(options: argparse.Namespace) -> None:
    """Says that it is ready and runs the stage until it is killed."""
    calls = prepared(options)
    next(calls)
    print("ready", flush=True)
    for _ in calls:
        pass


def prepared(options: argparse.Namespace) -> Iterator[Any]:
    """Runs ``options.loop`` for ever, on inputs as the pipeline makes them."""
    import numpy as np

    from chatterbox_turbo_rs import ChatterboxTurbo
    from chatterbox_turbo_rs.bench import measure
    from chatterbox_turbo_rs.engine import draws

    tts = ChatterboxTurbo.from_pretrained(options.checkpoint, precision=options.precision, backends="rust", progress=False)
    voice, config, random = tts.voice(CLIP), tts.config["s3gen"], np.random.default_rng(1)
    stage: Callable[[str], Any] = lambda key: tts._pipeline.stage(key, "rust")  # noqa: E731
    if options.loop == "voice":
        while True:
            yield tts.voice(CLIP)
    if options.loop.startswith("t3"):
        text = stage("text.tokenize")(stage("text.normalize")(measure.text_of(options.seconds)))
        room = measure.tokens_of(options.seconds)
        while True:
            session = stage("t3.decoder").start(voice.speaker_embedding, voice.t3_prompt_tokens, text, room)
            session.prefill()
            if options.loop == "t3.prefill":
                yield
                continue
            for token in random.integers(0, config["vocab"], room):
                yield session.step(int(token))
    ids = np.concatenate([voice.s3gen_prompt_tokens, random.integers(0, config["vocab"], measure.tokens_of(options.seconds))])
    mu = stage("s3gen.encoder")(ids)
    noise = draws.normals(1, draws.FLOW, 0, len(mu), config["mels"])
    mel = stage("s3gen.flow")(mu, voice.xvector, voice.s3gen_prompt_mel, noise)
    harmonics = config["vocoder"]["harmonics"] + 1
    inputs = {
        "s3gen.encoder": (ids,),
        "s3gen.flow": (mu, voice.xvector, voice.s3gen_prompt_mel, noise),
        "s3gen.vocoder": (mel, draws.phases(1, harmonics), draws.normals(1, draws.NOISE, 0, 480 * len(mel), harmonics)),
    }
    while True:
        yield stage(options.loop)(*inputs[options.loop])


if __name__ == "__main__":
    sys.exit(main())
