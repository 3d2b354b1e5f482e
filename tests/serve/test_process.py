"""``chatterbox-turbo serve`` as a process: how it starts, refuses to, is stopped, and what is left when it is killed."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from toy_model import TOY

from chatterbox_turbo_rs import ChatterboxTurbo, Voice
from chatterbox_turbo_rs.audio.encode import pcm

LIMIT = 120
PROGRAM = "import sys; from chatterbox_turbo_rs.cli.main import main; sys.exit(main(sys.argv[1:]))"
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
LONG = "A sentence of some length stands here. " * 6


def command(*arguments: object, **more: Any) -> subprocess.Popen[str]:
    line = [sys.executable, "-c", PROGRAM, "serve", "--model", TOY, *map(str, arguments)]
    environment = {key: value for key, value in os.environ.items() if key != "CHATTERBOX_API_KEY"} | more
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@contextlib.contextmanager
def started(*arguments: object, **more: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server that listens, and its base URL."""
    with command("--port", 0, *arguments, **more) as process:
        try:
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
            yield process, found[1]
        finally:
            process.kill()


def refused(code: int, pattern: str, *arguments: object, **more: Any) -> None:
    process = command(*arguments, **more)
    out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, out) == (code, "") and re.fullmatch(f"chatterbox-turbo[^\n]*{pattern}[^\n]*\n", err), err


def test_it_does_not_listen_to_others_without_a_key() -> None:
    refused(2, "--host 0.0.0.0: .* expected --api-key", "--host", "0.0.0.0")
    refused(2, "api_key: expected printable ASCII", "--host", "0.0.0.0", "--api-key", "käse")
    with started("--host", "0.0.0.0", CHATTERBOX_API_KEY="sesame") as (_, base):
        assert httpx.get(f"{base}/models".replace("0.0.0.0", "127.0.0.1")).status_code == 401
    with started("--host", "0.0.0.0", "--no-key") as (_, base):
        assert httpx.get(f"{base}/models".replace("0.0.0.0", "127.0.0.1")).status_code == 200


def test_what_keeps_it_from_starting_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused(1, "cannot listen there", "--port", taken.getsockname()[1])
    refused(1, "cannot listen there", "--host", "203.0.113.7", "--no-key")
    refused(1, "expected a directory", "--voices", tmp_path / "nothing", "--port", 0)
    refused(2, "batch: expected", "--batch", 0)
    refused(2, "--port", "--port", 70_000)


@POSIX
def test_two_servers_share_a_directory_of_voices(tmp_path: Path, clip: Path) -> None:
    with started("--voices", tmp_path) as (_, first), started("--voices", tmp_path) as (_, second):
        files = {"audio_sample": clip.read_bytes()}
        made = [
            httpx.post(f"{base}/audio/voices", data={"name": "anna", "consent": "mine"}, files=files, timeout=LIMIT).status_code
            for base in (first, second)
        ]
        assert made == [201, 409]
        body = {"input": "Hi.", "voice": "anna", "seed": 1, "max_tokens": 10, "response_format": "pcm"}
        sounds = {httpx.post(f"{base}/audio/speech", json=body, timeout=LIMIT).content for base in (first, second)}
        assert len(sounds) == 1 and sounds.pop()


@POSIX
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_has_it_finish_what_runs_and_end_well(toy: ChatterboxTurbo, number: signal.Signals) -> None:
    with started("--precision", "f32") as (process, base):
        body = {"input": LONG, "seed": 1, "response_format": "pcm", "max_tokens": 200, "split": "never"}
        found: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: found.append(httpx.post(f"{base}/audio/speech", json=body, timeout=LIMIT)))
        asking.start()
        url = base.removesuffix("/v1")
        while httpx.get(f"{url}/ready").json()["requests"] == 0 and asking.is_alive():
            time.sleep(0.005)
        process.send_signal(number)
        assert process.wait(LIMIT) == 0
        asking.join(LIMIT)
        [whole] = found
        assert whole.content == pcm(toy.generate(LONG, seed=1, max_tokens=200, split="never").samples)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url}/health")
        assert process.stderr is not None and process.stderr.read() == ""


@POSIX
def test_what_takes_too_long_is_not_waited_for() -> None:
    with started("--drain", 1) as (process, base):
        body = {"input": LONG * 200, "seed": 1, "response_format": "pcm"}
        with httpx.stream("POST", f"{base}/audio/speech", json=body, timeout=LIMIT) as answer:
            parts = answer.iter_bytes()
            next(parts)
            process.terminate()
            with pytest.raises(httpx.TransportError):
                for _ in parts:
                    pass
        assert process.wait(LIMIT) == 0


@POSIX
def test_killed_at_any_moment_it_leaves_whole_voices_alone(tmp_path: Path, clip: Path) -> None:
    """Voices are uploaded and taken away while it is killed, ten times: what is left can be read, and the next server goes on with it."""
    pick = random.Random(17)
    for turn in range(10):
        with started("--voices", tmp_path) as (process, base):
            seen = {voice["id"] for voice in httpx.get(f"{base}/audio/voices").json()["voices"]}
            assert seen == {"default", *(path.stem for path in tmp_path.glob("*.safetensors"))}
            assert not list(tmp_path.glob(".*.part"))

            def upload(base: str = base, turn: int = turn) -> None:
                with contextlib.suppress(httpx.TransportError):
                    for number in range(3):
                        data = {"name": f"voice-{turn}-{number}", "consent": "mine"}
                        httpx.post(f"{base}/audio/voices", data=data, files={"audio_sample": clip.read_bytes()}, timeout=LIMIT)
                        httpx.delete(f"{base}/audio/voices/voice-{turn}-{number - 1}")

            client = threading.Thread(target=upload)
            client.start()
            time.sleep(pick.random() * 2)
            process.kill()
            client.join(LIMIT)
        for path in tmp_path.glob("*.safetensors"):
            assert Voice.load(path).metadata["consent"] == "mine"
