"""A listening test as one HTML file that asks for nothing else: two renderings of some sentences, their mels, and a blind test (ABX).

View, style and script are those of the server's page (``serve/page``); the file's content security policy allows its own script and style alone.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .. import _core
from ..engine import registry
from ..engine.comparison import Comparison, precisions
from ..errors import ArgumentError, BackendError
from ..options import AnyVoice

if TYPE_CHECKING:
    from ..model import ChatterboxTurbo

PAGE = "serve/page"
SCRIPTS = ("dom.js", "sound.js", "plots.js", "abx.js", "compare.js", "abx_file.js")
SENTENCES = (
    "The old house stood at the end of a quiet road.",
    "Nobody had come, and nobody would, or so we thought until the bell rang.",
    "Bring seven small boxes, please, and leave the large one where it is!",
)
"""Spoken unless the caller names others: stops, vowels and sibilants, and no tags."""


def side(text: str, device: str, name: str) -> tuple[str, Any]:
    """``PLAN`` or ``PLAN@PRECISION`` as ``ChatterboxTurbo.compare`` takes it. Raises ``ArgumentError``, ``BackendError``."""
    plan, at, precision = text.rpartition("@") if "@" in text else (text, "", "auto")
    if precision not in ("auto", *precisions(device)):
        expected = f"a precision of {', '.join(('auto', *precisions(device)))} after @"
        raise ArgumentError(f"{name}: expected {expected}, got {precision!r}")
    registry.resolve(plan or None)
    return plan, precision


def sides(device: str) -> tuple[str, str]:
    """What is compared unless the caller says: Python with Rust where both run; else float32 with bfloat16 (the weights in 8 bits are T3's,
    whose tokens both sides share)."""
    try:
        registry.resolve("python")
    except BackendError:
        return ("rust@f32", "rust@bf16") if len(precisions(device)) > 1 else ("rust@f32", "rust@f32")
    return "python@f32", "rust@f32"


def comparisons(
    tts: ChatterboxTurbo,
    pair: tuple[tuple[Any, Any], tuple[Any, Any]],
    texts: Sequence[str],
    voice: AnyVoice,
    seed: int,
    note: Callable[[str], None] = print,
) -> list[Comparison]:
    """One comparison for each text; the seed is the same for all."""
    found = []
    for text in texts:
        note(f"comparing: {text}")
        found.append(tts.compare(text, *pair, voice=voice, seed=seed))
    return found


def page(found: Sequence[Comparison], about: str) -> str:
    """The file. ``about`` is a line that says which model it was, and of which version."""
    script = "\n".join(_asset(name) for name in SCRIPTS)
    style = _asset("style.css")
    policy = f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    cases = json.dumps([one.document() for one in found], ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
    parts = {
        "policy": html.escape(policy, quote=False),
        "style": style,
        "about": html.escape(about),
        "compare": _asset("compare.html"),
        "cases": cases,
        "script": script,
    }
    pieces = _asset("abx.html").split("{{")  # not one replacement after the other: what was put in is never looked at again
    return pieces[0] + "".join(parts[name] + rest for name, _, rest in (piece.partition("}}") for piece in pieces[1:]))


def about(tts: ChatterboxTurbo) -> str:
    """That line. The embedded model says what it is."""
    demo = ", the small model that comes with the package and says nothing about how Chatterbox Turbo sounds,"
    name = f"{tts.config['name']}{demo if tts.config['name'] == 'demo' else ''}"
    return f"Model {name} on {tts.device}, chatterbox-turbo-rs {_core.build_info()['version']}. A chooses the tokens; both sides make sound of these."


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _asset(name: str) -> str:
    package = __package__.rpartition(".")[0]
    return importlib.resources.files(package).joinpath(PAGE).joinpath(name).read_text(encoding="utf-8")
