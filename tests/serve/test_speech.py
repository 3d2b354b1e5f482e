"""``POST /v1/audio/speech``: the sound of ``generate`` in every format, told how it was made, with errors that name the field."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import httpx
import numpy as np
import pytest
from servers import Served

from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.audio.encode import pcm
from chatterbox_turbo_rs.audio.read import read

TEXT = "Hello there. I am a small model."
LONG = "It was late. Nobody had come, and nobody would. [pause 0.8s] Or so we thought.\n\nThe next day it rained."


def asked(served: Served, **body: Any) -> httpx.Response:
    return httpx.post(f"{served.base}/audio/speech", json={"input": TEXT, **body}, timeout=120)


def events(text: str) -> list[dict[str, Any]]:
    lines = [line for line in text.split("\n\n") if line]
    assert all(line.startswith("data: ") and "\n" not in line for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines]


@pytest.mark.parametrize("text", [TEXT, LONG])
@pytest.mark.parametrize("speed", [1.0, 1.3])
def test_the_samples_are_those_of_generate(served: Served, demo: ChatterboxTurbo, text: str, speed: float) -> None:
    found = asked(served, input=text, response_format="pcm", seed=7, speed=speed)
    assert found.status_code == 200 and found.headers["content-type"] == "audio/pcm"
    assert found.headers["x-chatterbox-seed"] == "7" and found.headers["x-chatterbox-voice"] == "default"
    assert found.content == pcm(demo.generate(text, seed=7, speed=speed).samples)


def test_a_random_seed_is_told_and_gives_the_same_sound_again(served: Served) -> None:
    first = asked(served, response_format="pcm")
    seed = first.headers["x-chatterbox-seed"]
    assert int(seed) < 2**53 and seed != asked(served, response_format="pcm").headers["x-chatterbox-seed"]
    for again in (seed, int(seed)):
        assert asked(served, response_format="pcm", seed=again).content == first.content


def test_our_own_fields_are_those_of_generate(served: Served, demo: ChatterboxTurbo) -> None:
    own: dict[str, Any] = {"temperature": 0.6, "top_p": 0.9, "top_k": 50, "repetition_penalty": 1.1, "max_tokens": 30}
    found = asked(served, response_format="pcm", seed=5, watermark=None, split="never", pronounce={"model": "robot"}, **own)
    speech = demo.generate(TEXT, seed=5, watermark=None, split="never", pronounce={"model": "robot"}, **own)
    assert found.content == pcm(speech.samples)


def test_a_wav_has_one_header_of_unknown_length(served: Served, demo: ChatterboxTurbo) -> None:
    found = asked(served, response_format="wav", seed=7)
    head = found.content[:44]
    assert head[:4] == b"RIFF" and head[8:16] == b"WAVEfmt " and head[4:8] == head[40:44] == b"\xff" * 4
    assert struct.unpack("<IHHIIHH", head[16:36]) == (16, 1, 1, 24_000, 48_000, 2, 16)
    assert found.content[44:] == pcm(demo.generate(TEXT, seed=7).samples) and b"RIFF" not in found.content[44:]


@pytest.mark.parametrize(
    "form, kind, exact",
    [("flac", "audio/flac", True), ("mp3", "audio/mpeg", False), ("opus", "audio/ogg", False), ("aac", "audio/aac", False)],
)
def test_encoded_sound_is_heard_as_what_was_spoken(
    served: Served, demo: ChatterboxTurbo, form: str, kind: str, exact: bool
) -> None:
    found = asked(served, response_format=form, seed=7)
    samples = demo.generate(TEXT, seed=7).samples
    heard, rate = read(found.content)
    assert found.headers["content-type"] == kind and rate == 24_000
    if exact:
        assert np.array_equal(np.rint(heard * 32768), np.rint(samples * 32768).clip(-32768, 32767))
        return
    assert abs(len(heard) - len(samples)) < 3_500  # the encoders' own delay and their last frame
    delay = int(np.argmax(np.correlate(heard, samples[6_000:18_000], "valid"))) - 6_000
    assert -5 <= delay < 2_500
    part = heard[6_000 + delay : 18_000 + delay]
    assert np.corrcoef(part, samples[6_000:18_000])[0, 1] > 0.95


def test_an_mp3_has_no_xing_header_and_no_empty_frame(served: Served) -> None:
    data = asked(served, seed=7).content
    assert b"Xing" not in data and b"Info" not in data[:400] and b"LAME3" not in data[:192]
    assert data[:2] == b"\xff\xf3" and any(data[4:40])


def test_events_hold_the_sound_and_how_it_was_spoken(served: Served, demo: ChatterboxTurbo) -> None:
    found = asked(served, input=LONG, stream_format="sse", response_format="pcm", seed=7)
    assert found.headers["content-type"].startswith("text/event-stream")
    *deltas, done = events(found.text)
    assert {event["type"] for event in deltas} == {"speech.audio.delta"} and len(deltas) > 3
    speech = demo.generate(LONG, seed=7)
    assert b"".join(base64.b64decode(event["audio"]) for event in deltas) == pcm(speech.samples)
    assert done["type"] == "speech.audio.done" and done["seconds"] == speech.seconds and done["seed"] == "7"
    usage = done["usage"]
    assert usage["output_tokens"] == sum(segment.tokens for segment in speech.segments)
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] and usage["input_tokens"] > 20
    assert len(done["segments"]) == 3
    for told, segment in zip(done["segments"], speech.segments):
        assert (told["text"], told["tokens"], told["attempts"]) == (segment.text, segment.tokens, segment.attempts)
        assert (told["seed"], told["verdict"]) == (str(segment.seed), ", ".join(segment.faults) or "ok")
        assert abs(told["start"] - segment.start) < 1e-6 and abs(told["end"] - segment.end) < 1e-6


def test_the_soonest_sound_comes_with_the_same_tokens(served: Served, demo: ChatterboxTurbo) -> None:
    *_, done = events(asked(served, stream_format="sse", latency="low", seed=7).text)
    assert [segment["tokens"] for segment in done["segments"]] == [demo.generate(TEXT, seed=7).segments[0].tokens]


def test_what_is_ignored_is_told(served: Served) -> None:
    found = asked(served, seed=1, instructions="cheerfully", lang_code="en", **{"weird\r\nX: y": 1})
    assert found.status_code == 200 and found.headers["x-chatterbox-ignored"] == "instructions, lang_code"
    assert "x-chatterbox-ignored" not in asked(served, seed=1).headers


@pytest.mark.parametrize("voice, told", [("alloy", "default"), ("default", "default"), ({"id": "default"}, "default")])
@pytest.mark.parametrize("model", ["tts-1", "gpt-4o-mini-tts", "demo"])
def test_names_that_clients_have_built_in_are_understood(served: Served, voice: Any, told: str, model: str) -> None:
    found = asked(served, voice=voice, model=model, max_tokens=10)
    assert (found.status_code, found.headers["x-chatterbox-voice"], found.headers["x-chatterbox-model"]) == (200, told, "demo")


WRONG: list[tuple[dict[str, Any], str, int]] = [
    ({"input": None}, "input", 400),
    ({"input": ""}, "input", 400),
    ({"input": " \n\t"}, "input", 400),
    ({"input": 7}, "input", 400),
    ({"input": ["Hi."]}, "input", 400),
    ({"input": "a" * 100_001}, "input", 400),
    ({"input": "[pause 70s] Hi."}, "input", 400),
    ({"model": "nano"}, "model", 404),
    ({"voice": "nobody"}, "voice", 400),
    ({"voice": "../default"}, "voice", 400),
    ({"voice": "default\0"}, "voice", 400),
    ({"voice": {"name": "default"}}, "voice", 400),
    ({"voice": 3}, "voice", 400),
    ({"response_format": "ogg"}, "response_format", 400),
    ({"stream_format": "chunks"}, "stream_format", 400),
    ({"speed": 4}, "speed", 400),
    ({"speed": "1"}, "speed", 400),
    ({"speed": -1}, "speed", 400),
    ({"speed": True}, "speed", 400),
    ({"seed": -1}, "seed", 400),
    ({"seed": 2**64}, "seed", 400),
    ({"seed": 1.5}, "seed", 400),
    ({"seed": "one"}, "seed", 400),
    ({"temperature": -3}, "temperature", 400),
    ({"top_k": 1.5}, "top_k", 400),
    ({"top_k": -5}, "top_k", 400),
    ({"repetition_penalty": 0}, "repetition_penalty", 400),
    ({"max_tokens": 0}, "max_tokens", 400),
    ({"max_tokens": 10**30}, "max_tokens", 400),
    ({"split": "always"}, "split", 400),
    ({"latency": "never"}, "latency", 400),
    ({"latency": "low", "speed": 1.5}, "speed", 400),
    ({"watermark": "other"}, "watermark", 400),
    ({"watermark": False}, "watermark", 400),
    ({"pronounce": {"a": 1}}, "pronounce", 400),
    ({"pronounce": ["a"]}, "pronounce", 400),
]


@pytest.mark.parametrize("body, param, status", WRONG, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_named(served: Served, body: dict[str, Any], param: str, status: int) -> None:
    found = asked(served, **body)
    error = found.json()["error"]
    assert found.status_code == status, found.text
    assert error["type"] == "invalid_request_error" and error["param"] == param and "\n" not in error["message"]


def test_the_other_paths_answer(served: Served) -> None:
    get = httpx.Client(base_url=served.url).get
    assert get("/health").json()["status"] == "ok" and get("/ready").json()["status"] == "ready"
    assert [model["id"] for model in get("/v1/models").json()["data"]] == ["demo"]
    assert get("/v1/models/demo").json()["id"] == "demo" and get("/v1/models/other").status_code == 404
    assert get("/v1/audio/voices").json()["voices"] == [{"id": "default", "name": "default"}]
    asked(served, max_tokens=10)
    figures = get("/metrics").text
    assert (
        'chatterbox_requests_total{path="/v1/audio/speech",status="200"}' in figures
        and "chatterbox_sound_seconds_total" in figures
    )
    for path, status in (("/v1/nothing", 404), ("/v1/audio/speech", 405)):
        found = get(path)
        assert found.status_code == status and found.json()["error"]["type"] == "invalid_request_error"
