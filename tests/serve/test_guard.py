"""Who may ask and what may be sent: keys, hosts, origins, bodies of any size and shape, clients that break off."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from servers import Served, serving

from chatterbox_turbo_rs import ChatterboxTurbo

LIMIT = 60
JSON = "Content-Type: application/json\r\n"
SHORT = json.dumps({"input": "Hi.", "seed": 1, "max_tokens": 10, "response_format": "wav"})


@pytest.fixture(scope="module")
def quick(toy: ChatterboxTurbo) -> Iterator[Served]:
    with serving(toy, max_upload=1_000_000) as found:
        yield found


def raw(served: Served, data: bytes, end: bool = False) -> bytes:
    """What a server answers to these bytes, until it closes the connection."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=LIMIT) as connection:
        connection.sendall(data)
        if end:
            connection.shutdown(socket.SHUT_WR)
        found = b""
        while part := connection.recv(65_536):
            found += part
        return found


def post(body: str | bytes, headers: str = JSON, version: str = "1.1", path: str = "/v1/audio/speech") -> bytes:
    data = body.encode() if isinstance(body, str) else body
    head = f"POST {path} HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\n{headers}Content-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def test_a_key_is_asked_for_where_there_is_one(toy: ChatterboxTurbo) -> None:
    with serving(toy, api_key="sesame") as found:
        for path in ("/health", "/ready", "/openapi.json"):
            assert httpx.get(found.url + path).status_code == 200
        for path in ("/v1/models", "/v1/audio/voices", "/metrics", "/v1/nothing"):
            for headers in (
                {},
                {"Authorization": "Bearer other"},
                {"Authorization": "sesame"},
                {"Authorization": "Basic sesame"},
            ):
                refused = httpx.get(found.url + path, headers=headers)
                assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key", path
                assert refused.headers["www-authenticate"] == "Bearer" and "sesame" not in refused.text
        key = {"Authorization": "Bearer sesame"}
        assert httpx.get(f"{found.base}/models", headers=key).status_code == 200
        assert (
            httpx.post(f"{found.base}/audio/speech", content=SHORT, headers={"Content-Type": "application/json"}).status_code
            == 401
        )


def test_pages_of_other_origins_and_other_names_of_the_host_are_refused(toy: ChatterboxTurbo) -> None:
    with serving(toy, hosts=("localhost", "127.0.0.1", "::1")) as found:
        own = f"http://localhost:{found.port}"
        for headers, status in [
            ({"Host": f"localhost:{found.port}", "Origin": own}, 200),
            ({"Host": "[::1]:8000"}, 200),
            ({"Host": "rebound.example"}, 403),
            ({"Host": f"rebound.example:{found.port}", "Origin": f"http://rebound.example:{found.port}"}, 403),
            ({"Origin": "https://elsewhere.example"}, 403),
            ({"Origin": "null"}, 403),
        ]:
            assert httpx.get(f"{found.base}/models", headers=headers).status_code == status, headers
    with serving(toy, origins=("https://chat.example",)) as found:
        there = httpx.get(f"{found.base}/models", headers={"Origin": "https://chat.example"})
        assert there.headers["access-control-allow-origin"] == "https://chat.example"
        asking = {"Origin": "https://chat.example", "Access-Control-Request-Method": "POST"}
        assert httpx.options(f"{found.base}/audio/speech", headers=asking).status_code == 200
        assert httpx.get(f"{found.base}/models", headers={"Origin": "https://elsewhere.example"}).status_code == 403


BODIES: list[tuple[Any, int]] = [
    (b"", 400),
    (b"{", 400),
    (b"null", 400),
    (b"[1]", 400),
    (b'"input"', 400),
    (b"\xff\xfe", 400),
    (b"[" * 100_000, 400),
    (b'{"input":' * 50_000, 400),
    (b'{"input": "Hi.", "temperature": NaN}', 400),
    (b'{"input": "Hi.", "temperature": Infinity}', 400),
    (b'{"input": "Hi.", "temperature": 1e999}', 400),
    (b'{"input": "Hi.", "seed": ' + b"9" * 5_000 + b"}", 400),
    (b'{"input": "Hi.", "pronounce": ' + b'{"a":' * 2_000 + b"1" + b"}" * 2_000 + b"}", 400),
    (b'{"input": "\\ud800"}', 400),
    (b'{"input": "Hi.", "voice": "\\udfff"}', 400),
    (b'{"input": "Hi.", "instructions": "\\ud800"}', 400),
    (b'{"input": "' + b"a" * 4_000_000 + b'"}', 413),
    (b" " * 5_000_000, 413),
]


@pytest.mark.parametrize("body, status", BODIES, ids=lambda value: repr(value)[:24])
def test_a_body_that_is_no_request_is_refused_in_one_line(quick: Served, body: bytes, status: int) -> None:
    found = httpx.post(f"{quick.base}/audio/speech", content=body, headers={"Content-Type": "application/json"}, timeout=LIMIT)
    error = found.json()["error"]
    assert found.status_code == status and error["type"] == "invalid_request_error" and "\n" not in error["message"], found.text
    assert len(error["message"]) < 400


def test_a_hundred_megabytes_are_read_by_nobody(quick: Served) -> None:
    """Said in advance, or sent in chunks that do not say; neither is kept."""
    part = b'--x\r\nContent-Disposition: form-data; name="audio_sample"; filename="a"\r\n\r\n'
    kinds = {"/audio/speech": ("application/json", b""), "/audio/voices": ("multipart/form-data; boundary=x", part)}
    for path, (kind, begin) in kinds.items():
        headers = {"Content-Type": kind}
        told = httpx.post(quick.base + path, content=begin + b"x" * 100_000_000, headers=headers, timeout=LIMIT)
        parts = itertools.chain([begin], (b"x" * 100_000 for _ in range(1_000)))
        untold = httpx.post(quick.base + path, content=parts, headers=headers, timeout=LIMIT)
        for found in (told, untold):
            assert found.status_code == 413 and found.json()["error"]["code"] == "body_too_large"
    expecting = post(b"", headers=f"{JSON}Expect: 100-continue\r\n").replace(b"Content-Length: 0", b"Content-Length: 100000000")
    assert raw(quick, expecting).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "99999999999999999999999", "+5"])
def test_a_length_that_is_none_is_refused(quick: Served, length: str) -> None:
    data = post(SHORT).replace(f"Content-Length: {len(SHORT)}".encode(), f"Content-Length: {length}".encode())
    assert raw(quick, data, end=True).split(b" ")[1] in (b"400", b"413")


def test_half_a_request_ends_with_its_connection(quick: Served) -> None:
    whole = post(SHORT)
    for part in (
        whole[:10],
        whole[:60],
        whole[: -len(SHORT) // 2],
        b"\x16\x03\x01\x02\0" + b"\0" * 100,
        b"GET /nothing HTTP/9.9\r\n\r\n",
    ):
        found = raw(quick, part, end=True)
        assert not found.startswith(b"HTTP/1.1 200")
    assert httpx.get(f"{quick.url}/health").status_code == 200 and quick.app.state.serve.batch.load[0] == 0


def test_a_body_that_does_not_come_is_not_waited_for(toy: ChatterboxTurbo) -> None:
    with serving(toy, patience=1.0) as found:
        assert raw(found, post(SHORT)[: -len(SHORT) // 2]).startswith(b"HTTP/1.1 408")


def test_http_1_0_has_the_sound_without_chunks(quick: Served) -> None:
    new = httpx.post(f"{quick.base}/audio/speech", content=SHORT, headers={"Content-Type": "application/json"})
    head, _, body = raw(quick, post(SHORT, version="1.0")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200") and b"chunked" not in head.lower() and body == new.content


def test_a_client_that_goes_away_frees_its_place(quick: Served) -> None:
    state = quick.app.state.serve
    body = json.dumps({"input": "A sentence of some length stands here. " * 200, "response_format": "pcm", "seed": 1})
    for wait in (0.0, 0.3):
        with socket.create_connection(("127.0.0.1", quick.port), timeout=LIMIT) as connection:
            connection.sendall(post(body))
            while not state.batch.load[0]:
                time.sleep(0.005)
            time.sleep(wait)
        limit = time.monotonic() + LIMIT
        while state.batch.load != (0, 0):
            assert time.monotonic() < limit, "the work of a client that is gone goes on"
            time.sleep(0.01)


def test_a_client_that_reads_slowly_has_all_of_it_and_holds_up_nobody(quick: Served) -> None:
    state = quick.app.state.serve
    text = "A sentence of some length stands here. " * 20
    body = json.dumps({"input": text, "response_format": "pcm", "seed": 1, "max_tokens": 60, "watermark": None})
    expected = state.tts.generate(text, seed=1, max_tokens=60, watermark=None)
    found, begun = bytearray(), threading.Event()

    def read_slowly() -> None:
        with socket.create_connection(("127.0.0.1", quick.port), timeout=LIMIT) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            connection.sendall(post(body))
            while part := connection.recv(16_384):
                found.extend(part)
                begun.set()
                time.sleep(0.02)

    reader = threading.Thread(target=read_slowly)
    reader.start()
    assert begun.wait(LIMIT)
    assert (
        httpx.post(f"{quick.base}/audio/speech", content=SHORT, headers={"Content-Type": "application/json"}).status_code == 200
    )
    reader.join(LIMIT)
    head, _, rest = bytes(found).partition(b"\r\n\r\n")
    sound = b""
    while rest:  # of chunks
        size, _, rest = rest.partition(b"\r\n")
        sound, rest = sound + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    assert head.startswith(b"HTTP/1.1 200") and len(sound) == 2 * len(expected)


def test_a_client_that_takes_nothing_is_given_up(toy: ChatterboxTurbo) -> None:
    with serving(toy, patience=1.0) as found:
        state = found.app.state.serve
        body = json.dumps(
            {"input": "A sentence of some length stands here. " * 200, "response_format": "pcm", "seed": 1, "max_tokens": 200}
        )
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            connection.connect(("127.0.0.1", found.port))
            connection.sendall(post(body))
            limit = time.monotonic() + LIMIT
            while state.metrics.gone._value.get() == 0:
                assert time.monotonic() < limit, "a client that takes nothing is waited for"
                time.sleep(0.05)
            while state.batch.load[0]:
                assert time.monotonic() < limit
                time.sleep(0.05)


def test_a_full_queue_says_when_to_come_again(toy: ChatterboxTurbo) -> None:
    with serving(toy, batch=1, max_queue=1) as found:
        body = json.dumps({"input": "A sentence of some length stands here. " * 100, "response_format": "pcm"})
        waiting = []
        for _ in range(2):
            connection = socket.create_connection(("127.0.0.1", found.port), timeout=LIMIT)
            connection.sendall(post(body))
            waiting.append(connection)
        limit = time.monotonic() + LIMIT
        while found.app.state.serve.batch.load[0] < 2 and time.monotonic() < limit:
            time.sleep(0.005)
        refused = httpx.post(f"{found.base}/audio/speech", content=SHORT, headers={"Content-Type": "application/json"})
        assert refused.status_code == 429 and refused.json()["error"]["type"] == "rate_limit_error"
        assert 1 <= int(refused.headers["retry-after"]) <= 120
        assert httpx.get(f"{found.url}/ready").json() == {"status": "full", "requests": 2}
        assert "chatterbox_queue_full_total 1.0" in httpx.get(f"{found.url}/metrics").text
        for connection in waiting:
            connection.close()


def test_an_answer_that_fails_midway_does_not_look_whole(
    toy: ChatterboxTurbo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from chatterbox_turbo_rs.engine import open_batch

    turn = open_batch.Job.turn

    def fails_later(job: Any) -> None:
        if job.begun:
            raise ZeroDivisionError("by zero")
        turn(job)

    with serving(toy) as found:
        monkeypatch.setattr(open_batch.Job, "turn", fails_later)
        body = {"input": "A sentence of some length stands here. " * 20, "seed": 1, "max_tokens": 60, "response_format": "pcm"}
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.post(f"{found.base}/audio/speech", json=body, timeout=LIMIT)
        told = httpx.post(f"{found.base}/audio/speech", json=body | {"stream_format": "sse"}, timeout=LIMIT)
        last = json.loads(told.text.strip().split("\n\n")[-1].removeprefix("data: "))
        assert (
            last["type"] == "error"
            and last["error"]["type"] == "server_error"
            and "ZeroDivisionError" in last["error"]["message"]
        )


def test_an_engine_that_is_stuck_is_not_healthy(toy: ChatterboxTurbo, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(toy) as found:
        for seconds, status in ((0.0, 200), (61.0, 503), (float("inf"), 503)):
            monkeypatch.setattr(type(found.app.state.serve.batch), "stuck", lambda batch, seconds=seconds: seconds)
            assert httpx.get(f"{found.url}/health").status_code == httpx.get(f"{found.url}/ready").status_code == status
