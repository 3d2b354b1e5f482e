"""Which implementations a stage's tests run with: both, and a skip that says what is missing where one cannot run."""

from __future__ import annotations

from typing import Any

import pytest

from chatterbox_turbo_rs import backends


def of(key: str) -> list[Any]:
    """Parameters for a fixture ``impl``: ``"python"`` and ``"rust"``."""
    return [param(key, name) for name in backends.TABLE[key]]


def param(key: str, name: str) -> Any:
    reason = backends.missing(key, name)
    return pytest.param(name, marks=pytest.mark.skipif(reason is not None, reason=f"{key}={name}: {reason}"))
