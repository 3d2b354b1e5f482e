"""The fields of a request for speech: one table, which checks them and describes them in ``/openapi.json``."""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from ..audio import growing
from ..options import LATENCY, MAX_TOKENS, MOST_SEED, GenerationOptions
from .errors import ApiError
from .settings import Settings

ALIASES = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")
"""OpenAI's names of models, which clients have built in: they mean the one that is served."""
SEED = {
    "description": f"0 to 2^64 - 1, as a number or, where numbers are doubles, its digits; the same seed gives the same sound. {MOST_SEED} at most.",
    "anyOf": [{"type": "integer", "minimum": 0, "maximum": MOST_SEED}, {"type": "string", "pattern": "^[0-9]{1,20}$"}],
}
FIELDS: dict[str, dict[str, Any]] = {
    "input": {"type": "string", "minLength": 1, "description": "The text: of any length up to the server's limit; tags such as [laugh], pauses such as [pause 0.5s]."},
    "model": {"type": "string", "description": f"The served model's name, or one of {', '.join(ALIASES)}, which mean the same."},
    "voice": {
        "description": "A name of GET /v1/audio/voices, or {\"id\": name}. OpenAI's names mean the built-in voice unless a voice is called so.",
        "default": "default",
        "anyOf": [
            {"type": "string"},
            {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
        ],
    },
    "response_format": {"type": "string", "enum": list(growing.TYPES), "default": "mp3"},
    "speed": {"type": "number", "minimum": 0.5, "maximum": 2, "default": GenerationOptions.speed},
    "stream_format": {"type": "string", "enum": ["audio", "sse"], "default": "audio"},
    "instructions": {"type": "string", "description": "Accepted and ignored, as the header X-Chatterbox-Ignored says."},
    "seed": SEED,
    "temperature": {"type": "number", "minimum": 0, "maximum": 10, "default": GenerationOptions.temperature},
    "top_p": {"type": "number", "minimum": 0, "maximum": 1, "default": GenerationOptions.top_p},
    "top_k": {"type": "integer", "minimum": 0, "maximum": 100_000, "default": GenerationOptions.top_k},
    "repetition_penalty": {"type": "number", "minimum": 0.1, "maximum": 10, "default": GenerationOptions.repetition_penalty},
    "max_tokens": {"type": "integer", "minimum": 1, "maximum": MAX_TOKENS, "default": MAX_TOKENS, "description": "Of a segment; 25 are a second."},
    "split": {"type": "string", "enum": ["auto", "never"], "default": "auto"},
    "latency": {"type": "string", "enum": list(LATENCY), "default": "sentence"},
    "watermark": {"type": ["string", "null"], "enum": ["perth", None], "default": "perth", "description": "null leaves it out, where the operator allows."},
    "pronounce": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Whole words and what is spoken in their place."},
}  # fmt: skip
OURS = (
    "temperature",
    "top_p",
    "top_k",
    "repetition_penalty",
    "max_tokens",
    "split",
    "latency",
    "watermark",
    "speed",
    "pronounce",
)
"""Fields that are arguments of ``stream`` as they are."""
_TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "object": dict,
    "null": type(None),
    "boolean": bool,
    "array": list,
}


@dataclass(frozen=True)
class SpeechRequest:
    """A request for speech, checked."""

    text: str
    voice: str
    format: str
    sse: bool
    seed: int
    arguments: dict[str, Any]
    ignored: tuple[str, ...]


async def json_object(request: Request) -> dict[str, Any]:
    """The JSON object that a request's body holds. Raises ``ApiError``."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, f"Content-Type: expected application/json, got {kind or 'none'}")
    try:
        found = json.loads(await request.body(), parse_constant=_refused)
    except RecursionError:
        raise ApiError(400, "body: expected JSON, found it nested too deeply") from None
    except ValueError as error:
        raise ApiError(400, f"body: expected JSON: {error}") from None
    if not isinstance(found, dict):
        raise ApiError(400, f"body: expected a JSON object, got {type(found).__name__}")
    return found


def parse(body: Mapping[str, Any], settings: Settings) -> SpeechRequest:
    """``body``, when it is a request for speech. Raises ``ApiError`` that names the field."""
    for name, schema in FIELDS.items():
        if name in body and (body[name] is not None or name == "input"):
            _check(name, body[name], schema)
    given = {name: value for name, value in body.items() if value is not None or name == "watermark"}
    if "input" not in given:
        raise ApiError(400, "input: expected the text to speak, got none", "input")
    text = given["input"]
    if not text.strip():
        raise ApiError(400, "input: expected a text, found nothing but whitespace", "input")
    if len(text) > settings.max_input:
        raise ApiError(
            400, f"input: expected at most {settings.max_input} characters, got {len(text)}", "input", "string_above_max_length"
        )
    model_of(given.get("model", settings.model), settings)
    if "watermark" in given and given["watermark"] is None and settings.require_watermark:
        raise ApiError(403, "watermark: this server marks all speech", "watermark", "watermark_required")
    form = given.get("response_format", "mp3")
    if reason := growing.missing(form):
        raise ApiError(400, f"response_format: {reason}", "response_format")
    voice = given.get("voice", "default")
    return SpeechRequest(
        text,
        voice["id"] if isinstance(voice, dict) else voice,
        form,
        given.get("stream_format", "audio") == "sse",
        seed_of(given.get("seed")),
        {name: given[name] for name in OURS if name in given},
        tuple(name for name in given if name == "instructions" or name not in FIELDS),
    )


def model_of(name: str, settings: Settings) -> str:
    """The served model's name, when ``name`` means it."""
    if name != settings.model and name not in ALIASES:
        raise ApiError(404, f"model: expected {settings.model!r}, got {name!r}", "model", "model_not_found")
    return settings.model


def seed_of(value: Any) -> int:
    """The seed of a request; a random one below 2**53, so that every client can repeat it."""
    if value is None:
        return secrets.randbelow(1 << 53)
    if isinstance(value, str) and re.fullmatch("[0-9]{1,20}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_SEED:
        raise ApiError(400, f"seed: expected a whole number from 0 to {MOST_SEED}, got {_short(value)}", "seed")
    return value


def _check(name: str, value: Any, schema: Mapping[str, Any]) -> None:
    """Raises ``ApiError`` unless ``value`` is what the schema says."""
    if name == "seed":
        seed_of(value)
        return
    if "anyOf" in schema:
        if isinstance(value, dict):
            value = value.get("id")
        schema = {"type": "string"}
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    fits = any(isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool)) for kind in kinds)
    if fits and isinstance(value, (int, float)):
        low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        fits = low <= value <= high
        if not fits:
            raise ApiError(400, f"{name}: expected a number from {low} to {high}, got {_short(value)}", name)
    if not fits:
        raise ApiError(400, f"{name}: expected {' or '.join(kinds)}, got {_short(value)}", name)
    if "enum" in schema and value not in schema["enum"]:
        raise ApiError(400, f"{name}: expected {', '.join(map(str, schema['enum']))}, got {_short(value)}", name)
    texts = [value] if isinstance(value, str) else [*value, *value.values()] if isinstance(value, dict) else []
    for text in texts:
        try:
            text.encode() if isinstance(text, str) else None
        except UnicodeEncodeError:
            raise ApiError(400, f"{name}: expected Unicode text, found half of a surrogate pair", name) from None


def _refused(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except (RecursionError, ValueError):
        text = type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."
