"""``GET /openapi.json``: what can be asked, by the table that checks it."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from .. import _core
from ..audio.growing import TYPES
from ..options import PRECISIONS
from .compare import SAMPLING
from .fields import FIELDS, SEED
from .state import state_of

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_VOICE = {
    "type": "object",
    "required": ["object", "id", "name", "created_at"],
    "properties": {
        "object": {"const": "audio.voice"},
        "id": {"type": "string"},
        "name": {"type": "string"},
        "created_at": {"type": "integer"},
    },
}
_MODEL = {"type": "object", "required": ["id", "object", "created", "owned_by"]}
_SOUND = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in sorted(set(TYPES.values()))}
_STATUS = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}
_FAILURES = {
    400: "A field is wrong: error.param names it.",
    401: "The key is missing or wrong.",
    403: "The operator does not allow it.",
    404: "There is none of that name.",
    405: "Another method.",
    409: "The name is taken.",
    413: "The body is too large.",
    415: "Another Content-Type.",
    429: "The queue is full: come again after Retry-After seconds.",
    500: "It failed here.",
    503: "The server stops, or is stuck.",
}


def document(model: str, key: bool) -> dict[str, Any]:
    """The OpenAPI description of a server of ``model``; ``key``: does it ask for one?"""
    speech: dict[str, Any] = {
        "type": "object",
        "required": ["input"],
        "properties": {name: _optional(name, field) for name, field in FIELDS.items()},
    }
    form = {
        "type": "object",
        "required": ["name", "consent", "audio_sample"],
        "properties": {
            "name": {"type": "string", "pattern": "^[A-Za-z0-9]([A-Za-z0-9 _-]{0,62}[A-Za-z0-9_-])?$"},
            "consent": {"type": "string", "minLength": 1, "description": "Who agreed that this voice is cloned, and how."},
            "audio_sample": {"type": "string", "format": "binary", "description": "A clip of more than 5 s."},
        },
    }
    conversion = {
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": {"type": "string", "format": "binary", "description": "A recording of more than 0.1 s."},
            "voice": {"type": "string", "default": "default"},
            "response_format": {"type": "string", "enum": list(TYPES), "default": "wav"},
            "seed": SEED,
            "watermark": {"type": "string", "enum": ["perth", "none"], "default": "perth"},
        },
    }
    side = {
        "type": ["object", "null"],
        "description": "One of the two: the switch and the precision. What the model is without it.",
        "properties": {
            "backends": {
                "type": ["string", "object", "null"],
                "description": "Such as rust, or s3gen.vocoder=python, or stage → side.",
            },
            "precision": {"enum": [*PRECISIONS, None], "default": "auto"},
        },
    }
    compared = {name: speech["properties"][name] for name in ("input", "model", "voice", "seed", *SAMPLING)}
    comparison = {"type": "object", "required": ["input"], "properties": {**compared, "a": side, "b": side}}
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    listed = {"type": "object", "required": ["object", "data", "voices"]}
    events: dict[str, Any] = {"text/event-stream": {}}
    voices = {
        "get": _does("The voices", 200, _json(listed)),
        "post": _does("A clip becomes a voice", 201, _json(_VOICE), _form(form), (400, 403, 409, 413, 415, 429)),
    }
    comparisons = {
        "get": _does("What can be compared", 200, _json({"type": "object", "required": ["object", "stages", "precisions"]})),
        "post": _does("One text in two ways", 200, _json({"type": "object", "required": ["object", "a", "b", "difference"]}),
                      {"application/json": {"schema": comparison}}, (400, 403, 404, 413, 415, 429, 503)),
    }  # fmt: skip
    paths: dict[str, Any] = {
        "/v1/audio/speech": {
            "post": _does("Speech", 200, {**_SOUND, **events}, {"application/json": {"schema": speech}}, (400, 403, 404, 413, 415, 429, 503))
        },
        "/v1/audio/conversions": {
            "post": _does("A recording in another voice", 200, _SOUND, _form(conversion), (400, 403, 413, 415, 429, 503))
        },
        "/v1/audio/comparisons": comparisons,
        "/v1/audio/voices": voices,
        "/v1/audio/voices/{name}": {"delete": _does("Away with a voice", 200, _json({"type": "object"}), failures=(400, 404, 409), parameters=[name])},
        "/v1/models": {"get": _does("The model", 200, _json({"type": "object", "required": ["object", "data"]}))},
        "/v1/models/{name}": {"get": _does("The model", 200, _json(_MODEL), failures=(404,), parameters=[name])},
        "/health": {"get": _does("Does the engine go?", 200, _json(_STATUS), also={503: _json(_STATUS)})},
        "/ready": {"get": _does("Would a request be taken?", 200, _json(_STATUS), also={503: _json(_STATUS)})},
        "/metrics": {"get": _does("Figures for Prometheus", 200, {"text/plain": {"schema": {"type": "string"}}})},
    }  # fmt: skip
    said: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": f"chatterbox-turbo serve, {model}", "version": _core.build_info()["version"]},
        "paths": paths,
    }
    if key:
        said["components"] = {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}}
        said["security"] = [{"key": []}]
    return said


async def described(request: Request) -> JSONResponse:
    """The endpoint."""
    settings = state_of(request).settings
    return JSONResponse(document(settings.model, settings.api_key is not None))


def _optional(name: str, field: dict[str, Any]) -> dict[str, Any]:
    """A field as it is described: null is as good as nothing, but for the text."""
    if name == "input" or "null" in field.get("type", ()):
        return field
    if "anyOf" in field:
        return {**field, "anyOf": [*field["anyOf"], {"type": "null"}]}
    more = {"enum": [*field["enum"], None]} if "enum" in field else {}
    return {**field, "type": [field["type"], "null"], **more}


def _does(
    summary: str,
    status: int,
    content: dict[str, Any],
    body: dict[str, Any] | None = None,
    failures: tuple[int, ...] = (),
    also: dict[int, dict[str, Any]] | None = None,
    parameters: list[Any] | None = None,
) -> dict[str, Any]:
    """An operation. 401, 403, 405, 500 may be answered by all."""
    responses = {str(status): {"description": summary, "content": content}}
    for code in sorted({401, 403, 405, 500, *failures}):
        responses[str(code)] = {"description": _FAILURES[code], "content": _json(_ERROR)}
    for code, told in (also or {}).items():
        responses[str(code)] = {"description": _FAILURES[code], "content": told}
    found: dict[str, Any] = {"summary": summary, "responses": responses}
    if body is not None:
        found["requestBody"] = {"required": True, "content": body}
    if parameters:
        found["parameters"] = parameters
    return found


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _form(schema: dict[str, Any]) -> dict[str, Any]:
    return {"multipart/form-data": {"schema": schema}}
