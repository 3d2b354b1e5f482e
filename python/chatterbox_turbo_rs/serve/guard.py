"""What stands before every endpoint: who may ask, how much may be sent, and errors as clients read them."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import errors
from .errors import ApiError
from .speech import ClientGone
from .state import State

OPEN = ("/", "/health", "/ready", "/openapi.json")
"""Paths that need no key; and all below:"""
OPEN_BELOW = ("/page/",)
TEXT = 4_000_000
"""Bytes of a body that holds no file."""
FORMS = ("/v1/audio/voices", "/v1/audio/conversions")
FORM = 64_000
"""Bytes of a form beside its file."""
DRAINED = 256_000_000
"""Bytes of a body which are read though it is refused, so that its sender comes to read the answer;"""
DRAINING = 10.0
"""seconds that this may take."""

_CLOSE = {"Connection": "close"}

logger = logging.getLogger(__name__)


class Guard:
    """ASGI middleware around the endpoints."""

    def __init__(self, app: ASGIApp, state: Callable[[], State]) -> None:
        self._app, self._state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        state, path = self._state(), scope["path"]
        status = 0

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        body = Body(receive, self._limit(state, path), state.settings.patience)
        try:
            self._check(state, scope, Headers(scope=scope))
            body.check(Headers(scope=scope))
            await self._app(scope, body, counted)
        except (ClientDisconnect, ClientGone):
            pass  # nobody reads an answer any more, or it must not look complete
        except asyncio.CancelledError:
            if not state.draining:  # else the time that was left to it is over, and a traceback tells nothing
                raise
        except Exception as raised:
            error = self._told(raised)
            if status:
                raise
            if Headers(scope=scope).get("expect", "").lower() != "100-continue":
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(body.drain(), DRAINING)
            if error.status == 429:
                state.metrics.refused.inc()
            await error.response()(scope, receive, counted)
        finally:
            state.metrics.requests.labels(_template(path), str(status or 499)).inc()

    @staticmethod
    def _limit(state: State, path: str) -> int:
        return state.settings.max_upload + FORM if path in FORMS else TEXT

    @staticmethod
    def _check(state: State, scope: Scope, headers: Headers) -> None:
        """Raises ``ApiError`` for a request that isn't answered."""
        settings, host, origin = state.settings, headers.get("host", ""), headers.get("origin")
        if settings.hosts and _name(host) not in settings.hosts:
            raise ApiError(403, f"Host: expected one of {', '.join(settings.hosts)}, got {host[:80]!r}", code="host_not_allowed")
        if origin is not None and "*" not in settings.origins and origin not in settings.origins:
            if urlsplit(origin).netloc != host:
                raise ApiError(403, "Origin: pages of another origin may not ask (--cors-origin)", code="origin_not_allowed")
        path = scope["path"]
        if settings.api_key is not None and path not in OPEN and not path.startswith(OPEN_BELOW) and scope["method"] != "OPTIONS":
            kind, _, key = headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not hmac.compare_digest(key.strip().encode(), settings.api_key.encode()):
                said = {"WWW-Authenticate": "Bearer"}
                raise ApiError(401, "Authorization: expected Bearer with the server's key", code="invalid_api_key", headers=said)
        if state.draining and path.startswith("/v1/") and scope["method"] == "POST":
            raise ApiError(503, "the server stops", code="stopping", headers={"Retry-After": "10", "Connection": "close"})

    @staticmethod
    def _told(error: Exception) -> ApiError:
        if isinstance(error, HTTPException):
            return ApiError(error.status_code, error.detail, headers=error.headers)
        return errors.of(error)


class Body:
    """``receive`` that raises ``ApiError`` where a body is longer than ``most`` bytes, or does not go on for ``patience`` seconds."""

    def __init__(self, receive: Receive, most: int, patience: float) -> None:
        self._receive, self._most, self._patience = receive, most, patience
        self._length, self._more = 0, True

    def check(self, headers: Headers) -> None:
        """Refuses what says that it is too long."""
        said = headers.get("content-length", "")
        if said.isascii() and said.isdigit() and int(said) > self._most:
            raise self._too_long()

    async def __call__(self) -> Message:
        if not self._more:  # what comes now is that the client has gone
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self._patience)
        except asyncio.TimeoutError:
            raise ApiError(
                408, f"body: expected more of it within {self._patience:g} s", code="timeout", headers=_CLOSE
            ) from None
        if message["type"] == "http.request":
            self._length += len(message.get("body", b""))
            self._more = message.get("more_body", False)
            if self._length > self._most:
                raise self._too_long()
        return message

    async def drain(self) -> None:
        """Reads the rest, up to a limit."""
        while self._more and self._length < DRAINED:
            message = await self._receive()
            if message["type"] != "http.request":
                return
            self._length += len(message.get("body", b""))
            self._more = message.get("more_body", False)

    def _too_long(self) -> ApiError:
        return ApiError(413, f"body: expected at most {self._most} bytes", code="body_too_large", headers=_CLOSE)


def _name(host: str) -> str:
    """A Host header without the port."""
    return host.partition("]")[0].lstrip("[").lower() if host.startswith("[") else host.partition(":")[0].lower()


def _template(path: str) -> str:
    """The path as metrics count it: one for all voices, one for all that is not there."""
    for known in ("/v1/audio/voices", "/v1/models"):
        if path.startswith(known + "/"):
            return known + "/NAME"
    known_paths = ("/", "/health", "/ready", "/metrics", "/openapi.json", "/v1/models", "/v1/audio/models")
    if path in (*known_paths, "/v1/audio/speech", "/v1/audio/comparisons", *FORMS):
        return path
    return "other"


async def not_found(request: object, error: Exception) -> JSONResponse:
    """404 and 405 as clients read them."""
    assert isinstance(error, HTTPException)
    return ApiError(error.status_code, error.detail, headers=error.headers).response()
