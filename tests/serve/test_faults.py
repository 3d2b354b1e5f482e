"""What the server meets from outside: disks that are full, clocks that jump, recordings of hours, directories that change."""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from processes import LIMIT, started

from chatterbox_turbo_rs import ChatterboxTurbo, Voice
from chatterbox_turbo_rs.audio.encode import pcm

BODY = {"input": "Hi.", "seed": 3, "max_tokens": 10, "response_format": "pcm"}
ROOT = pytest.mark.skipif(
    sys.platform != "linux" or getattr(os, "geteuid", lambda: 1)() != 0, reason="needs root, to mount a small file system"
)


@contextlib.contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own, which is soon full."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("this root may not mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def upload(base: str, clip: bytes, name: str) -> httpx.Response:
    data = {"name": name, "consent": "Spoken by myself."}
    return httpx.post(f"{base}/audio/voices", data=data, files={"audio_sample": ("clip", clip)}, timeout=LIMIT)


def told(answer: httpx.Response, status: int, pattern: str) -> None:
    """It is one error, in OpenAI's shape."""
    error = answer.json()["error"]
    assert answer.status_code == status and set(error) == {"message", "type", "param", "code"}, answer.text
    assert error["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    assert re.search(pattern, error["message"]) and "\n" not in error["message"], answer.text


def names(base: str) -> list[str]:
    return [voice["id"] for voice in httpx.get(f"{base}/audio/voices").json()["voices"]]


def speaks(base: str, toy: ChatterboxTurbo) -> None:
    found = httpx.post(f"{base}/audio/speech", json=BODY, timeout=LIMIT)
    assert found.status_code == 200 and found.content == pcm(toy.generate("Hi.", seed=3, max_tokens=10).samples), found.text
    assert httpx.get(f"{base.removesuffix('/v1')}/health").status_code == 200


@ROOT
def test_a_disk_that_is_full_keeps_no_half_voice(toy: ChatterboxTurbo, tmp_path: Path, clip: Path) -> None:
    sound, most = clip.read_bytes(), 50
    with disk(tmp_path / "disk", "500k") as voices, started("--precision", "f32", "--voices", voices) as (_, base):
        kept = 0
        while (answer := upload(base, sound, f"voice-{kept}")).status_code == 201 and kept < most:
            kept += 1
        told(answer, 500, f"voice-{kept}.safetensors: cannot be written: No space left on device$")
        assert 0 < kept < most
        whole = [f"voice-{number}" for number in range(kept)]
        assert sorted(os.listdir(voices)) == [f"{name}.safetensors" for name in whole] and names(base) == ["default", *whole]
        speaks(base, toy)
        assert httpx.delete(f"{base}/audio/voices/voice-0").status_code == 200, "a voice is taken away to make room"
        assert upload(base, sound, "last").status_code == 201
        assert Voice.load(voices / "last.safetensors").same_arrays(toy.voice(sound))


@ROOT
def test_an_upload_that_does_not_fit_the_temporary_directory_is_refused(toy: ChatterboxTurbo, tmp_path: Path, clip: Path) -> None:
    """A form's file is laid down there beyond 1 MB."""
    with (
        disk(tmp_path / "disk", "2m") as small,
        started("--precision", "f32", "--voices", tmp_path, TMPDIR=str(small)) as (process, base),
    ):
        for _ in range(3):
            told(upload(base, b"\0" * 6_000_000, "anna"), 500, "^body: cannot be kept: No space left on device$")
        form = {"file": ("a.wav", b"\0" * 6_000_000)}
        told(httpx.post(f"{base}/audio/conversions", files=form, timeout=LIMIT), 500, "^body: cannot be kept: No space left")
        assert os.listdir(small) == [] and not list(tmp_path.glob("*.*")) and shutil.disk_usage(small).used == 0
        assert names(base) == ["default"]
        speaks(base, toy)
        assert upload(base, clip.read_bytes(), "anna").status_code == 201
        process.terminate()
        assert process.wait(LIMIT) == 0 and process.stderr is not None
        lines = process.stderr.read().splitlines()
        assert lines == ["chatterbox-turbo: body: cannot be kept: No space left on device"] * 4, "the operator is told"


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource.setrlimit")
def test_files_that_cannot_grow_are_one_error(toy: ChatterboxTurbo, tmp_path: Path, clip: Path) -> None:
    """A limit to the size of files stands for a full disk, where nobody may mount one."""
    with started("--precision", "f32", "--voices", tmp_path, file_size=20_000) as (_, base):
        told(upload(base, clip.read_bytes(), "anna"), 500, "anna.safetensors: cannot be written: File too large$")
        told(upload(base, b"\0" * 3_000_000, "anna"), 500, "^body: cannot be kept: File too large$")
        assert os.listdir(tmp_path) == [] and names(base) == ["default"]
        speaks(base, toy)


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="needs LD_PRELOAD and a C compiler")
def test_a_clock_that_jumps_changes_nothing_but_dates(toy: ChatterboxTurbo, tmp_path: Path, clip: Path, data: Path) -> None:
    """The wall clock of the server goes back an hour, forward a year and to what it was, while it speaks."""
    library, offset, voices = tmp_path / "clock.so", tmp_path / "offset", tmp_path / "voices"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, data / "clock.c"], check=True)
    offset.write_text("0")
    voices.mkdir()
    text = "A sentence of some length stands here. " * 20
    body = {"input": text, "seed": 1, "max_tokens": 60, "response_format": "pcm"}
    expected = pcm(toy.generate(text, seed=1, max_tokens=60).samples)
    arguments = ("--precision", "f32", "--voices", voices, "--batch", 1, "--max-queue", 1)
    with started(*arguments, LD_PRELOAD=str(library), CLOCK_OFFSET=str(offset)) as (process, base):
        url = base.removesuffix("/v1")
        created = httpx.get(f"{base}/models").json()["data"][0]["created"]
        for number, jump in enumerate((-3_600, 365 * 86_400, 0)):
            with httpx.stream("POST", f"{base}/audio/speech", json=body, timeout=LIMIT) as answer:
                parts = answer.iter_bytes()
                sound = next(parts)
                offset.write_text(str(jump))
                assert httpx.get(f"{url}/health").json()["status"] == "ok"
                assert sound + b"".join(parts) == expected
            wait(lambda jump=jump: abs(date(url) - (time.time() + jump)) < 600)  # it does see the other time
            with contextlib.ExitStack() as full:
                endless = {**body, "input": text * 50}
                for _ in range(2):  # one is spoken, the other one waits; nobody reads
                    full.enter_context(socket_of(url, endless))
                wait(lambda: httpx.get(f"{url}/ready").json()["status"] == "full")
                refused = httpx.post(f"{base}/audio/speech", json=BODY)
                assert refused.status_code == 429 and 1 <= int(refused.headers["retry-after"]) <= 120
                assert httpx.get(f"{url}/health").status_code == 200
            wait(lambda: httpx.get(f"{url}/ready").json() == {"status": "ready", "requests": 0})
            made = upload(base, clip.read_bytes(), f"voice-{number}")
            path = voices / f"voice-{number}.safetensors"
            assert made.status_code == 201 and made.json()["created_at"] == int(path.stat().st_mtime)
            kept = datetime.datetime.fromisoformat(Voice.load(path).metadata["created"])
            assert abs(kept.timestamp() - (time.time() + jump)) < 600
            assert httpx.get(f"{base}/models").json()["data"][0]["created"] == created
        figures = httpx.get(f"{url}/metrics").text
        for name in ("first_byte_seconds_sum", "speech_seconds_sum", "stuck_seconds"):
            value = float(re.findall(f"^chatterbox_{name} (.*)$", figures, re.MULTILINE)[0])
            assert 0 <= value < 3_000, (name, value)
        assert 'chatterbox_speech_seconds_bucket{le="+Inf"} 3.0' in figures
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 0 and process.stderr is not None and process.stderr.read() == ""


def date(url: str) -> float:
    """The server's time, as its answers tell it."""
    return email.utils.parsedate_to_datetime(httpx.get(f"{url}/health").headers["date"]).timestamp()


def wait(until: Callable[[], bool]) -> None:
    limit = time.monotonic() + LIMIT
    while not until():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.02)


@contextlib.contextmanager
def socket_of(url: str, body: dict[str, Any]) -> Iterator[socket.socket]:
    """A connection that asks for speech and reads nothing."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=LIMIT) as connection:
        content = json.dumps(body).encode()
        head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content)
        yield connection
