"""The page at ``/``: its files, which stand in ``page/`` and ask for nothing from elsewhere, and what they are told of this server.

``index.html`` and ``abx.html`` hold ``{{compare}}`` where ``compare.html`` belongs: the view of a comparison is written once for both.
"""

from __future__ import annotations

import hashlib
from importlib import resources

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .. import _core
from .state import state_of

TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; media-src 'self' blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
SLOT = "{{compare}}"


def text_of(name: str) -> str:
    """A file of the page, with ``compare.html`` where it belongs."""
    folder = resources.files(__package__).joinpath("page")
    text = folder.joinpath(name).read_text("utf-8")
    return text.replace(SLOT, folder.joinpath("compare.html").read_text("utf-8")) if SLOT in text else text


def names() -> list[str]:
    """The files that are sent as they are."""
    found = (file.name for file in resources.files(__package__).joinpath("page").iterdir())
    return sorted(name for name in found if name.rpartition(".")[2] in TYPES and not name.endswith(".html"))


class Site:
    """The endpoints; the files are read once."""

    def __init__(self) -> None:
        self._files = {name: text_of(name).encode("utf-8") for name in ("index.html", *names())}

    async def index(self, request: Request) -> Response:
        """``GET /``."""
        return self._answer(request, "index.html")

    async def file(self, request: Request) -> Response:
        """``GET /page/NAME``."""
        name = request.path_params["name"]
        if name not in self._files or name == "index.html":
            raise HTTPException(404)
        return self._answer(request, name)

    async def about(self, request: Request) -> JSONResponse:
        """``GET /page/about``: what the page shows of the model, and what this server allows."""
        state = state_of(request)
        settings, tts = state.settings, state.tts
        said = {
            "model": settings.model,
            "demo": tts.config["name"] == "demo",
            "version": _core.build_info()["version"],
            "device": tts.device,
            "precision": tts.precision,
            "tags": tts.tags,
            "sample_rate": tts.sample_rate,
            "max_input": settings.max_input,
            "keeps_voices": settings.voices is not None,
            "needs_watermark": settings.require_watermark,
            "compares": settings.compare,
        }
        return JSONResponse(said, headers={"Cache-Control": "no-store"})

    def _answer(self, request: Request, name: str) -> Response:
        data = self._files[name]
        mark = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        if request.headers.get("if-none-match") == mark:
            return Response(status_code=304, headers={**HEADERS, "ETag": mark})
        return Response(data, media_type=TYPES[name.rpartition(".")[2]], headers={**HEADERS, "ETag": mark})
