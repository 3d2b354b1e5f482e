"""What a running server has: its model, its engine, its voices, its figures."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from ..engine.open_batch import OpenBatch
from .metrics import Metrics
from .settings import Settings
from .store import VoiceStore

if TYPE_CHECKING:
    from ..model import ChatterboxTurbo


@dataclass
class State:
    """Of one application."""

    tts: ChatterboxTurbo
    settings: Settings
    voices: VoiceStore
    metrics: Metrics
    started: float
    batch: OpenBatch
    draining: bool = False
    alone: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    """For voices that are prepared and converted, which are one at a time,"""
    waiting: int = 0
    """and of which so many are there."""


def state_of(request: HTTPConnection) -> State:
    """The state behind a request."""
    return request.app.state.serve
