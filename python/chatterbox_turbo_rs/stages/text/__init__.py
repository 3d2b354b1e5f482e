"""Stages of group `text`: from what the user wrote to token ids."""

from __future__ import annotations

from ...errors import ArgumentError, TextError


def check_text(text: str) -> str:
    """``text`` itself. Raises ``ArgumentError`` when it is no str and ``TextError`` when it holds half a surrogate pair."""
    if not isinstance(text, str):
        raise ArgumentError(f"text: expected str, got {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise TextError(f"text: expected Unicode text, found half a surrogate pair (U+{code:04X}) at {error.start}") from None
    return text
