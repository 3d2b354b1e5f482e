"""`text.normalize` in Rust, with the casing rules of the running interpreter."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from .... import _core
from ....checkpoint.resources import Resources
from .. import check_text

_UNICODE = int(unicodedata.unidata_version.split(".")[0])


def create(resources: Resources) -> Callable[[str], str]:
    return normalize


def normalize(text: str) -> str:
    return _core.text_normalize(check_text(text), _UNICODE)
