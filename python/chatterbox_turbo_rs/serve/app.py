"""The application: which path is answered by what."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from . import conversions, openapi, speech, status, voices
from .compare import Comparisons
from .guard import Guard, not_found
from .metrics import Metrics
from .settings import Settings
from .site import Site
from .state import State
from .store import VoiceStore

if TYPE_CHECKING:
    from ..model import ChatterboxTurbo

EXPOSED = ("X-Chatterbox-Seed", "X-Chatterbox-Model", "X-Chatterbox-Voice", "X-Chatterbox-Ignored", "Retry-After")


def create_app(tts: ChatterboxTurbo, settings: Settings | None = None) -> Starlette:
    """An ASGI application that speaks with ``tts``. Its engine runs from the application's start-up to its shutdown.

    Raises ``FileError`` where the directory of voices is none.
    """
    settings = settings or Settings()
    store = VoiceStore(settings.voices, tts.builtin_voice is not None)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        figures = Metrics()
        batch = tts.open_batch(settings.batch, waiting=settings.max_queue)
        figures.watch(batch)
        app.state.serve = State(tts, settings, store, figures, time.time(), batch)
        try:
            yield
        finally:
            app.state.serve.draining = True
            await run_in_threadpool(batch.close)

    site = Site()
    routes = [
        Route("/", site.index),
        Route("/page/about", site.about),
        Route("/page/{name}", site.file),
        Route("/health", status.health),
        Route("/ready", status.ready),
        Route("/metrics", status.metrics),
        Route("/openapi.json", openapi.described),
        Route("/v1/models", status.models),
        Route("/v1/models/{name:path}", status.model),
        Route("/v1/audio/models", status.models),
        Route("/v1/audio/speech", speech.speech, methods=["POST"]),
        Route("/v1/audio/conversions", conversions.conversion, methods=["POST"]),
        Route("/v1/audio/comparisons", Comparisons().__call__, methods=["GET", "POST"]),
        Route("/v1/audio/voices", voices.voices, methods=["GET", "POST"]),
        Route("/v1/audio/voices/{name}", voices.removed, methods=["DELETE"]),
    ]
    middleware = []
    if settings.origins:
        origins, every = list(settings.origins), ["*"]
        middleware.append(
            Middleware(
                CORSMiddleware, expose_headers=list(EXPOSED), allow_origins=origins, allow_methods=every, allow_headers=every
            )
        )
    app: Starlette
    middleware.append(Middleware(Guard, state=lambda: app.state.serve))
    app = Starlette(routes=routes, lifespan=lifespan, middleware=middleware, exception_handlers={HTTPException: not_found})
    app.router.redirect_slashes = False
    return app
