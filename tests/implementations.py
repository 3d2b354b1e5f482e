"""Which implementations a stage's tests run with: both, and a skip that says what is missing where one cannot run."""

from __future__ import annotations

from typing import Any

import pytest

from chatterbox_turbo_rs.engine import registry


def of(key: str) -> list[Any]:
    """Parameters for a fixture ``impl``: ``"python"`` and ``"rust"``."""
    return [param(key, name) for name in registry.TABLE[key]]


def param(key: str, name: str) -> Any:
    reason = registry.missing(key, name)
    return pytest.param(name, marks=pytest.mark.skipif(reason is not None, reason=f"{key}={name}: {reason}"))
