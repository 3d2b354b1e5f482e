"""Writing files whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from ..errors import FileError


def regular(path: str | os.PathLike[str]) -> None:
    """Raises ``FileError`` for a pipe, a socket or a device, which reading might wait for without end."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise FileError(f"{os.fspath(path)}: expected a file, found a pipe, a socket or a device")


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], name: str | None = None) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` that replaces it on success; on any error nothing is left behind.

    A process that is killed leaves the temporary file. With a ``name`` of the caller's own for it, which nobody else uses at the
    time, the next one replaces it.

    A symbolic link keeps standing and its target is replaced; a device or a pipe is refused. Raises ``FileError`` that names
    ``path`` when the system refuses (no such directory, no permission, disk full).
    """
    temporary = None
    try:
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise FileError(f"{path}: expected a file name, found a directory")
        if target.exists() and not target.is_file():
            raise FileError(f"{path}: expected a file name, found a device or a pipe")
        beside = (
            target.parent / f".{name or secrets.token_hex(8)}.part"
        )  # of its own, for ``path`` may already be as long as names may be
        if name is not None:
            beside.unlink(missing_ok=True)
        os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        temporary = beside
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
        temporary = None
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from None
    except ValueError as error:
        if "null" not in str(error):
            raise
        raise FileError(f"{str(path)!r}: cannot be written: {error}") from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()
