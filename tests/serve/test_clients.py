"""Programs that speak to OpenAI's API, pointed at this server: the ``openai`` package, curl, and requests as other programs send them."""

from __future__ import annotations

import asyncio
import io
import shutil
import subprocess
from pathlib import Path

import httpx
import openai
import pytest
import soundfile
from servers import Served

from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.audio.encode import pcm

TEXT = "Hello there. I am a small model."


@pytest.fixture
def client(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=served.base, api_key="none", max_retries=0, timeout=120)


def test_openais_client_speaks(client: openai.OpenAI, demo: ChatterboxTurbo, tmp_path: Path) -> None:
    expected = pcm(demo.generate(TEXT, seed=7).samples)
    whole = client.audio.speech.create(model="tts-1", voice="alloy", input=TEXT, response_format="pcm", extra_body={"seed": 7})
    assert whole.content == expected
    whole.write_to_file(tmp_path / "whole.pcm")
    with client.audio.speech.with_streaming_response.create(
        model="demo", voice="default", input=TEXT, response_format="wav", speed=1.0, extra_body={"seed": 7}
    ) as response:
        assert response.headers["x-chatterbox-seed"] == "7"
        response.stream_to_file(tmp_path / "hello.wav")
    samples, rate = soundfile.read(tmp_path / "hello.wav", dtype="int16")
    assert rate == 24_000 and samples.astype("<i2").tobytes() == expected == (tmp_path / "whole.pcm").read_bytes()
    raw = client.audio.speech.with_raw_response.create(model="demo", voice="default", input=TEXT, instructions="cheerfully")
    assert raw.headers["content-type"] == "audio/mpeg" and raw.headers["x-chatterbox-ignored"] == "instructions"
    assert soundfile.info(io.BytesIO(raw.parse().content)).samplerate == 24_000


def test_openais_client_reads_the_events(client: openai.OpenAI) -> None:
    with client.audio.speech.with_streaming_response.create(
        model="demo", voice="default", input=TEXT, response_format="pcm", stream_format="sse", extra_body={"seed": 7}
    ) as response:
        lines = [line for line in response.iter_lines() if line]
    assert lines[0].startswith('data: {"type":"speech.audio.delta"') and lines[-1].startswith('data: {"type":"speech.audio.done"')


def test_openais_client_tells_errors_apart(served: Served, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        client.audio.speech.create(model="tts-1", voice="nobody", input=TEXT)
    assert bad.value.param == "voice" and bad.value.code == "voice_not_found"
    with pytest.raises(openai.NotFoundError) as missing:
        client.audio.speech.create(model="gpt-9", voice="alloy", input=TEXT)
    assert missing.value.code == "model_not_found"
    assert [model.id for model in client.models.list()] == ["demo"] and client.models.retrieve("demo").object == "model"


def test_openais_client_in_an_event_loop(served: Served, demo: ChatterboxTurbo) -> None:
    async def speak(client: openai.AsyncOpenAI, seed: int) -> bytes:
        async with client.audio.speech.with_streaming_response.create(
            model="tts-1", voice="alloy", input=TEXT, response_format="pcm", extra_body={"seed": seed}
        ) as response:
            return b"".join([part async for part in response.iter_bytes()])

    async def all_at_once() -> list[bytes]:
        async with openai.AsyncOpenAI(base_url=served.base, api_key="none", timeout=120) as client:
            return await asyncio.gather(*(speak(client, seed) for seed in range(5)))

    assert asyncio.run(all_at_once()) == [pcm(demo.generate(TEXT, seed=seed).samples) for seed in range(5)]


def test_curl_writes_a_file(served: Served, demo: ChatterboxTurbo, tmp_path: Path) -> None:
    assert shutil.which("curl"), "curl is not installed"
    body = '{"input": "Hello there. I am a small model.", "response_format": "flac", "seed": 7}'
    for version in ("--http1.0", "--http1.1"):
        line = ["curl", "-sSN", version, "-f", "-H", "Content-Type: application/json", "-d", body, "-o", str(tmp_path / "a.flac")]
        subprocess.run([*line, f"{served.base}/audio/speech"], check=True, timeout=120)
        assert (tmp_path / "a.flac").read_bytes()[:4] == b"fLaC"
    missing = subprocess.run(["curl", "-sSf", f"{served.base}/nothing"], capture_output=True, text=True, check=False, timeout=120)
    assert missing.returncode == 22 and "404" in missing.stderr


# Requests as programs send them, from their public source. Open WebUI: backend/open_webui/routers/audio.py of open-webui/open-webui at
# 6adde203cd292a9e3af9c64a2ae36b603fed096a (`speech`, `get_available_models`, `get_available_voices`). SillyTavern:
# public/scripts/extensions/tts/openai-compatible.js of SillyTavern/SillyTavern at 414e28b24c7ca7a48e8b625e942b4c126745307d, whose server passes
# on `response_format`, `speed`, `voice`, `model` and `input`.
def test_open_webui_finds_its_models_and_voices_and_speaks(served: Served) -> None:
    headers = {"Content-Type": "application/json", "Authorization": "Bearer none", "X-OpenWebUI-User-Name": "a"}
    models = httpx.get(f"{served.base}/audio/models").json()
    assert [model["id"] for model in models.get("models", [])] == ["demo"]
    voices = httpx.get(f"{served.base}/audio/voices").json().get("voices", [])
    assert {voice["id"]: voice["name"] for voice in voices} == {"default": "default"}
    found = httpx.post(
        f"{served.base}/audio/speech", json={"input": TEXT, "voice": "alloy", "model": "tts-1"}, headers=headers, timeout=120
    )
    assert found.status_code == 200 and found.content[:2] == b"\xff\xf3"


def test_sillytavern_speaks(served: Served) -> None:
    body = {"input": TEXT, "response_format": "mp3", "speed": 1, "voice": "shimmer", "model": "tts-1"}
    found = httpx.post(f"{served.base}/audio/speech", json=body, headers={"Authorization": "Bearer"}, timeout=120)
    assert found.status_code == 200 and found.headers["content-type"] == "audio/mpeg"
