"""Contract of stage `text.tokenize`: ``(text: str) -> ids`` int64 ``[T]``, T at most ``text.max_tokens`` (1024).

Byte-level BPE of GPT-2 without prefix space and without begin or end tokens; tags such as ``[laugh]`` and ``<|endoftext|>``
are matched verbatim in the raw text. Source: ``tokenizer(text, padding=True, truncation=True)`` in
``src/chatterbox/tts_turbo.py`` of resemble-ai/chatterbox at 5de7a54, with ``GPT2Tokenizer`` of transformers 5.2.0.

Built from ``vocab.json``, ``merges.txt`` and ``added_tokens.json`` of the checkpoint, or, with the option ``tokenizer=PATH``,
from the base model's ``tokenizer.json``, in which spaces are read as ``[SPACE]``
(``src/chatterbox/models/tokenizers/tokenizer.py`` at 5de7a54).

Raises ``CheckpointError`` when a vocabulary file is missing or damaged or has another size than ``text.vocab_size``,
``ArgumentError`` when ``text`` is no str, ``TextError`` when it holds half a surrogate pair. An over-long text is cut to its
first ids with a ``TruncationWarning``.
"""

from __future__ import annotations

import warnings

from ....errors import TruncationWarning

END_OF_TEXT = "<|endoftext|>"
SPACE = "[SPACE]"  # what the base model's tokenizer reads for a space
BASE_TOKENS = ("[START]", "[STOP]", SPACE)  # every vocabulary of the base model has them


def warn_truncated(tokens: int, kept: int, characters: int) -> None:
    """Tells that only the first ``kept`` of ``tokens`` tokens, the first ``characters`` characters, will be spoken."""
    message = f"text: expected at most {kept} tokens, got {tokens}: only its first {characters} characters are spoken"
    warnings.warn(TruncationWarning(message), stacklevel=3)
