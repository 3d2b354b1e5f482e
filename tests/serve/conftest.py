"""Servers that the tests of one process share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from servers import Served, serving

from chatterbox_turbo_rs import ChatterboxTurbo


@pytest.fixture(scope="session")
def demo() -> ChatterboxTurbo:
    """The embedded model, which stops by itself."""
    return ChatterboxTurbo.from_pretrained("demo")


@pytest.fixture(scope="module")
def served(demo: ChatterboxTurbo) -> Iterator[Served]:
    """A server of the embedded model with its own voice alone."""
    with serving(demo) as found:
        yield found
