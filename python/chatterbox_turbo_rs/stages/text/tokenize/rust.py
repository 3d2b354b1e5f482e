"""`text.tokenize` in Rust."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from .... import _core
from ....checkpoint.resources import Resources
from .. import check_text
from . import warn_truncated


def create(resources: Resources) -> Callable[[str], np.ndarray]:
    file = resources.options.get("tokenizer")
    core = _core.TextTokenizer(resources.directory, json.dumps(resources.config), file)

    def tokenize(text: str) -> np.ndarray:
        ids, truncated = core.encode(check_text(text))
        if truncated:
            tokens, characters = truncated
            warn_truncated(tokens, len(ids), characters)
        return ids

    return tokenize
