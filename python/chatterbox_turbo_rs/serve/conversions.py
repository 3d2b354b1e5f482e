"""``POST /v1/audio/conversions``: what is said in a recording, in another voice."""

from __future__ import annotations

import threading

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from ..audio import growing
from ..constants import SAMPLE_RATE
from ..speech import Speech
from . import fields
from .errors import ApiError
from .sound import sound
from .state import state_of
from .store import BUILT_IN
from .uploads import alone, file_field, request_form, text_field


async def conversion(request: Request) -> Response:
    """The endpoint: a form with the recording as ``file`` (or ``audio_sample``), and ``voice``, ``response_format``, ``seed``, ``watermark``."""
    state = state_of(request)
    async with request_form(request) as form:
        name = text_field(form, "voice", BUILT_IN)
        kind = text_field(form, "response_format", "wav")
        seed = fields.seed_of(text_field(form, "seed", "") or None)
        mark = text_field(form, "watermark", "perth")
        clip = await file_field(form, "file", "audio_sample")
    if kind not in growing.TYPES:
        raise ApiError(400, f"response_format: expected {', '.join(growing.TYPES)}, got {ascii(kind)[:60]}", "response_format")
    if reason := growing.missing(kind):
        raise ApiError(400, f"response_format: {reason}", "response_format")
    if mark not in ("perth", "none"):
        raise ApiError(400, f"watermark: expected perth or none, got {ascii(mark)[:60]}", "watermark")
    if mark == "none" and state.settings.require_watermark:
        raise ApiError(403, "watermark: this server marks all speech", "watermark", "watermark_required")
    voice = await run_in_threadpool(state.voices.find, name)

    def convert(cancel: threading.Event) -> tuple[Speech, bytes]:
        source = sound(clip, state.settings.longest_clip, "file")
        speech = state.tts.convert(source, voice=voice, seed=seed, watermark=None if mark == "none" else "perth", cancel=cancel)
        return speech, growing.whole_file(speech.samples, SAMPLE_RATE, kind)

    speech, data = await alone(request, state, convert, ("voice", "file"))
    headers = {"X-Chatterbox-Seed": str(seed), "X-Chatterbox-Model": state.settings.model}
    headers["X-Chatterbox-Voice"] = BUILT_IN if voice is None else name
    state.metrics.sound.inc(speech.seconds)
    return Response(data, media_type=growing.TYPES[kind], headers=headers)
