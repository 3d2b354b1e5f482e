"""``/v1/audio/comparisons``: two renderings of the same tokens, one request at a time, and what can be chosen."""

from __future__ import annotations

import base64
import socket
import threading
import time
from typing import Any

import httpx
import numpy as np
import pytest
from servers import Served, serving

from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.audio.encode import pcm
from chatterbox_turbo_rs.engine import registry
from chatterbox_turbo_rs.engine.comparison import SPEAKING

TEXT = "Hello there. I am a small model."


def asked(served: Served, **body: Any) -> httpx.Response:
    return httpx.post(f"{served.base}/audio/comparisons", json={"input": TEXT, "seed": 7, **body}, timeout=300)


def test_what_can_be_compared_is_told(served: Served, demo: ChatterboxTurbo) -> None:
    found = httpx.get(f"{served.base}/audio/comparisons").json()
    assert [stage["stage"] for stage in found["stages"]] == list(SPEAKING)
    here = registry.available()
    for stage in found["stages"]:
        assert {name: stage[name] for name in ("python", "rust")} == here[stage["stage"]]
        assert stage["now"] == demo.plan[stage["stage"]]
    assert (
        found["precisions"] == ["f32", "int8", "bf16", "int8+bf16", "int4", "int4+bf16"] and found["precision"] == demo.precision
    )
    assert found["max_input"] == 280 and found["busy"] is False


def test_two_precisions_of_the_same_tokens(served: Served, demo: ChatterboxTurbo) -> None:
    a, b = {"precision": "f32"}, {"precision": "int8+bf16"}
    found = asked(served, a=a, b=b).json()
    exact = ChatterboxTurbo.from_pretrained("demo", precision="f32").generate(TEXT, seed=7)
    assert base64.b64decode(found["a"]["audio"]) == pcm(exact.samples)
    assert found["tokens"] == exact.segments[0].tokens and found["seed"] == "7"
    assert len(found["b"]["audio"]) == len(found["a"]["audio"]) and found["a"]["audio"] != found["b"]["audio"]
    assert (found["a"]["name"], found["b"]["name"]) == ("rust, f32", "rust, int8+bf16")
    mels = [np.frombuffer(base64.b64decode(found[side]["mel"]), "<f4").reshape(found["mel_shape"]) for side in ("a", "b")]
    assert mels[0].shape == (len(exact.samples) // 480, 80)
    assert found["difference"]["mel_max"] == pytest.approx(np.abs(mels[1] - mels[0]).max())
    assert 0 < found["difference"]["mel_mean"] < found["difference"]["mel_max"] < 5
    # The other way round B draws what A drew before: the two precisions' own tokens differ at the same place, or nowhere.
    assert asked(served, a=b, b=a).json()["own_tokens_from"] == found["own_tokens_from"]


def test_a_stage_in_python_that_gives_the_same(served: Served, demo: ChatterboxTurbo) -> None:
    found = asked(served, b={"backends": {"t3.sampler": "python", "text": "python"}}).json()
    assert found["b"]["plan"]["t3.sampler"] == found["b"]["plan"]["text.tokenize"] == "python"
    assert found["a"]["plan"]["t3.sampler"] == "rust" and found["own_tokens_from"] is None
    assert found["difference"] == {"max_abs": 0, "relative_rms": 0, "mel_mean": 0, "mel_max": 0}
    assert base64.b64decode(found["b"]["audio"]) == pcm(demo.generate(TEXT, seed=7).samples)


def test_parameters_reach_both_sides(served: Served, demo: ChatterboxTurbo) -> None:
    found = asked(served, temperature=0.5, max_tokens=20, watermark=None).json()
    speech = demo.generate(TEXT, seed=7, temperature=0.5, max_tokens=20, watermark=None)
    assert base64.b64decode(found["a"]["audio"]) == base64.b64decode(found["b"]["audio"]) == pcm(speech.samples)


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"input": "a" * 281}, "input", "at most 280"),
    ({"input": " "}, "input", "whitespace"),
    ({"a": []}, "a", "an object"),
    ({"b": {"precision": "f16"}}, "b", "f32, int8"),
    ({"b": {"precision": 3}}, "b", "f32, int8"),
    ({"a": {"backends": "ruby"}}, "a", "python or rust"),
    ({"a": {"backends": {"t4": "rust"}}}, "a", "unknown stage 't4'"),
    ({"a": {"backends": 7}}, "a", "a string or a dict"),
    ({"voice": "nobody"}, "voice", "default"),
    ({"temperature": "hot"}, "temperature", "number"),
]


@pytest.mark.parametrize(("body", "param", "words"), WRONG)
def test_what_is_wrong_is_named(served: Served, body: dict[str, Any], param: str, words: str) -> None:
    found = asked(served, **body)
    error = found.json()["error"]
    assert found.status_code == 400 and error["param"] == param and words in error["message"]


def test_a_side_that_cannot_run_here_is_refused_with_the_reason(served: Served) -> None:
    reason = registry.missing("s3gen.flow", "python")
    found = asked(served, b={"backends": {"s3gen.flow": "python"}})
    if reason is None:  # PyTorch is here
        assert found.status_code == 200 and found.json()["b"]["plan"]["s3gen.flow"] == "python"
    else:
        assert found.status_code == 400 and reason in found.json()["error"]["message"]


def test_one_at_a_time_and_whoever_goes_makes_room(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, cancelled = threading.Event(), threading.Event()
    tts = served.app.state.serve.tts

    def slow(self: ChatterboxTurbo, *arguments: Any, cancel: threading.Event, **more: Any) -> Any:
        begun.set()
        assert cancel.wait(120)
        cancelled.set()
        raise RuntimeError("nobody waits for this")

    with monkeypatch.context() as patch:
        patch.setattr(type(tts), "compare", slow)
        body = b'{"input": "Hi."}'
        head = f"POST /v1/audio/comparisons HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.sendall(head.encode() + body)
            assert begun.wait(120)
            second = asked(served)
            assert second.status_code == 429 and int(second.headers["retry-after"]) > 0
            assert httpx.get(f"{served.base}/audio/comparisons").json()["busy"] is True
        assert cancelled.wait(120), "the work of a client that has gone goes on"
    end = time.monotonic() + 120
    while httpx.get(f"{served.base}/audio/comparisons").json()["busy"]:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert asked(served).status_code == 200


def test_an_operator_may_forbid_it(demo: ChatterboxTurbo) -> None:
    with serving(demo, compare=False) as served:
        assert asked(served).status_code == 403
        assert httpx.get(f"{served.url}/page/about").json()["compares"] is False
