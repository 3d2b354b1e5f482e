"""Words that are spoken otherwise than they are written."""

from __future__ import annotations

import re
from collections.abc import Mapping


def pronounced(text: str, words: Mapping[str, str]) -> str:
    """``text`` with every whole word (or words) that ``words`` knows replaced, once, the longest first; case counts."""
    if not words:
        return text
    known = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    return re.sub(rf"(?<!\w)(?:{known})(?!\w)", lambda found: words[found[0]], text)
