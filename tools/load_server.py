"""Many clients at a server, some of which break off or read slowly: how long they wait, what memory does, and that nothing is lost.

usage: load_server.py [--clients 200] [--requests 2000] [--gone 0.2] [--slow 0.05] [--plot memory.png] [--json report.json] [-- SERVE OPTIONS]

Starts ``chatterbox-turbo serve`` of the embedded model with the options behind ``--`` (``--plot`` needs matplotlib; memory is read as Linux tells it). Every client asks for one sentence after the other and
comes again after ``Retry-After`` where the queue is full. Every answer that was read to its end is compared with the first one of the same
sentence and seed: other bytes, a missing end, or another status than 200 and 429 is a loss, and the exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

SENTENCES = (
    "Hello there.",
    "How are you today?",
    "The train leaves at nine, from platform two.",
    "Nobody had come, and nobody would.",
    "It was late. The rain had stopped, and the street was empty.",
)
SEEDS = 4
"""Of every sentence: answers can be compared."""
READ, PAUSE = 4_096, 0.05
"""Bytes that a slow reader takes at a time, and the seconds between."""


class Load:
    """What the clients do, and what came of it."""

    def __init__(self, base: str, options: argparse.Namespace) -> None:
        self.base, self.options = base, options
        self.pick = random.Random(1)
        self.left = options.requests
        self.first: list[float] = []
        self.whole: list[float] = []
        self.counts = {"whole": 0, "gone": 0, "slow": 0, "come again": 0}
        self.lost: list[str] = []
        self.digests: dict[tuple[str, int], str] = {}

    async def client(self, session: httpx.AsyncClient) -> None:
        """One after the other, until there are no more."""
        while self.left > 0:
            self.left -= 1
            begun = self.options.requests - self.left
            if begun % 200 == 0:
                print(f"{begun} requests begun, {self.counts}", file=sys.stderr, flush=True)
            await self.ask(session)

    async def ask(self, session: httpx.AsyncClient) -> None:
        text, seed = self.pick.choice(SENTENCES), self.pick.randrange(SEEDS)
        goes, slow = self.pick.random() < self.options.gone, self.pick.random() < self.options.slow
        patience = self.pick.random() * 2
        body = {"input": text, "seed": seed, "response_format": "pcm"}
        while True:
            started = time.monotonic()
            try:
                async with session.stream("POST", f"{self.base}/audio/speech", json=body) as answer:
                    if answer.status_code == 429:
                        self.counts["come again"] += 1
                        await answer.aread()
                        await asyncio.sleep(float(answer.headers["retry-after"]) * self.pick.uniform(0.5, 1.5))
                        continue
                    if answer.status_code != 200:
                        self.lost.append(f"{answer.status_code}: {(await answer.aread())[:200]!r}")
                        return
                    await self.read(answer, text, seed, started, patience if goes else None, slow)
                    return
            except httpx.HTTPError as error:
                self.lost.append(f"{type(error).__name__}: {error}")
                return

    async def read(
        self, answer: httpx.Response, text: str, seed: int, started: float, patience: float | None, slow: bool
    ) -> None:
        digest, length = hashlib.sha256(), 0
        async for part in answer.aiter_raw(READ if slow else None):
            if not length:
                self.first.append(time.monotonic() - started)
            digest.update(part)
            length += len(part)
            if patience is not None:  # and hangs up in the middle
                await asyncio.sleep(patience * 0.1)
                self.counts["gone"] += 1
                return
            if slow:
                await asyncio.sleep(PAUSE)
        self.whole.append(time.monotonic() - started)
        self.counts["slow" if slow else "whole"] += 1
        if self.digests.setdefault((text, seed), digest.hexdigest()) != digest.hexdigest() or not length:
            self.lost.append(f"other bytes for {text!r}, seed {seed}: {length}")

    async def run(self) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(timeout=600, limits=limits) as session:
            await asyncio.gather(*(self.client(session) for _ in range(self.options.clients)))


class Memory(threading.Thread):
    """Resident memory of a process, every half a second."""

    def __init__(self, number: int) -> None:
        super().__init__(daemon=True)
        self.path = Path(f"/proc/{number}/status")
        self.seen: list[tuple[float, float]] = []
        self.over = threading.Event()

    def run(self) -> None:
        started = time.monotonic()
        while not self.over.wait(0.5):
            found = re.search(r"VmRSS:\s+(\d+) kB", self.path.read_text())
            if found:
                self.seen.append((time.monotonic() - started, int(found[1]) / 1024))


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50, p95 and p99."""
    ordered = sorted(seconds)
    return {f"p{p}": round(ordered[min(len(ordered) * p // 100, len(ordered) - 1)], 3) for p in (50, 95, 99)} if ordered else {}


def plot(seen: list[tuple[float, float]], path: Path) -> None:
    """Memory over time, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4))
    axes.plot([at for at, _ in seen], [megabytes for _, megabytes in seen])
    axes.set(xlabel="seconds", ylabel="resident memory of the server, MB", ylim=(0, None))
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--gone", type=float, default=0.2, help="share of the requests that are given up midway")
    parser.add_argument("--slow", type=float, default=0.05, help="share that reads slowly")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("serve", nargs="*", help="options of chatterbox-turbo serve")
    options = parser.parse_args(arguments)
    program = "import sys; from chatterbox_turbo_rs.cli.main import main; sys.exit(main(sys.argv[1:]))"
    line = [sys.executable, "-c", program, "serve", "--model", "demo", "--port", "0", *options.serve]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        base = server.stdout.readline().split()[-1]
        time.sleep(1)
        memory, load = Memory(server.pid), Load(base, options)
        memory.start()
        started = time.monotonic()
        asyncio.run(load.run())
        taken = time.monotonic() - started
        figures = httpx.get(base.removesuffix("/v1") + "/metrics").text
        health = httpx.get(base.removesuffix("/v1") + "/health").json()
        memory.over.set()
        server.terminate()
        code = server.wait(60)
    sound = float(re.findall(r"^chatterbox_sound_seconds_total (\S+)", figures, re.MULTILINE)[0])
    here = float(re.findall(r"^chatterbox_requests_here (\S+)", figures, re.MULTILINE)[0])
    settled = [megabytes for at, megabytes in memory.seen if at > memory.seen[-1][0] / 4]
    half = len(settled) // 2
    report: dict[str, Any] = {
        "clients": options.clients,
        "requests": options.requests,
        "seconds": round(taken, 1),
        "counts": load.counts,
        "first byte": percentiles(load.first),
        "whole": percentiles(load.whole),
        "seconds of sound a second": round(sound / taken, 2),
        "memory, MB": {
            "second quarter": round(sum(settled[:half]) / max(half, 1)),
            "last": round(sum(settled[half:]) / max(len(settled) - half, 1)),
            "most": round(max(settled)),
        },
        "requests left in the server": here,
        "health": health["status"],
        "exit code of the server": code,
        "lost": len(load.lost),
        "losses": load.lost[:10],
    }
    if options.plot:
        plot(memory.seen, options.plot)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))
    return 0 if not load.lost and code == 0 and here == 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
