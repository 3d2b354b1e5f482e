"""A small Hugging Face hub on 127.0.0.1: resolve URLs with their headers, LFS redirects to another host, ranges, faults."""

from __future__ import annotations

import hashlib
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Request:
    """One request as it arrived; ``file`` is the name in the repository, ``revision`` None at the store of large files."""

    method: str
    path: str
    file: str
    revision: str | None
    range: str | None
    token: str | None


@dataclass
class Hub:
    """Serves ``files`` as the repository ``name``, whose branch ``main`` stands at ``commit``."""

    name: str
    files: dict[str, Path]
    commit: str = "c" * 40
    revisions: tuple[str, ...] = ()
    refuse: tuple[int, dict[str, str]] | None = None
    cut: dict[str, int] = field(default_factory=dict)
    """File → bytes after which its next transfer breaks off (once)."""
    xet: bool = False
    move_after: str | None = None
    """Once this file was asked for, ``main`` stands at another commit, whose files are empty."""
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> Hub:
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def transfers(self, method: str = "GET") -> list[str]:
        """The files that were asked for, in order, each once."""
        return list(dict.fromkeys(request.file for request in self.requests if request.method == method))


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub = self.hub
        resolve = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        store = re.fullmatch(r"/store/(.+)", self.path)
        file = resolve[3] if resolve else store[1] if store else self.path
        revision = resolve[2] if resolve else None
        head = self.headers
        hub.requests.append(Request(self.command, self.path, file, revision, head.get("Range"), head.get("Authorization")))
        if hub.refuse is not None and not store:
            return self._send(hub.refuse[0], hub.refuse[1], b"")
        if store:
            return self._content(file, hub.files[file].read_bytes(), {})
        if not resolve:
            return self._send(404, {}, b"")
        if resolve[1] != hub.name:
            return self._send(404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b"")
        if revision not in ("main", hub.commit, *hub.revisions):
            return self._send(404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": f"Invalid rev id: {revision}"}, b"")
        commit = hub.commit if revision == "main" else str(revision)
        headers = {"X-Repo-Commit": commit}
        if file not in hub.files:
            return self._send(404, {**headers, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}, b"")
        data = hub.files[file].read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if file == hub.move_after and revision == "main":
            hub.revisions, hub.commit, hub.move_after = (*hub.revisions, hub.commit), "d" * 40, None
        if not file.endswith((".safetensors", ".pt")):
            return self._content(file, data, {**headers, "ETag": f'"{digest[:40]}"'})
        headers |= {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{digest}"'}
        if hub.xet:
            headers |= {
                "X-Xet-Hash": "not a hash",
                "Link": f'<{hub.endpoint}/api/models/{hub.name}/xet-read-token/{commit}>; rel="xet-auth"',
            }
        # Another host than the hub's, so that a client must not send its token along.
        self._send(302, {**headers, "Location": f"http://localhost:{hub.port}/store/{file}"}, b"")

    def _content(self, file: str, data: bytes, headers: dict[str, str]) -> None:
        status, start = 200, 0
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if wanted:
            status, start = 206, int(wanted[1])
            headers = {**headers, "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        cut = self.hub.cut.pop(file, None) if self.command == "GET" else None
        self._send(status, {**headers, "Accept-Ranges": "bytes"}, data[start:], cut)

    def _send(self, status: int, headers: dict[str, str], body: bytes, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.close_connection = True
