"""``/v1/audio/comparisons``: what can be compared here, and one text spoken in two ways. One at a time; whoever comes meanwhile is told so."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from anyio import to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from ..engine import registry
from ..engine.comparison import SPEAKING, precisions
from ..errors import BackendError, CancelledError, ChatterboxError
from ..options import Split
from . import errors, fields
from .errors import ApiError
from .state import State, state_of
from .uploads import gone

LONGEST = Split.longest
"""Characters of a text: those of one segment."""
SAMPLING = ("temperature", "top_p", "top_k", "repetition_penalty", "max_tokens", "watermark", "pronounce")


class Comparisons:
    """The endpoint."""

    def __init__(self) -> None:
        self._busy = False

    async def __call__(self, request: Request) -> JSONResponse:
        """``GET`` and ``POST``."""
        state = state_of(request)
        if not state.settings.compare:
            raise ApiError(403, "this server compares nothing (it was started with --no-compare)", code="comparisons_off")
        return await (self._can(state) if request.method in ("GET", "HEAD") else self._compared(request, state))

    async def _can(self, state: State) -> JSONResponse:
        """The stages, why a side of one cannot run here, what runs now, and the precisions."""
        plan, here = state.tts.plan, await to_thread.run_sync(registry.available)
        stages = [{"stage": key, **here[key], "now": plan[key]} for key in SPEAKING]
        known = list(precisions(state.tts.device))
        said = {"stages": stages, "precisions": known, "precision": state.tts.precision, "max_input": LONGEST, "busy": self._busy}
        return JSONResponse({"object": "audio.comparisons", **said})

    async def _compared(self, request: Request, state: State) -> JSONResponse:
        body = await fields.json_object(request)
        wanted = fields.parse({name: value for name, value in body.items() if name not in ("a", "b")}, state.settings)
        if len(wanted.text) > LONGEST:
            got = f"expected at most {LONGEST} characters, got {len(wanted.text)}"
            raise ApiError(400, f"input: {got}", "input", "string_above_max_length")
        sides = [_side(name, body.get(name), state) for name in ("a", "b")]
        voice = await to_thread.run_sync(state.voices.find, wanted.voice)
        arguments = {name: value for name, value in wanted.arguments.items() if name in SAMPLING}
        if self._busy:
            raise ApiError(429, "busy: another comparison is being made", code="comparing", headers={"Retry-After": "10"})

        def work(cancel: threading.Event) -> dict[str, Any]:
            tts = state.tts
            return tts.compare(wanted.text, *sides, voice=voice, seed=wanted.seed, cancel=cancel, **arguments).document()

        return JSONResponse(await self._alone(request, work))

    async def _alone(self, request: Request, work: Any) -> dict[str, Any]:
        """``work(cancel)`` in a thread; busy until the thread has ended, also where the client has gone before."""
        cancel, watching = threading.Event(), asyncio.ensure_future(gone(request.receive))
        watching.add_done_callback(lambda _: cancel.set())
        self._busy, started = True, False

        def run() -> dict[str, Any]:
            nonlocal started
            started = True
            try:
                return work(cancel)
            finally:
                self._busy = False

        try:
            return await to_thread.run_sync(run, abandon_on_cancel=True)
        except CancelledError:
            raise ClientDisconnect from None
        except ChatterboxError as error:
            raise errors.of(error, params=(*fields.FIELDS, "a", "b")) from None
        finally:
            self._busy = self._busy and started
            cancel.set()
            watching.cancel()


def _side(name: str, given: Any, state: State) -> tuple[Any, Any]:
    """The switch and the precision of one side, checked. Raises ``ApiError``."""
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise ApiError(400, f"{name}: expected an object with backends and precision, got {type(given).__name__}", name)
    precision = given.get("precision") or "auto"
    known = ("auto", *precisions(state.tts.device))
    if precision not in known:
        raise ApiError(400, f"{name}.precision: expected one of {', '.join(known)}, got {ascii(precision)[:60]}", name)
    try:
        registry.resolve(given.get("backends"))
    except BackendError as error:
        raise ApiError(400, f"{name}.backends: {error}", name) from None
    return given.get("backends"), precision
