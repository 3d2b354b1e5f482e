"""``chatterbox-turbo parity --abx FILE``: a listening test of two sides, in place of the checklist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..audio.files import whole_file
from ..errors import ArgumentError
from ..progress import on_terminal
from . import streams
from .common import there

ALONE = (
    "parties",
    "against",
    "official_python",
    "stages",
    "taps",
    "base_tokenizer",
    "json_file",
    "markdown_file",
    "html_file",
    "work",
)
"""Options of the checklist that say nothing here."""


def write(
    path: Path,
    model: str,
    revision: str | None,
    device: str,
    clips: tuple[Path, ...],
    sides: tuple[str, str] | None,
    texts: tuple[str, ...],
    others: dict[str, Any],
) -> int:
    """Makes both renderings and writes the file; returns the exit code."""
    from ..model import ChatterboxTurbo
    from ..parity import listening

    if wrong := [name for name in ALONE if others.get(name)]:
        raise ArgumentError(
            f"--abx: writes a listening test in place of the checklist: expected no --{wrong[0].removesuffix('_file').replace('_', '-')} beside it"
        )
    if len(clips) > 1:
        raise ArgumentError("--clip: expected one clip with --abx, whose voice is heard, got more")
    for clip in clips:
        there(clip)
    if bad := [text for text in texts if not text.strip()]:
        raise ArgumentError(f"--text: expected a text, got {bad[0]!r}")
    chosen = sides or listening.sides(device)
    first, second = (listening.side(text, device, "--sides") for text in chosen)
    streams.remark(f"A is {chosen[0]}, B is {chosen[1]}")
    tts = ChatterboxTurbo.from_pretrained(model, revision=revision, device=device, precision="f32", progress=on_terminal())
    voice = clips[0] if clips else None
    found = listening.comparisons(tts, (first, second), texts or listening.SENTENCES, voice, 7, streams.remark)
    with whole_file(path) as part:
        part.write_text(listening.page(found, listening.about(tts)), encoding="utf-8")
    streams.out(f"{path}: {len(found)} sentences, A is {found[0].a.name}, B is {found[0].b.name}")
    return 0
