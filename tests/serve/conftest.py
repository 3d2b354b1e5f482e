"""Servers that the tests of one process share."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import httpx
import pytest
from processes import LIMIT
from servers import Served, serving

from chatterbox_turbo_rs import ChatterboxTurbo


@pytest.fixture(scope="session", autouse=True)
def _patience() -> None:
    """httpx gives up after 5 s where a request does not say; a machine that is busy with other tests may take longer."""
    usual: httpx.Timeout = inspect.signature(httpx.get).parameters["timeout"].default
    usual.connect = usual.read = usual.write = usual.pool = LIMIT


@pytest.fixture(scope="session")
def demo() -> ChatterboxTurbo:
    """The embedded model, which stops by itself."""
    return ChatterboxTurbo.from_pretrained("demo")


@pytest.fixture(scope="module")
def served(demo: ChatterboxTurbo) -> Iterator[Served]:
    """A server of the embedded model with its own voice alone."""
    with serving(demo) as found:
        yield found
