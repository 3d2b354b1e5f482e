"""Contract of stage `text.normalize`: text clean-up before tokenization, ``(text: str) -> str``.

Source: ``punc_norm`` in ``src/chatterbox/tts_turbo.py`` of resemble-ai/chatterbox at 5de7a54. The first character is raised
when it is lowercase, runs of whitespace become one space, nine punctuation marks are replaced, and a text that does not end
in one of ``. ! ? - ,`` gets a full stop. The empty text becomes a fixed sentence.

Casing follows the Unicode version of the running interpreter, as the official package does: a letter that Unicode 16 made
raisable stays as it is under CPython 3.13. The Rust side is told that version; the one thing that it cannot follow is an
interpreter whose Unicode is newer than that of the Rust compiler (Rust 1.95 has Unicode 17, ahead of CPython 3.14's 16).

Raises ``ArgumentError`` when ``text`` is no str and ``TextError`` when it holds half a surrogate pair.
"""

from __future__ import annotations

EMPTY = "You need to add some text for me to talk."
