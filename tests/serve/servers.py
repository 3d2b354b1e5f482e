"""A server of this process on a free port, for tests that talk to it over real sockets."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette

from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.serve.app import create_app
from chatterbox_turbo_rs.serve.run import bound, server
from chatterbox_turbo_rs.serve.settings import Settings


@dataclass
class Served:
    """``url`` has no path; ``app.state.serve`` is the server's state."""

    port: int
    app: Starlette

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base(self) -> str:
        return f"{self.url}/v1"


@contextlib.contextmanager
def serving(tts: ChatterboxTurbo, **settings: Any) -> Iterator[Served]:
    """A server with the settings; afterwards it has ended, with its threads."""
    app = create_app(tts, Settings(**settings))
    with bound("127.0.0.1", 0, 60) as listening:
        running = server(app, 2)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        while not running.started and thread.is_alive():
            thread.join(0.01)
        assert running.started
        try:
            yield Served(listening.getsockname()[1], app)
        finally:
            running.should_exit = True
            thread.join(60)
            assert not thread.is_alive(), "the server has not ended"
    assert not any(thread.is_alive() for thread in app.state.serve.batch._threads), "a thread of the engine is left"
