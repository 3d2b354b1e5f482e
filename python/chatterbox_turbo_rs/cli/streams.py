"""Standard input, output and error of the command: there may be none of them, and they may not know every character."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

from ..errors import FileError, TextError
from ..progress import Bar


class Line(Bar):
    """The progress bar, which another thread may draw, and which goes away for what is printed."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()

    def __call__(self, stage: str, done: int, total: int) -> None:
        with self._lock:
            super().__call__(stage, done, total)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Nothing is drawn meanwhile."""
        with self._lock:
            self.close()
            yield


def prepare() -> None:
    """Makes standard output and error take every character, and stand where there is none (closed, or a program without console)."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # the next file that is opened would become standard output
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or stream.closed:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def finish() -> bool:
    """Was everything written? What was not is given up, so that the interpreter does not try again when it ends."""
    done = True
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            done = False
    return done


def out(text: str, file: object = None) -> None:
    """A result, on standard output unless ``file`` is another stream; it is there when this returns."""
    print(text, file=file, flush=True)  # type: ignore[call-overload]


def remark(message: object, origin: str = "chatterbox-turbo") -> None:
    """One line on standard error."""
    try:
        print(f"{origin}: {' '.join(str(message).split())}", file=sys.stderr, flush=True)
    except OSError:
        pass  # nobody is left to be told


def standard_input(expected: str = "a text") -> bytes:
    """All of standard input; raises ``FileError`` where there is none."""
    if sys.stdin is None:
        raise FileError(f"standard input: expected {expected}, found it closed")
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise FileError(f"standard input: {error.strerror or error}") from None


def decoded(name: str, data: bytes) -> str:
    """UTF-8 text without a byte order mark; raises ``TextError`` that names where it came from."""
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise TextError(f"{name}: expected UTF-8, found byte 0x{error.object[error.start]:02x} at {error.start}") from None
