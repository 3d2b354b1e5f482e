"""Figures for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ..engine.open_batch import OpenBatch

SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120)


class Metrics:
    """The figures of one application, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter("chatterbox_requests", "Answers by path and status.", ["path", "status"], registry=registry)
        self.first_byte = Histogram(
            "chatterbox_first_byte_seconds", "From a request for speech to its first sound.", buckets=SECONDS, registry=registry
        )
        self.whole = Histogram(
            "chatterbox_speech_seconds", "From a request for speech to its last sound.", buckets=SECONDS, registry=registry
        )
        self.sound = Counter("chatterbox_sound_seconds", "Sound that was sent.", registry=registry)
        self.gone = Counter(
            "chatterbox_clients_gone", "Clients that went away, or took nothing, before the end.", registry=registry
        )
        self.refused = Counter("chatterbox_queue_full", "Requests that were answered with 429.", registry=registry)

    def watch(self, batch: OpenBatch) -> None:
        """Adds the engine's figures, asked for when they are read."""
        here = Gauge("chatterbox_requests_here", "Requests that are being spoken or wait.", registry=self.registry)
        here.set_function(lambda: batch.load[0])
        rows = Gauge("chatterbox_rows", "Segments that are decoded together now.", registry=self.registry)
        rows.set_function(lambda: batch.load[1])
        stuck = Gauge(
            "chatterbox_stuck_seconds", "For how long the engine has made no step though there is work.", registry=self.registry
        )
        stuck.set_function(batch.stuck)

    def text(self) -> bytes:
        """The text format."""
        return generate_latest(self.registry)
