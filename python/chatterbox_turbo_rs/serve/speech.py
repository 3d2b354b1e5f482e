"""``POST /v1/audio/speech``: a text in, its sound as it is made out; or server-sent events with the sound and, at the end, how it was spoken."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import time
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..audio.growing import TYPES, Growing
from ..constants import SAMPLE_RATE
from ..engine.open_job import Event, Job, Report
from ..errors import ChatterboxError
from ..speech import Chunk
from . import errors, fields
from .errors import ApiError
from .state import State, state_of
from .store import BUILT_IN
from .uploads import gone

IGNORED = 8
"""Names of fields that the header tells at most."""


async def speech(request: Request) -> Response | SpokenResponse:
    """The endpoint."""
    state = state_of(request)
    wanted = fields.parse(await fields.json_object(request), state.settings)
    voice = await run_in_threadpool(state.voices.find, wanted.voice)
    loop, events = asyncio.get_running_loop(), asyncio.Queue[Event]()

    def give(event: Event) -> None:
        loop.call_soon_threadsafe(events.put_nowait, event)

    started = time.monotonic()
    try:
        job = state.batch.submit(wanted.text, give, voice=voice, seed=wanted.seed, **wanted.arguments)
    except ChatterboxError as error:
        raise errors.of(error, state.batch.retry_after, tuple(fields.FIELDS)) from None
    headers = {
        "X-Chatterbox-Seed": str(wanted.seed),
        "X-Chatterbox-Model": state.settings.model,
        "X-Chatterbox-Voice": BUILT_IN if voice is None else wanted.voice,
    }
    if wanted.ignored:
        names = [name for name in wanted.ignored if name.isascii() and name.isidentifier() and len(name) < 40]
        headers["X-Chatterbox-Ignored"] = ", ".join(names[:IGNORED]) or "unknown"
    return SpokenResponse(state, job, events, wanted, headers, started)


class SpokenResponse:
    """Sends what a job gives, as fast as it is taken; ends the job when the client goes, or takes nothing for too long."""

    def __init__(
        self,
        state: State,
        job: Job,
        events: asyncio.Queue[Event],
        wanted: fields.SpeechRequest,
        headers: dict[str, str],
        started: float,
    ) -> None:
        self.state, self.job, self.events, self.wanted, self.headers = state, job, events, wanted, headers
        self.started, self.begun = started, False
        self.status_code = 200

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        speaking = asyncio.ensure_future(self._speak(scope, receive, send))
        watching = asyncio.ensure_future(gone(receive))
        try:
            await asyncio.wait({speaking, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not speaking.done():
                self.state.metrics.gone.inc()
                return
            await speaking
        finally:
            self.job.cancel()
            for task in (speaking, watching):
                task.cancel()
            await asyncio.gather(speaking, watching, return_exceptions=True)

    async def _speak(self, scope: Scope, receive: Receive, send: Send) -> None:
        out = Growing(SAMPLE_RATE, self.wanted.format)
        body = functools.partial(self._body, send)
        while True:
            event = await self.events.get()
            if isinstance(event, ChatterboxError):
                await self._failed(errors.of(event, 10, tuple(fields.FIELDS)), scope, receive, send)
                return
            if isinstance(event, Report):
                rest = out.finish() if out.quick else await run_in_threadpool(out.finish)
                await self._start(send)
                await body(self._delta(rest) + (self._done(event) if self.wanted.sse else b""), False)
                self.state.metrics.whole.observe(time.monotonic() - self.started)
                return
            data = out.feed(event.samples) if out.quick else await run_in_threadpool(out.feed, event.samples)
            await self._start(send)
            if data:
                await body(self._delta(data), True)
            self._took(event)

    def _took(self, chunk: Chunk) -> None:
        self.job.took(len(chunk))
        self.state.metrics.sound.inc(len(chunk) / SAMPLE_RATE)

    async def _start(self, send: Send) -> None:
        """The status and the headers, once."""
        if self.begun:
            return
        self.begun = True
        self.state.metrics.first_byte.observe(time.monotonic() - self.started)
        kind = "text/event-stream; charset=utf-8" if self.wanted.sse else TYPES[self.wanted.format]
        headers = {"Content-Type": kind, "Cache-Control": "no-store", "X-Accel-Buffering": "no", **self.headers}
        raw = [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})

    async def _body(self, send: Send, data: bytes, more: bool) -> None:
        """A part of the body. Raises ``ClientGone`` for a client that takes nothing for too long."""
        try:
            sending = send({"type": "http.response.body", "body": data, "more_body": more})
            await asyncio.wait_for(sending, self.state.settings.patience)
        except asyncio.TimeoutError:
            self.state.metrics.gone.inc()
            raise ClientGone from None

    async def _failed(self, error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
        """Tells what is wrong: as the answer, as an event, or, where the sound has begun, by an answer that isn't complete."""
        if not self.begun:
            self.status_code = error.status
            await error.response()(scope, receive, send)
        elif self.wanted.sse:
            await self._body(send, _event({"type": "error", **error.body()}), False)
        else:
            raise ClientGone

    def _delta(self, data: bytes) -> bytes:
        if not self.wanted.sse or not data:
            return data
        return _event({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode("ascii")})

    def _done(self, report: Report) -> bytes:
        """The last event. Seeds are digits: 64 bits are more than a double holds."""
        usage = {"input_tokens": report.text_tokens, "output_tokens": report.tokens}
        usage["total_tokens"] = report.text_tokens + report.tokens
        segments = [
            {
                "text": segment.text,
                "start": round(segment.start, 6),
                "end": round(segment.end, 6),
                "tokens": segment.tokens,
                "seed": str(segment.seed),
                "attempts": segment.attempts,
                "verdict": ", ".join(segment.faults) or "ok",
            }
            for segment in report.segments
        ]
        more = {"seconds": report.seconds, "finish_reason": report.finish_reason, "seed": str(report.seed)}
        return _event({"type": "speech.audio.done", "usage": usage, **more, "segments": segments})


class ClientGone(Exception):
    """The answer ends here, without its end."""


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n\n"
