"""Forms with a sound in them, and the work that such a sound is: one at a time, beside the engine's."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from anyio import to_thread
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from ..errors import CancelledError, ChatterboxError
from . import errors
from .errors import ApiError
from .state import State

WAITING = 8
"""Clips that may wait to be prepared or converted."""
T = TypeVar("T")

logger = logging.getLogger(__name__)


async def alone(request: Request, state: State, work: Callable[[threading.Event], T], params: tuple[str, ...] = ()) -> T:
    """``work(cancel)`` in a thread, one at a time; ``cancel`` is set when the client has gone. Raises ``ApiError``."""
    if state.waiting >= WAITING:
        raise ApiError(
            429, f"busy: {state.waiting} clips wait, and no more may", code="queue_full", headers={"Retry-After": "10"}
        )
    cancel, watching = threading.Event(), asyncio.ensure_future(gone(request.receive))
    watching.add_done_callback(lambda _: cancel.set())
    state.waiting += 1
    try:
        async with state.alone:
            return await to_thread.run_sync(work, cancel, abandon_on_cancel=True)
    except CancelledError:
        raise ClientDisconnect from None
    except ChatterboxError as error:
        raise errors.of(error, params=params) from None
    finally:
        cancel.set()
        watching.cancel()
        state.waiting -= 1


async def gone(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


class request_form:
    """``async with request_form(request) as form``: a multipart form; what is wrong with it is an ``ApiError``."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._form: FormData | None = None

    async def __aenter__(self) -> FormData:
        kind = self._request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "multipart/form-data":
            raise ApiError(415, f"Content-Type: expected multipart/form-data, got {kind or 'none'}")
        stream = self._request.stream()
        parser = MultiPartParser(self._request.headers, stream, max_files=2, max_fields=20, max_part_size=1 << 20)
        try:
            self._form = await parser.parse()
        except (ClientDisconnect, ApiError):
            raise
        except OSError as error:  # of the temporary file
            logger.error("body: cannot be kept: %s", error.strerror or error)
            raise ApiError(500, f"body: cannot be kept: {error.strerror or error}") from None
        except Exception as error:  # starlette's, the parser's, and those of decoding what is in it
            raise ApiError(400, f"body: expected a form: {getattr(error, 'detail', None) or error}") from None
        finally:
            if self._form is None:  # older starlettes leave them, and their room on the disk, to the garbage collector
                for file in parser._files_to_close_on_error:
                    file.close()
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
