"""``chatterbox-turbo serve`` as a process of its own, for tests of what happens to it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
from toy_model import TOY

LIMIT = 120
PROGRAM = "import sys; from chatterbox_turbo_rs.cli.main import main; sys.exit(main(sys.argv[1:]))"


def command(*arguments: object, file_size: int | None = None, program: str = PROGRAM, **more: Any) -> subprocess.Popen[str]:
    """``more`` are variables of its environment; no file that it writes may have more than ``file_size`` bytes."""

    def limited() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

    line = [sys.executable, "-X", "faulthandler", "-c", program, "serve", "--model", TOY, *map(str, arguments)]
    environment = {key: value for key, value in os.environ.items() if key != "CHATTERBOX_API_KEY"} | more
    before = None if file_size is None else limited  # Python itself ignores SIGXFSZ, so that a write fails as on a full disk
    pipe = subprocess.PIPE
    return subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, env=environment, preexec_fn=before)


def listening(process: subprocess.Popen[str]) -> str:
    """The base URL of a server, as soon as it answers."""
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(r"serving toy on (http://\S+/v1)\n", line)
    assert found, (line, process.stderr.read() if process.stderr else "")
    limit = time.monotonic() + LIMIT
    while time.monotonic() < limit:
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"{found[1]}/models")
            break
        time.sleep(0.02)
    return found[1]


@contextlib.contextmanager
def started(*arguments: object, **more: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server that listens, and its base URL."""
    with command("--port", 0, *arguments, **more) as process:
        try:
            yield process, listening(process)
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code of one that was told to end, and its stderr; of one that hangs, what its threads are at."""
    try:
        process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
    err = process.communicate()[1]
    return process.returncode, err


def refused(code: int, pattern: str, *arguments: object, **more: Any) -> None:
    """It does not start, and says why in one line."""
    process = command(*arguments, **more)
    out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, out) == (code, "") and re.fullmatch(f"chatterbox-turbo[^\n]*{pattern}[^\n]*\n", err), err
