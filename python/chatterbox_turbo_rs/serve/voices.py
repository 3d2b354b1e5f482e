"""``/v1/audio/voices``: the list, a clip that becomes a voice, and away with one."""

from __future__ import annotations

import dataclasses
import datetime
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from ..errors import ChatterboxError
from . import errors
from .errors import ApiError
from .sound import check_length
from .state import State, state_of
from .store import Stored, checked

WAITING = 8
"""Clips that may wait to be prepared or converted."""
NO = ("", "0", "false", "no", "none", "null", "off")
LONGEST_CONSENT = 2_000
T = TypeVar("T")


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
        check_length(clip, state.settings.longest_clip, "audio_sample")
        voice = state.tts.voice(clip, cancel=cancel)
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        more = {**voice.metadata, "consent": consent, "created": now}
        return state.voices.add(name, dataclasses.replace(voice, metadata=more))

    return JSONResponse(_shown(await alone(state, prepare, ("audio_sample",))), 201)


async def removed(request: Request) -> JSONResponse:
    """``DELETE /v1/audio/voices/NAME``."""
    name = request.path_params["name"]
    await run_in_threadpool(state_of(request).voices.remove, name)
    return JSONResponse({"id": name, "object": "audio.voice.deleted", "deleted": True})


async def alone(state: State, work: Callable[[threading.Event], T], params: tuple[str, ...] = ()) -> T:
    """``work(cancel)`` in a thread, one at a time; ``cancel`` is set when nobody waits for it any more."""
    if state.waiting >= WAITING:
        state.metrics.refused.inc()
        raise ApiError(
            429, f"busy: {state.waiting} clips wait, and no more may", code="queue_full", headers={"Retry-After": "10"}
        )
    cancel = threading.Event()
    state.waiting += 1
    try:
        async with state.alone:
            return await run_in_threadpool(work, cancel)
    except ChatterboxError as error:
        raise errors.of(error, params=params) from None
    finally:
        cancel.set()
        state.waiting -= 1


class request_form:
    """``async with request_form(request) as form``: a multipart form; what is wrong with it is an ``ApiError``."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._form: FormData | None = None

    async def __aenter__(self) -> FormData:
        kind = self._request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "multipart/form-data":
            raise ApiError(415, f"Content-Type: expected multipart/form-data, got {kind or 'none'}")
        try:
            self._form = await self._request.form(max_files=2, max_fields=20, max_part_size=1 << 20)
        except ClientDisconnect:
            raise
        except ApiError:
            raise
        except Exception as error:  # starlette's, the parser's, and those of decoding what is in it
            raise ApiError(400, f"body: expected a form: {getattr(error, 'detail', None) or error}") from None
        return self._form

    async def __aexit__(self, *error: object) -> None:
        if self._form is not None:
            await self._form.close()


def text_field(form: FormData, name: str, default: str | None = None) -> str:
    """A field of text."""
    value: Any = form.get(name, default)
    if not isinstance(value, str):
        raise ApiError(400, f"{name}: expected text, got {'nothing' if value is None else 'a file'}", name)
    return value


async def file_field(form: FormData, *names: str) -> bytes:
    """The content of the first of these fields that is there."""
    value = next((form[name] for name in names if name in form), None)
    if not isinstance(value, UploadFile):
        raise ApiError(400, f"{names[0]}: expected a sound file, got {'nothing' if value is None else 'text'}", names[0])
    data = await value.read()
    if not data:
        raise ApiError(400, f"{names[0]}: expected a sound file, got an empty one", names[0])
    return data


def _shown(voice: Stored) -> dict[str, Any]:
    return {"object": "audio.voice", "id": voice.name, "name": voice.name, "created_at": voice.created}
