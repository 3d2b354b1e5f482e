"""What an operator decides about a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import ArgumentError
from ..options import between, whole

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def name_of(model: str) -> str:
    """What clients call a model: a directory by its name alone."""
    return Path(model).name or model if Path(model).is_dir() else model


@dataclass(frozen=True)
class Settings:
    """Checked; raises ``ArgumentError`` that names the argument.

    ``model`` is the name that clients see. ``voices`` is the directory of voice files, None for the built-in voice alone. ``api_key``
    is asked of clients where it is set. ``hosts`` are the names that requests may be sent to, empty for any. ``origins`` are those
    of pages elsewhere that may ask (``*`` for any). ``batch`` segments are decoded together and ``max_queue`` requests may wait for that.
    ``max_upload`` is bytes of a sound that is sent, ``longest_clip`` its seconds, ``max_input`` characters of a text. ``require_watermark``: no request may leave
    it out. ``compare``: may two renderings of a text be asked for? Another precision is loaded for that beside the model that is served.
    After ``patience`` seconds without a byte taken a client is given up; after ``stuck`` seconds without a step ``/health`` says so.
    """

    model: str = "demo"
    voices: Path | None = None
    api_key: str | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    batch: int = 8
    max_queue: int = 100
    max_upload: int = 25_000_000
    max_input: int = 100_000
    longest_clip: float = 600.0
    require_watermark: bool = False
    compare: bool = True
    patience: float = 60.0
    stuck: float = 60.0

    def __post_init__(self) -> None:
        whole("batch", self.batch, 1, 1024)
        whole("max_queue", self.max_queue, 0, 10_000)
        whole("max_upload", self.max_upload, 1_000, 10_000_000_000)
        whole("max_input", self.max_input, 1, 10_000_000)
        between("longest_clip", self.longest_clip, 6, 100_000, "seconds")
        between("patience", self.patience, 1, 86_400, "seconds")
        between("stuck", self.stuck, 1, 86_400, "seconds")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable() and self.api_key.strip()):
            raise ArgumentError("api_key: expected printable ASCII characters, got something else or none")
