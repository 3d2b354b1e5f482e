"""``chatterbox-turbo serve`` as a process: how it starts, refuses to, is stopped, and what is left when it is killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from processes import LIMIT, PROGRAM, ended, refused, started

from chatterbox_turbo_rs import ChatterboxTurbo, Voice
from chatterbox_turbo_rs.audio.encode import pcm

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
LONG = "A sentence of some length stands here. " * 6
KILLS = int(os.environ.get("SERVER_KILLS", "10"))
"""How often a server is killed at work."""


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
        assert ended(process) == (0, "")
        asking.join(LIMIT)
        [whole] = found
        assert whole.content == pcm(toy.generate(LONG, seed=1, max_tokens=200, split="never").samples)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url}/health")


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
        code, err = ended(process)
        assert code == 0 and len(err.splitlines()) == 2, err
        assert "Cancel 1 running task(s)" in err and "without completing response" in err and "Traceback" not in err


@POSIX
def test_a_thread_that_hangs_does_not_keep_it() -> None:
    """What it was at is told."""
    patches = ("engine.open_batch.OpenBatch.close = lambda self: __import__('time').sleep(1000)", "serve.run.STUCK = 0.5")
    imports = "import chatterbox_turbo_rs.serve.run, chatterbox_turbo_rs.engine.open_batch"
    program = "; ".join([imports, *(f"chatterbox_turbo_rs.{patch}" for patch in patches), PROGRAM])
    with started("--drain", 1, program=program) as (process, _):
        process.terminate()
        code, err = ended(process)
        assert code == 1 and "Timeout" in err and "<lambda>" in err and "serve/run.py" in err, err


@POSIX
def test_killed_at_any_moment_it_leaves_whole_voices_alone(toy: ChatterboxTurbo, tmp_path: Path, clip: Path) -> None:
    """Voices are uploaded, taken away, listed and spoken with while it is killed, ``KILLS`` times. What is left can be read, an answer
    that ended well was whole, and the next server goes on with the directory."""
    pick = random.Random(17)
    body = {"input": "Hi.", "seed": 1, "max_tokens": 10, "response_format": "pcm"}
    expected = pcm(toy.generate("Hi.", seed=1, max_tokens=10).samples)
    wrong: list[Any] = []
    kept: list[str] = []
    count: Counter[str] = Counter()
    for turn in range(KILLS):
        with started("--voices", tmp_path, "--precision", "f32") as (process, base):
            there = {path.stem for path in tmp_path.glob("*.safetensors")}
            left = [path for path in tmp_path.iterdir() if path.suffix != ".safetensors"]
            assert {voice["id"] for voice in httpx.get(f"{base}/audio/voices").json()["voices"]} == {"default", *there}
            assert not left, "what the killed server had not finished is taken away"

            def upload(base: str = base, turn: int = turn) -> None:
                for number in range(100):
                    data = {"name": f"voice-{turn}-{number}", "consent": "mine"}
                    sent = httpx.post(f"{base}/audio/voices", data=data, files={"audio_sample": clip.read_bytes()}, timeout=LIMIT)
                    kept.append(data["name"])
                    taken = httpx.delete(f"{base}/audio/voices/voice-{turn}-{number - 1}")
                    if sent.status_code != 201 or taken.status_code != (200 if number else 404):
                        wrong.append((sent.text, taken.text))

            def look(base: str = base, names: frozenset[str] = frozenset(there)) -> None:
                while True:
                    listed = httpx.get(f"{base}/audio/voices")
                    found = {voice["id"] for voice in listed.json()["voices"]}
                    count["lists"] += 1
                    if not names <= found or len(found - names) > 3:
                        wrong.append(listed.text)

            def speak(base: str = base, names: tuple[str, ...] = tuple(sorted(there))) -> None:
                while True:
                    plain = httpx.post(f"{base}/audio/speech", json=body, timeout=LIMIT)
                    count["sounds"] += 1
                    if plain.content != expected:
                        wrong.append(plain.content[:100])
                    for name in names[-1:]:
                        other = httpx.post(f"{base}/audio/speech", json=body | {"voice": name}, timeout=LIMIT)
                        if other.status_code != 200 or not other.content:
                            wrong.append(other.text)

            def until_killed(work: Callable[[], None]) -> None:
                with contextlib.suppress(httpx.TransportError):
                    work()

            clients = [threading.Thread(target=until_killed, args=[work]) for work in (upload, look, speak)]
            for client in clients:
                client.start()
            time.sleep(pick.random() * 2)
            process.kill()
            for client in clients:
                client.join(LIMIT)
                assert not client.is_alive()
        assert not wrong, wrong
        assert not kept or (tmp_path / f"{kept[-1]}.safetensors").exists(), "a voice that was answered with 201 is lost"
        for path in tmp_path.glob("*.safetensors"):
            assert Voice.load(path).metadata["consent"] == "mine"
    assert kept and min(count["lists"], count["sounds"]) > 0, "no server lived long enough to be killed at work"
