"""`text.tokenize` with the ``tokenizers`` package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ....checkpoint.resources import Resources
from ....errors import CheckpointError
from .. import check_text
from . import BASE_TOKENS, END_OF_TEXT, SPACE, vocabulary, warn_truncated


def missing() -> str | None:
    try:
        import tokenizers  # noqa: F401
    except ImportError:
        return "the tokenizers package is not installed: pip install tokenizers"
    return None


def create(resources: Resources) -> Callable[[str], np.ndarray]:
    text, file = resources.config["text"], resources.options.get("tokenizer")
    limit = text["max_tokens"]
    tokenizer = from_file(Path(file), text["vocab_size"]) if file else from_directory(resources.directory, text["vocab_size"])

    def tokenize(text: str) -> np.ndarray:
        text = check_text(text)
        encoding = tokenizer.encode(text.replace(" ", SPACE) if file else text, add_special_tokens=bool(file))
        if len(encoding.ids) > limit:
            end = encoding.offsets[limit - 1][1]
            warn_truncated(len(encoding.ids), limit, before_replacement(text, end) if file else end)
        return np.array(encoding.ids[:limit], np.int64)

    return tokenize


def from_directory(directory: Path, size: int) -> Any:
    """The checkpoint's own tokenizer, of ``size`` tokens."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    tokens, merges, added = vocabulary.read(directory, size)
    tokenizer = Tokenizer(models.BPE(vocab=tokens, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, normalized=True, special=True)])
    tokenizer.add_tokens([AddedToken(tag, normalized=True, special=False) for tag in added])
    for expected, tag in enumerate(added, len(tokens)):
        if tokenizer.token_to_id(tag) != expected:
            found = tokenizer.token_to_id(tag)
            raise CheckpointError(f"{directory / 'added_tokens.json'}: token {tag!r}: expected id {expected}, found {found}")
    return tokenizer


def from_file(file: Path, size: int) -> Any:
    """The base model's tokenizer, whose ids must be below ``size``."""
    from tokenizers import Tokenizer

    text = vocabulary.read_text(file)
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the package raises nothing narrower
        raise CheckpointError(f"{file}: expected a tokenizer.json, found another text ({error})") from None
    for token in BASE_TOKENS:
        if tokenizer.token_to_id(token) is None:
            raise CheckpointError(f"{file}: expected the base model's vocabulary with {token}, found none")
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if highest >= size:
        raise CheckpointError(f"{file}: expected ids below text.vocab_size = {size}, found {highest}")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def before_replacement(text: str, kept: int) -> int:
    """How many characters of ``text`` lie within the first ``kept`` characters of its form with ``[SPACE]``."""
    end = 0
    for count, character in enumerate(text):
        end += len(SPACE) if character == " " else 1
        if end > kept:
            return count
    return len(text)
