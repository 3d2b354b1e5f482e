"""What a server says of itself: health, readiness, figures, models."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from . import fields
from .state import state_of


async def health(request: Request) -> JSONResponse:
    """``GET /health``: 503 when the engine has work and has made no step for too long, or its thread has ended."""
    state = state_of(request)
    stuck = state.batch.stuck()
    well = stuck < state.settings.stuck
    said = {"status": "ok" if well else "stuck", "stuck_seconds": round(stuck, 1) if stuck < 1e9 else None}
    return JSONResponse(said, 200 if well else 503)


async def ready(request: Request) -> JSONResponse:
    """``GET /ready``: 503 while no request would be taken."""
    state = state_of(request)
    here, _ = state.batch.load
    full = here >= state.settings.batch + state.settings.max_queue
    stuck = state.batch.stuck() >= state.settings.stuck
    status = "stopping" if state.draining else "stuck" if stuck else "full" if full else "ready"
    return JSONResponse({"status": status, "requests": here}, 200 if status == "ready" else 503)


async def metrics(request: Request) -> Response:
    """``GET /metrics``, for Prometheus."""
    return Response(state_of(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _model(request: Request) -> dict[str, object]:
    state = state_of(request)
    return {"id": state.settings.model, "object": "model", "created": int(state.started), "owned_by": "chatterbox-turbo-rs"}


async def models(request: Request) -> JSONResponse:
    """``GET /v1/models``, and ``/v1/audio/models`` as Open WebUI reads it."""
    shown = _model(request)
    return JSONResponse({"object": "list", "data": [shown], "models": [{"id": shown["id"], "name": shown["id"]}]})


async def model(request: Request) -> JSONResponse:
    """``GET /v1/models/NAME``."""
    fields.model_of(request.path_params["name"], state_of(request).settings)
    return JSONResponse(_model(request))
