"""The error tree. Every message names the stage, file or argument, what was expected and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class ChatterboxError(Exception):
    """Base of every error that this package raises on purpose."""


class CheckpointError(ChatterboxError):
    """A checkpoint file is missing, damaged or does not fit the configuration."""


class ConfigError(CheckpointError):
    """A model configuration is not valid."""


class DownloadError(CheckpointError):
    """A model could not be downloaded."""


class VoiceError(ChatterboxError):
    """A voice file is damaged or does not fit the model."""


class AudioError(ChatterboxError, ValueError):
    """A reference clip cannot be used."""


class UnsupportedAudioError(AudioError):
    """A reader does not know the format or codec of a reference clip, which need not be damaged: another reader may know it."""


class TextError(ChatterboxError, ValueError):
    """A text cannot be used."""


class ArgumentError(ChatterboxError, ValueError):
    """An argument has the wrong type, shape or range."""


class BackendError(ChatterboxError):
    """An implementation was asked for by name and cannot run, or a stage key is unknown."""


class DeviceError(ChatterboxError):
    """The device is unknown or cannot be used."""


class WatermarkError(ChatterboxError):
    """The watermark cannot be applied or detected: its weights are missing or damaged."""


class FileError(ChatterboxError, OSError):
    """Reading or writing a file failed."""


class CancelledError(ChatterboxError):
    """The caller stopped the work."""


class BusyError(ChatterboxError):
    """As many requests wait as may wait: this one is to come again later."""


class BatchError(ChatterboxError):
    """Some texts of a batch failed. ``results`` has the speech of the others, and the errors in the places of these."""

    def __init__(self, message: str, results: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.results = list(results)


class InternalError(ChatterboxError, RuntimeError):
    """A defect of this package."""


class AbsentError(ChatterboxError, AttributeError):
    """Upstream's model has this attribute, the drop-in has not. The message names the way to what it is used for."""


class TruncationWarning(UserWarning):
    """A text was longer than the model's limit, and only its beginning is spoken."""


class TruncatedSpeechWarning(UserWarning):
    """Speech reached ``max_tokens`` before T3 ended it: the end of the text is missing (``Speech.finish_reason``)."""
