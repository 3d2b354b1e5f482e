"""Upstream's three vocabulary files, checked before they are used.

The ``tokenizers`` package drops what it does not know without a word, so these must hold: ids without gaps, all 256 byte
symbols, every merge inside the vocabulary, every longer token made by a merge (a shortened ``merges.txt`` is found by
that), and the size that the model's text embedding has. ``vocabulary.rs`` checks the same with the same messages.
"""

from __future__ import annotations

import json
from pathlib import Path

from ....errors import CheckpointError, FileError
from . import END_OF_TEXT


def read(directory: Path, size: int) -> tuple[dict[str, int], list[tuple[str, str]], list[str]]:
    """Tokens with their ids ``0..n``, merges, and added tokens in the order of their ids ``n..size``."""
    vocab, added = directory / "vocab.json", directory / "added_tokens.json"
    tokens = _ids(vocab)
    _consecutive(vocab, tokens, 0)
    missing = [symbol for symbol in byte_symbols() if symbol not in tokens]
    if missing:
        raise CheckpointError(f"{vocab}: expected all 256 byte symbols, {len(missing)} are missing (first: {missing[0]!r})")
    if END_OF_TEXT not in tokens:
        raise CheckpointError(f"{vocab}: expected the token {END_OF_TEXT}, found none")
    merges = _merges(directory / "merges.txt", tokens)
    extra = _ids(added)
    for token in extra:
        if token in tokens:
            raise CheckpointError(f"{added}: expected tokens that are not in vocab.json, found {json.dumps(token)}")
    _consecutive(added, extra, len(tokens))
    found = len(tokens) + len(extra)
    if found != size:
        raise CheckpointError(
            f"{vocab}: expected text.vocab_size = {size} tokens together with added_tokens.json, "
            f"found {len(tokens)} + {len(extra)} = {found}"
        )
    return tokens, merges, sorted(extra, key=extra.__getitem__)


def read_text(file: Path) -> str:
    """The text of ``file``; a missing file is a damaged checkpoint."""
    try:
        return file.read_bytes().decode()
    except FileNotFoundError:
        raise CheckpointError(f"{file}: expected a vocabulary file, found no such file") from None
    except OSError as error:
        raise FileError(f"{file}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file}: expected UTF-8, found another byte at {error.start}") from None


def byte_symbols() -> list[str]:
    """The characters that stand for the 256 byte values: printable Latin-1 bytes as themselves, the others from U+0100 on.

    Source: ``bytes_to_unicode`` in ``src/encoder.py`` of openai/gpt-2 at 9b63575.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(code) for code in [*printable, *range(256, 512 - len(printable))]]


def _ids(file: Path) -> dict[str, int]:
    text = read_text(file)
    try:
        tokens = json.loads(text)
        if not isinstance(tokens, dict) or not all(type(i) is int and 0 <= i < 1 << 32 for i in tokens.values()):
            raise ValueError("not every value is an id")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: expected a JSON object of token: id, found another text ({error})") from None
    return tokens


def _consecutive(file: Path, tokens: dict[str, int], first: int) -> None:
    found, end = set(tokens.values()), first + len(tokens)
    gap = next((i for i in range(first, end) if i not in found), None)
    if gap is not None:
        raise CheckpointError(f"{file}: expected each id from {first} to {end - 1} once, found no token for {gap}")


def _merges(file: Path, tokens: dict[str, int]) -> list[tuple[str, str]]:
    merges = []
    for number, line in enumerate(read_text(file).split("\n"), 1):
        line = line[:-1] if line.endswith("\r") else line
        if not line or (number == 1 and line.startswith("#version")):
            continue
        a, _, b = line.partition(" ")
        if not (a in tokens and b in tokens and a + b in tokens):
            raise CheckpointError(
                f"{file}: line {number}: expected two tokens of vocab.json that make a third, "
                f"found {json.dumps(line, ensure_ascii=False)}"
            )
        merges.append((a, b))
    made = {a + b for a, b in merges}
    orphans = [token for token in tokens if len(token) > 1 and token != END_OF_TEXT and token not in made]
    if orphans:
        first = json.dumps(min(orphans, key=tokens.__getitem__), ensure_ascii=False)
        raise CheckpointError(
            f"{file}: expected a merge for every longer token of vocab.json, found none for {len(orphans)} (first: {first})"
        )
    return merges
