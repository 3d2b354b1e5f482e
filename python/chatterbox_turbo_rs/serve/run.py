"""An application on an address until a signal ends it: then nothing new is taken, what runs is finished, and the process ends with 0."""

from __future__ import annotations

import contextlib
import faulthandler
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from ..errors import FileError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STUCK = 30.0
"""Seconds after those of ``--drain`` within which all has ended."""


def bound(host: str, port: int, patience: float) -> socket.socket:
    """A socket on the address, before a model is loaded. Raises ``FileError`` that names it where the system refuses."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":  # where it would let a second server take the port
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # a connection that takes nothing ends, whatever waits to be sent
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * patience))
        found.bind((host, port))
        found.set_inheritable(True)
    except (OSError, OverflowError) as error:
        found.close()
        raise FileError(f"{host}:{port}: cannot listen there: {getattr(error, 'strerror', None) or error}") from None
    return found


class Server(uvicorn.Server):
    """uvicorn's, which a signal ends as it should: the first one drains, the second one does not wait."""

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._stopping = stopping

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but that the signal isn't raised again when the server has ended."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stopping()
        super().handle_exit(sig, frame)


def server(app: Starlette, drain: float, signalled: Callable[[], None] = lambda: None) -> Server:
    """A server for ``app``; requests that run when it is told to stop have ``drain`` seconds to end. A signal calls ``signalled`` too."""
    config = uvicorn.Config(
        app,
        http="h11",  # which knows HTTP/1.0
        ws="none",
        lifespan="on",
        access_log=False,
        timeout_graceful_shutdown=max(round(drain), 1),
        server_header=False,
        log_config=None,
    )

    def stopping() -> None:
        signalled()
        app.state.serve.draining = True

    return Server(config, stopping)


def run(app: Starlette, listening: socket.socket, drain: float) -> bool:
    """Serves until a signal; False where the application did not start. What hangs then does not keep the process: after ``STUCK``
    more seconds it tells what its threads are at, and ends with 1.
    """
    running = server(app, drain, lambda: faulthandler.dump_traceback_later(drain + STUCK, exit=True, file=2))
    try:
        running.run(sockets=[listening])
    finally:
        faulthandler.cancel_dump_traceback_later()
    return running.started
