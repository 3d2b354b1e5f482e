"""Errors in the shape that OpenAI's clients read: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from ..errors import (
    ArgumentError,
    AudioError,
    BusyError,
    CancelledError,
    ChatterboxError,
    TextError,
    VoiceError,
)

logger = logging.getLogger(__name__)


class ApiError(Exception):
    """An answer that is an error."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The JSON object."""
        kind = "rate_limit_error" if self.status == 429 else "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.body(), self.status, self.headers)


def of(error: BaseException, retry_after: int = 1, params: tuple[str, ...] = ()) -> ApiError:
    """What a client is told of ``error``; ``params`` are the names of arguments that a message may begin with."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, BusyError):
        return ApiError(429, f"busy: {error}", code="queue_full", headers={"Retry-After": str(retry_after)})
    if isinstance(error, CancelledError):
        return ApiError(503, "the server stops", code="stopping", headers={"Retry-After": "10"})
    if isinstance(error, (ArgumentError, TextError, AudioError, VoiceError)):
        name = str(error).partition(":")[0].partition(".")[0]
        name = "input" if name == "text" else name
        return ApiError(400, str(error), name if name in params else None)
    if not isinstance(error, ChatterboxError):
        logger.error("a request ended with a defect", exc_info=error)
        return ApiError(500, f"a defect, please report it: {type(error).__name__}")
    logger.error("%s", error)
    return ApiError(500, str(error))
