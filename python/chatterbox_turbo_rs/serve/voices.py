"""``/v1/audio/voices``: the list, a clip that becomes a voice, and away with one."""

from __future__ import annotations

import dataclasses
import datetime
import threading
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse

from .errors import ApiError
from .sound import sound
from .state import state_of
from .store import Stored, checked
from .uploads import alone, file_field, request_form, text_field

NO = ("", "0", "false", "no", "none", "null", "off")
LONGEST_CONSENT = 2_000


async def voices(request: Request) -> JSONResponse:
    """The endpoint of the list."""
    return await (uploaded(request) if request.method == "POST" else listed(request))


async def listed(request: Request) -> JSONResponse:
    """``GET``: as OpenAI lists things, and as Open WebUI and others read voices."""
    found = await run_in_threadpool(state_of(request).voices.list)
    names = [{"id": voice.name, "name": voice.name} for voice in found]
    return JSONResponse({"object": "list", "data": [_shown(voice) for voice in found], "voices": names})


async def uploaded(request: Request) -> JSONResponse:
    """``POST``: a form with ``name``, ``consent`` and the clip as ``audio_sample`` (or ``file``)."""
    state = state_of(request)
    async with request_form(request) as form:
        name = checked(text_field(form, "name"))
        consent = text_field(form, "consent")
        if consent.strip().lower() in NO or len(consent) > LONGEST_CONSENT:
            expected = f"who agreed that this voice is cloned, and how, in at most {LONGEST_CONSENT} characters"
            raise ApiError(400, f"consent: expected {expected}, got {ascii(consent)[:60]}", "consent", "consent_required")
        clip = await file_field(form, "audio_sample", "file")
    await run_in_threadpool(state.voices.free, name)

    def prepare(cancel: threading.Event) -> Stored:
        voice = state.tts.voice(sound(clip, state.settings.longest_clip, "audio_sample"), cancel=cancel)
        if np.ptp(voice.s3gen_prompt_mel) == 0:
            raise ApiError(400, "audio_sample: expected somebody speaking, found silence", "audio_sample")
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        more = {**voice.metadata, "consent": consent, "created": now}
        return state.voices.add(name, dataclasses.replace(voice, metadata=more))

    return JSONResponse(_shown(await alone(request, state, prepare, ("audio_sample",))), 201)


async def removed(request: Request) -> JSONResponse:
    """``DELETE /v1/audio/voices/NAME``."""
    name = request.path_params["name"]
    await run_in_threadpool(state_of(request).voices.remove, name)
    return JSONResponse({"id": name, "object": "audio.voice.deleted", "deleted": True})


def _shown(voice: Stored) -> dict[str, Any]:
    return {"object": "audio.voice", "id": voice.name, "name": voice.name, "created_at": voice.created}
