"""The model as a Ray Serve deployment: requests that come together are decoded together, on as many replicas as there are machines.

    serve run chatterbox_turbo_rs.serve.ray:application model=turbo replicas=2 cpus=8

It answers ``POST /v1/audio/speech`` as ``chatterbox-turbo serve`` does, with a whole sound, and ``GET /health``. Streams, voices to upload
and the page are that server's.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..audio.growing import TYPES, whole_file
from ..constants import SAMPLE_RATE
from ..errors import ArgumentError, BackendError, ChatterboxError
from ..options import MAX_TOKENS, Result, between, whole
from . import errors, fields, settings
from .errors import ApiError
from .guard import TEXT, Body
from .store import VoiceStore

if TYPE_CHECKING:
    from ..model import ChatterboxTurbo


@dataclass(frozen=True)
class Settings:
    """What ``application`` is given, checked. Raises ``ArgumentError`` for what it does not know.

    ``voices`` is the directory of voice files that ``chatterbox-turbo serve --voices`` takes. A batch waits ``wait`` seconds for more.
    ``max_tokens`` limits each segment of a text where a request does not say it.
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
            chosen = cls(**{name: kinds.get(name, str)(value) for name, value in arguments.items()})
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"application: {error}") from None
        whole("replicas", chosen.replicas, 1, 10_000)
        whole("batch", chosen.batch, 1, 1024)
        whole("max_tokens", chosen.max_tokens, 1, MAX_TOKENS)
        between("wait", chosen.wait, 0.0, 10.0, "seconds")
        return chosen


def application(arguments: Mapping[str, Any]) -> Any:
    """The deployment, for ``serve.run`` and ``serve run``: see ``Settings``. Raises ``ArgumentError``, ``BackendError`` without Ray Serve."""
    chosen = Settings.of(arguments)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        from ray import serve
    except ImportError as error:
        raise BackendError(f"Ray Serve is missing ({error}); pip install 'chatterbox-turbo-rs[ray]'") from None

    class Speech(Speaker):
        """``Speaker`` whose texts are gathered by Serve."""

        @serve.batch(max_batch_size=chosen.batch, batch_wait_timeout_s=chosen.wait)
        async def together(self, wanted: list[fields.SpeechRequest]) -> list[tuple[Result, int]]:
            return await asyncio.to_thread(self.speak, wanted)

    deployment = serve.deployment(
        name="Speech",
        num_replicas=chosen.replicas,
        max_ongoing_requests=4 * chosen.batch,
        ray_actor_options={"num_cpus": chosen.cpus, "num_gpus": chosen.gpus},
    )
    return deployment(Speech).bind(chosen)


class Speaker:
    """A replica: one model, on as many threads as it was given CPUs."""

    def __init__(self, chosen: Settings) -> None:
        os.environ["RAYON_NUM_THREADS"] = str(max(1, int(chosen.cpus)))  # read when the threads are started
        from ..model import ChatterboxTurbo

        self._batch, self._max_tokens = chosen.batch, chosen.max_tokens
        self._tts: ChatterboxTurbo = ChatterboxTurbo.from_pretrained(
            chosen.model,
            device=chosen.device,
            precision=chosen.precision,  # type: ignore[arg-type]
            progress=False,
        )
        self._rules = settings.Settings(settings.name_of(chosen.model))
        self._voices = VoiceStore(Path(chosen.voices) if chosen.voices else None, self._tts.builtin_voice is not None)

    async def __call__(self, request: Any) -> Any:
        """A Starlette request's answer."""
        from starlette.requests import Request

        body = Body(request.receive, TEXT, self._rules.patience)
        try:
            return await self._answer(Request(request.scope, body))
        except (ApiError, ChatterboxError) as error:
            return errors.of(error, params=tuple(fields.FIELDS)).response()

    async def _answer(self, request: Any) -> Any:
        from starlette.responses import JSONResponse, Response

        path = request.url.path.rstrip("/")
        if path == "/health":
            return JSONResponse({"status": "ok"})
        if path != "/v1/audio/speech":
            raise ApiError(404, f"expected /v1/audio/speech or /health, got {path or '/'}")
        if request.method != "POST":
            raise ApiError(405, f"expected POST, got {request.method}")
        wanted = fields.parse(await fields.json_object(request), self._rules)
        if wanted.sse:
            raise ApiError(400, "stream_format: expected audio, as this deployment answers with whole sounds", "stream_format")
        self._voices.find(wanted.voice)
        result, together = await self.together(wanted)  # type: ignore[attr-defined]
        if isinstance(result, ChatterboxError):
            raise result
        sound = await asyncio.to_thread(whole_file, result.samples, SAMPLE_RATE, wanted.format)
        headers = {"X-Chatterbox-Seed": str(result.seed), "X-Chatterbox-Batch": str(together)}
        return Response(sound, media_type=TYPES[wanted.format], headers=headers)

    def speak(self, wanted: Sequence[fields.SpeechRequest]) -> list[tuple[Result, int]]:
        """The results in their order, each with how many were decoded together: those whose arguments are the same."""
        groups: dict[str, list[int]] = {}
        for number, one in enumerate(wanted):
            groups.setdefault(json.dumps(one.arguments, sort_keys=True), []).append(number)
        results: dict[int, tuple[Result, int]] = {}
        for numbers in groups.values():
            group = [wanted[number] for number in numbers]
            arguments = {"max_tokens": self._max_tokens, **group[0].arguments}
            arguments.pop("latency", None)  # of streams
            spoken = self._tts.generate_many(
                [one.text for one in group],
                [self._voices.find(one.voice) for one in group],
                [one.seed for one in group],
                batch=self._batch,
                errors="return",
                **arguments,
            )
            results.update(zip(numbers, ((result, len(group)) for result in spoken)))
        return [results[number] for number in range(len(wanted))]
