"""The Ray Serve deployment, spoken to by HTTP: requests that come together are decoded together, each with the sound of ``generate``."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray
from ray import serve
from ray_cluster import started
from toy_model import TOY

from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.errors import ArgumentError
from chatterbox_turbo_rs.serve.ray import Settings, application


@pytest.fixture(scope="module")
def url(tmp_path_factory, clip):
    """A deployment of one replica on a cluster of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    voices = tmp_path_factory.mktemp("voices")
    ChatterboxTurbo.from_pretrained(TOY, precision="f32").voice(clip).save(voices / "somebody.safetensors")
    started()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(
        application({"model": TOY, "precision": "f32", "voices": str(voices), "batch": "4", "wait": "0.5", "max_tokens": "20"}),
        route_prefix="/",
    )
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()
    ray.shutdown()


def post(url: str, body: object, path: str = "/v1/audio/speech", method: str = "POST") -> tuple[int, dict[str, str], bytes]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(
        url + path, data if method == "POST" else None, {"Content-Type": "application/json"}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, {key.lower(): value for key, value in answer.headers.items()}, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, {}, error.read()


def test_what_comes_together_is_decoded_together_with_the_sound_of_generate(url, toy, clip):
    bodies = [
        {"model": "tts-1", "input": "Good morning.", "voice": "alloy", "response_format": "wav", "seed": 1},
        {"model": "tts-1", "input": "How are you?", "response_format": "flac", "seed": 2},
        {"model": "tts-1", "input": "Goodbye.", "voice": {"id": "somebody"}, "response_format": "opus", "seed": 3},
        {"model": "tts-1", "input": "Slowly.", "voice": "default", "response_format": "wav", "seed": 4, "speed": 0.8},
    ]
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda body: post(url, body), bodies))
    assert [status for status, _, _ in answers] == [200] * 4
    for body, (_, headers, sound) in zip(bodies, answers, strict=True):
        voice = clip if body.get("voice") == {"id": "somebody"} else None
        expected = toy.generate(body["input"], seed=body["seed"], speed=body.get("speed", 1.0), voice=voice, max_tokens=20)
        from chatterbox_turbo_rs.audio.encode import encode

        assert sound == encode(expected.samples, 24_000, body["response_format"])
        assert headers["x-chatterbox-seed"] == str(body["seed"])
    assert max(int(headers["x-chatterbox-batch"]) for _, headers, _ in answers) >= 2
    assert answers[3][1]["x-chatterbox-batch"] == "1", "another pace is another batch"
    assert [headers["content-type"] for _, headers, _ in answers] == ["audio/wav", "audio/flac", "audio/ogg", "audio/wav"]


def test_a_text_that_fails_sinks_no_other(url, toy):
    bodies = [{"input": "[pause 90s] x", "response_format": "wav"}, {"input": "Fine.", "response_format": "wav", "seed": 9}]
    with ThreadPoolExecutor(2) as threads:
        bad, good = threads.map(lambda body: post(url, body), bodies)
    assert bad[0] == 400 and "expected a pause of at most 60 s" in json.loads(bad[2])["error"]["message"]
    assert good[0] == 200 and good[2] == toy.generate("Fine.", seed=9, max_tokens=20).wav_bytes()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"input": "a", "stream_format": "sse"}, "stream_format: expected audio"),
        (b"{", "body: expected JSON"),
        (b"[" * 100_000, "body: expected JSON"),
        ([], "body: expected a JSON object"),
        ({}, "input: expected the text"),
        ({"input": " "}, "input: expected a text"),
        ({"input": "a" * 100_001}, "input: expected at most 100000"),
        ({"input": 3}, "input: expected string"),
        ({"input": "a", "voice": "../somebody"}, "voice: expected one of default, somebody"),
        ({"input": "a", "voice": {"id": ["x"]}}, "voice: expected string"),
        ({"input": "a", "response_format": "midi"}, "response_format: expected mp3"),
        ({"input": "a", "response_format": ["wav"]}, "response_format: expected string"),
        ({"input": "a", "speed": 9}, "speed: expected a number from 0.5 to 2, got 9"),
        ({"input": "a", "seed": -1}, "seed: expected a whole number"),
        (b'{"input": "a", "speed": NaN}', "body: expected JSON: NaN is no JSON number"),
    ],
)
def test_wrong_requests_are_told_in_openais_shape(url, body, says):
    status, _, answer = post(url, body)
    error = json.loads(answer)["error"]
    assert (status, error["type"]) == (400, "invalid_request_error") and says in error["message"]


def test_other_paths_methods_and_lengths(url):
    assert post(url, b" " * (5 << 20))[0] == 413
    assert post(url, {"input": "a", "model": "another"})[0] == 404
    assert post(url, {}, "/v1/models")[0] == 404
    assert post(url, {}, method="GET")[0] == 405
    assert post(url, {}, "/health", "GET")[::2] == (200, b'{"status":"ok"}')


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"modle": "x"}, "modle: expected model"),
        ({"batch": "many"}, "application: "),
        ({"replicas": 0}, "replicas: "),
        ({"wait": "-1"}, "wait: "),
    ],
)
def test_wrong_settings(arguments, says):
    with pytest.raises(ArgumentError, match=says):
        Settings.of(arguments)
