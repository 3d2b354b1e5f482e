"""The voices of a server by their names: files ``NAME.safetensors`` in one directory.

Names are names, never paths: letters, digits, spaces, ``_`` and ``-`` of ASCII, at most 64, and none that Windows takes for a device. What else
lies in the directory is left alone. Every file is written whole or not at all (``Voice.save``).
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint.tensor_file import TensorFile
from ..errors import ChatterboxError, FileError
from ..options import AnyVoice
from ..voice import KIND, Voice
from .errors import ApiError

BUILT_IN = "default"
OPENAI = ("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer", "verse")
"""Names that clients have built in: the built-in voice, unless a voice is called so."""
ENDING = ".safetensors"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9 _-]{0,62}[A-Za-z0-9_-])?")
_DEVICES = re.compile(r"con|prn|aux|nul|(com|lpt)[0-9]", re.IGNORECASE)
_PART = re.compile(r"\.[0-9a-f]{16}\.part")
"""Files that were not finished (``audio/files.py``)."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stored:
    """A voice of the list."""

    name: str
    created: int


def checked(name: str) -> str:
    """``name``, when a voice may be called so; else ``ApiError``."""
    if not _NAME.fullmatch(name) or _DEVICES.fullmatch(name):
        expected = "1 to 64 letters, digits, spaces, _ and - of ASCII, and no name of a device"
        raise ApiError(400, f"name: expected {expected}, got {ascii(name)[:80]}", "name")
    return name


class VoiceStore:
    """``directory``: None where only the built-in voice is there. ``has_built_in``: is it?"""

    def __init__(self, directory: Path | None, has_built_in: bool = True) -> None:
        self.directory, self.has_built_in = directory, has_built_in
        self._known: dict[str, tuple[tuple[int, int], bool]] = {}
        if directory is None:
            return
        if not directory.is_dir():
            raise FileError(f"{directory}: expected a directory with voices, found {'a file' if directory.exists() else 'none'}")
        with contextlib.suppress(OSError):
            for name in os.listdir(directory):
                if _PART.fullmatch(name):
                    (directory / name).unlink()

    def list(self) -> list[Stored]:
        """The voices that are there, by name."""
        found = [Stored(BUILT_IN, 0)] if self.has_built_in else []
        if self.directory is None:
            return found
        stored = []
        try:
            with os.scandir(self.directory) as entries:
                for entry in entries:
                    name = entry.name.removesuffix(ENDING)
                    if name == entry.name or name == BUILT_IN or not _NAME.fullmatch(name) or _DEVICES.fullmatch(name):
                        continue
                    with contextlib.suppress(OSError):
                        status = entry.stat()
                        if entry.is_file() and self._is_voice(entry.name, (status.st_mtime_ns, status.st_size)):
                            stored.append(Stored(name, int(status.st_mtime)))
        except OSError as error:
            raise FileError(f"{self.directory}: {error.strerror}") from None
        return found + sorted(stored, key=lambda voice: voice.name)

    def find(self, name: str) -> AnyVoice:
        """What ``stream`` takes for ``name``. Raises ``ApiError`` where there is no such voice."""
        path = self._path(name) if _NAME.fullmatch(name) and not _DEVICES.fullmatch(name) else None
        if name != BUILT_IN and path is not None and path.is_file():
            return path
        if name in (BUILT_IN, *OPENAI) and self.has_built_in:
            return None
        known = ", ".join(voice.name for voice in self.list()[:20])
        raise ApiError(
            400,
            f"voice: expected one of {known or 'none (there are no voices)'}, got {ascii(name)[:80]}",
            "voice",
            "voice_not_found",
        )

    def add(self, name: str, voice: Voice) -> Stored:
        """Keeps a voice under a name that is free. Raises ``ApiError``, ``FileError``."""
        path = self._free(name)
        voice.save(path)
        try:
            return Stored(name, int(path.stat().st_mtime))
        except OSError as error:  # another server's client was quick to take it away
            raise FileError(f"{path}: {error.strerror}") from None

    def free(self, name: str) -> None:
        """Raises ``ApiError`` where ``add`` would."""
        self._free(name)

    def remove(self, name: str) -> None:
        """Takes a voice away. Raises ``ApiError``, ``FileError``."""
        path = self._path(checked(name))
        if name == BUILT_IN:
            raise ApiError(400, "voice: the built-in voice stays", "voice")
        if path is None or not path.is_file():
            raise ApiError(404, f"voice: there is none called {name!r}", "voice", "voice_not_found")
        if name not in {voice.name for voice in self.list()}:
            raise ApiError(409, f"voice: {name!r} is a file that is no voice, and is left alone", "voice", "not_a_voice")
        try:
            path.unlink()
        except FileNotFoundError:
            raise ApiError(404, f"voice: there is none called {name!r}", "voice", "voice_not_found") from None
        except OSError as error:
            raise FileError(f"{path}: cannot be removed: {error.strerror}") from None

    def _path(self, name: str) -> Path | None:
        return None if self.directory is None else self.directory / f"{name}{ENDING}"

    def _free(self, name: str) -> Path:
        path = self._path(checked(name))
        if path is None:
            raise ApiError(403, "this server keeps no voices (it was started without --voices)", code="voices_not_kept")
        assert self.directory is not None
        try:
            taken = {entry.lower() for entry in os.listdir(self.directory)}
        except OSError as error:
            raise FileError(f"{self.directory}: {error.strerror}") from None
        if name.lower() == BUILT_IN or path.name.lower() in taken:
            raise ApiError(409, f"name: there is a voice called {name!r}", "name", "voice_exists")
        if not os.access(self.directory, os.W_OK):
            raise FileError(f"{self.directory}: cannot be written: no permission")
        return path

    def _is_voice(self, file: str, mark: tuple[int, int]) -> bool:
        """Does the file's header say that it is a voice? Looked at once, until the file changes."""
        assert self.directory is not None
        known = self._known.get(file)
        if known is None or known[0] != mark:
            try:
                fits = TensorFile(self.directory / file).metadata.get("kind") == KIND
            except (ChatterboxError, OSError):
                fits = False
            if not fits:
                logger.warning("%s: not a voice file; it is left alone", self.directory / file)
            known = self._known[file] = mark, fits
        return known[1]
