"""Home Assistant's way to this server: a Wyoming client asks wyoming-openai, which asks ``chatterbox-turbo serve``.

usage: check_wyoming.py CHATTERBOX_TURBO     with an interpreter that has wyoming-openai (Python 3.12 or newer); make check-wyoming makes it
"""

from __future__ import annotations

import array
import asyncio
import socket
import subprocess
import sys
import time

from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.info import Describe, Info
from wyoming.tts import Synthesize, SynthesizeVoice

TEXT = "Hello there. I am a small model, and I need no network."
LIMIT = 120


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for(port: int) -> None:
    limit = time.monotonic() + LIMIT
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.1)


async def speak(port: int) -> tuple[list[str], int, array.array[int]]:
    """The voices, and the rate and samples of the text."""
    async with AsyncTcpClient("127.0.0.1", port) as client:
        await client.write_event(Describe().event())
        event = await client.read_event()
        assert event is not None and Info.is_type(event.type), event
        voices = [voice.name for program in Info.from_event(event).tts for voice in program.voices]
        await client.write_event(Synthesize(TEXT, voice=SynthesizeVoice(name=voices[0])).event())
        rate, samples = 0, array.array("h")
        while (event := await client.read_event()) is not None and not AudioStop.is_type(event.type):
            if AudioStart.is_type(event.type):
                rate = AudioStart.from_event(event).rate
            if AudioChunk.is_type(event.type):
                chunk = AudioChunk.from_event(event)
                assert (chunk.rate, chunk.width, chunk.channels) == (24_000, 2, 1), chunk
                samples.frombytes(chunk.audio)
        assert event is not None, "the sound has no end"
        return voices, rate, samples


def main(command: str) -> int:
    ours, theirs = free_port(), free_port()
    server = [command, "serve", "--model", "demo", "--port", str(ours)]
    bridge = [sys.executable, "-m", "wyoming_openai", "--uri", f"tcp://127.0.0.1:{theirs}", "--languages", "en"]
    bridge += ["--tts-openai-url", f"http://127.0.0.1:{ours}/v1", "--tts-models", "demo", "--tts-voices", "default"]
    with subprocess.Popen(server) as one:
        try:
            wait_for(ours)
            with subprocess.Popen(bridge) as other:
                try:
                    wait_for(theirs)
                    voices, rate, samples = asyncio.run(asyncio.wait_for(speak(theirs), LIMIT))
                finally:
                    other.terminate()
        finally:
            one.terminate()
    seconds, loudest = len(samples) / 24_000, max(map(abs, samples), default=0)
    print(f"wyoming-openai: voices {voices}, {seconds:.2f} s of sound at {rate} Hz, loudest sample {loudest}")
    return 0 if voices == ["default"] and rate == 24_000 and seconds > 1 and loudest > 1_000 else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
