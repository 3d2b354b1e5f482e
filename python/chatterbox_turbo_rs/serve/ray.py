"""The model as a Ray Serve deployment: requests that come together are decoded together, on as many replicas as there are machines.

    serve run chatterbox_turbo_rs.serve.ray:application model=turbo replicas=2 cpus=8

It answers ``POST /v1/audio/speech`` with a whole sound (``model``, ``input``, ``voice``, ``response_format``, ``seed``, ``speed``), and
``GET /health``. Streams, voices to upload and the page are ``chatterbox-turbo serve``'s.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..audio.encode import FORMATS, encode
from ..constants import SAMPLE_RATE
from ..errors import ArgumentError, BackendError, ChatterboxError
from ..options import MAX_TOKENS, Result, between, seed_of, whole
from ..voice import Voice, is_voice_file

if TYPE_CHECKING:
    from ..model import ChatterboxTurbo

LONGEST = 4096
"""Characters of ``input``, as OpenAI has it."""
LARGEST = 1 << 20
"""Bytes of a request."""
TYPES = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "ogg": "audio/ogg",
    "pcm": "audio/pcm",
    "aiff": "audio/aiff",
}
OWN = ("default", "alloy")
"""Names of the checkpoint's own voice: clients that must name one name the second."""


@dataclass(frozen=True)
class Wanted:
    """A request, checked."""

    text: str
    voice: str
    form: str
    seed: int
    speed: float


@dataclass(frozen=True)
class Settings:
    """What ``application`` is given, checked. Raises ``ArgumentError`` for what it does not know.

    ``voices`` is a folder of voice files and clips, called by their names without the ending. A batch waits ``wait`` seconds for more.
    ``max_tokens`` limits each segment of a text, as that of ``generate``.
    """

    model: str = "turbo"
    precision: str = "auto"
    device: str = "auto"
    voices: str = ""
    replicas: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    batch: int = 8
    wait: float = 0.02
    max_tokens: int = MAX_TOKENS

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Settings:
        """Of the words behind ``serve run``, or of a configuration's ``args``."""
        unknown = set(arguments) - set(cls.__dataclass_fields__)
        if unknown:
            raise ArgumentError(f"{sorted(unknown)[0]}: expected {', '.join(cls.__dataclass_fields__)}")
        kinds = {"replicas": int, "batch": int, "max_tokens": int, "cpus": float, "gpus": float, "wait": float}
        try:
            settings = cls(**{name: kinds.get(name, str)(value) for name, value in arguments.items()})
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"application: {error}") from None
        whole("replicas", settings.replicas, 1, 10_000)
        whole("batch", settings.batch, 1, 1024)
        whole("max_tokens", settings.max_tokens, 1, MAX_TOKENS)
        between("wait", settings.wait, 0.0, 10.0, "seconds")
        return settings


def application(arguments: Mapping[str, Any]) -> Any:
    """The deployment, for ``serve.run`` and ``serve run``: see ``Settings``. Raises ``ArgumentError``, ``BackendError`` without Ray Serve."""
    settings = Settings.of(arguments)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        from ray import serve
    except ImportError as error:
        raise BackendError(f"Ray Serve is missing ({error}); pip install 'chatterbox-turbo-rs[ray]'") from None

    class Speech(Speaker):
        """``Speaker`` whose texts are gathered by Serve."""

        @serve.batch(max_batch_size=settings.batch, batch_wait_timeout_s=settings.wait)
        async def together(self, wanted: list[Wanted]) -> list[tuple[Result, int]]:
            return await asyncio.to_thread(self.speak, wanted)

    deployment = serve.deployment(
        name="Speech",
        num_replicas=settings.replicas,
        max_ongoing_requests=4 * settings.batch,
        ray_actor_options={"num_cpus": settings.cpus, "num_gpus": settings.gpus},
    )
    return deployment(Speech).bind(settings)


class Speaker:
    """A replica: one model, on as many threads as it was given CPUs."""

    def __init__(self, settings: Settings) -> None:
        os.environ["RAYON_NUM_THREADS"] = str(max(1, int(settings.cpus)))  # read when the threads are started
        from ..model import ChatterboxTurbo

        self._batch, self._max_tokens = settings.batch, settings.max_tokens
        self._tts: ChatterboxTurbo = ChatterboxTurbo.from_pretrained(
            settings.model,
            device=settings.device,
            precision=settings.precision,  # type: ignore[arg-type]
            progress=False,
        )
        self._voices = self._prepared(settings.voices)

    def _prepared(self, folder: str) -> dict[str, Voice]:
        """The voices by their names, prepared now and not when they are asked for."""
        own = self._tts.builtin_voice
        voices = {} if own is None else dict.fromkeys(OWN, own)
        for path in sorted(Path(folder).iterdir()) if folder else []:
            if path.is_file() and not path.name.startswith("."):
                voices[path.stem] = Voice.load(path) if is_voice_file(path) else self._tts.voice(path)
        return voices

    async def __call__(self, request: Any) -> Any:
        """A Starlette request's answer; errors in OpenAI's shape."""
        from starlette.responses import Response

        path = request.url.path.rstrip("/")
        if path == "/health":
            return Response(b'{"status": "ok"}', media_type="application/json")
        if path != "/v1/audio/speech":
            return _refused(404, f"expected /v1/audio/speech or /health, got {path or '/'}")
        if request.method != "POST":
            return _refused(405, f"expected POST, got {request.method}")
        try:
            wanted = self._checked(await _body(request))
            result, together = await self.together(wanted)  # type: ignore[attr-defined]
            if isinstance(result, ChatterboxError):
                raise result
            sound = await asyncio.to_thread(encode, result.samples, SAMPLE_RATE, wanted.form)
        except (ChatterboxError, ValueError) as error:
            wrong = isinstance(error, ValueError)  # ArgumentError, TextError, AudioError are
            return _refused(400 if wrong else 500, " ".join(str(error).split()))
        headers = {"X-Seed": str(result.seed), "X-Batch-Size": str(together)}
        return Response(sound, media_type=TYPES[wanted.form], headers=headers)

    def _checked(self, body: Any) -> Wanted:
        if not isinstance(body, dict):
            raise ArgumentError(f"body: expected a JSON object, got {type(body).__name__}")
        text, form, voice = body.get("input"), body.get("response_format", "mp3"), body.get("voice", OWN[0])
        if isinstance(voice, dict):
            voice = voice.get("id")
        if not isinstance(text, str) or not text.strip() or len(text) > LONGEST:
            raise ArgumentError(f"input: expected a text of 1 to {LONGEST} characters")
        if not isinstance(form, str) or form not in FORMATS:
            raise ArgumentError(f"response_format: expected {', '.join(FORMATS)}, got {form!r}")
        if not isinstance(voice, str) or voice not in self._voices:
            raise ArgumentError(f"voice: expected {', '.join(self._voices)}, got {voice!r}")
        speed = between("speed", body.get("speed", 1.0), 0.5, 2.0, "a number")
        return Wanted(text, voice, form, seed_of(body.get("seed")), speed)

    def speak(self, wanted: Sequence[Wanted]) -> list[tuple[Result, int]]:
        """The results in their order, each with how many were decoded together: those that have one pace."""
        results: dict[int, tuple[Result, int]] = {}
        for speed in dict.fromkeys(one.speed for one in wanted):
            numbers = [number for number, one in enumerate(wanted) if one.speed == speed]
            group = [wanted[number] for number in numbers]
            spoken = self._tts.generate_many(
                [one.text for one in group],
                [self._voices[one.voice] for one in group],
                [one.seed for one in group],
                batch=self._batch,
                errors="return",
                speed=speed,
                max_tokens=self._max_tokens,
            )
            results.update(zip(numbers, ((result, len(group)) for result in spoken)))
        return [results[number] for number in range(len(wanted))]


async def _body(request: Any) -> Any:
    """The JSON of a request. Raises ``ArgumentError``."""
    data = b""
    async for block in request.stream():
        data += block
        if len(data) > LARGEST:
            raise ArgumentError(f"body: expected at most {LARGEST} bytes")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ArgumentError(f"body: expected JSON: {error}") from None


def _refused(status: int, message: str) -> Any:
    from starlette.responses import JSONResponse

    kind = "server_error" if status >= 500 else "invalid_request_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": None}}, status)
