"""The public API: :class:`ChatterboxTurbo`."""

from __future__ import annotations

import logging
import numbers
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import backends, hub
from .backends import Plan, Spec
from .conditionals import read_conds
from .errors import ArgumentError, DeviceError, VoiceError
from .pipeline import Pipeline, callback
from .resources import Resources
from .speech import Speech
from .stages.t3.sampler import SamplerParameters
from .voice import Voice

logger = logging.getLogger(__name__)
LOUDNESS = ("bs1770", "rms", None)
WATERMARK = ("perth", None)
PRECISIONS = ("auto", "f32", "int8")
MAX_TOKENS = 1000
"""Upstream's limit of T3's loop (the first token comes on top)."""


class ChatterboxTurbo:
    """A loaded model. It does not change: threads may share it, and each request keeps its own state."""

    def __init__(
        self, pipeline: Pipeline, spec: Spec, builtin_voice: Voice | None, loudness: str | None, watermark: str | None
    ) -> None:
        self._pipeline = pipeline
        self._spec = spec
        self._loudness = loudness
        self._watermark = watermark
        self.builtin_voice = builtin_voice
        """The voice that comes with the checkpoint (``conds.pt``), or None."""

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "turbo",
        *,
        device: str = "auto",
        precision: str = "auto",
        backends: Spec = None,
        revision: str | None = None,
        tokenizer: str | Path | None = None,
        loudness: str | None = "bs1770",
        watermark: str | None = "perth",
        progress: bool = True,
    ) -> ChatterboxTurbo:
        """Loads ``"turbo"``, ``"nano"``, ``"demo"``, a repository id or a directory with upstream's files.

        ``device`` is ``"auto"`` (the CPU in this version), ``"cpu"``, ``"cuda"`` or ``"metal"``. ``precision`` is ``"f32"``, the
        parity contract; ``"int8"``, T3's large weights in 8 bits on the CPU (the Rust side; PyTorch has float32 alone); or ``"auto"``:
        int8 on the CPU, f32 elsewhere (see ``docs/precision.md``). ``backends`` is the switch (see ``backends.py``).
        ``tokenizer`` is the path of another tokenizer.json; ``loudness`` (``"bs1770"``, ``"rms"`` or None) and ``watermark``
        (``"perth"`` or None) are defaults for ``voice`` and ``generate``.

        Raises ``CheckpointError``, ``DownloadError``, ``DeviceError``, ``BackendError``, ``ArgumentError``.
        """
        if not isinstance(model, (str, Path)) or model == "":
            raise ArgumentError(f"model: expected turbo, nano, demo, a repository id or a directory, got {model!r}")
        if not isinstance(revision, (str, type(None))):
            raise ArgumentError(f"revision: expected a name or None, got {revision!r}")
        return cls._open(
            lambda: hub.locate(model, revision, progress), device, precision, backends, tokenizer, loudness, watermark
        )

    @classmethod
    def _open(
        cls,
        locate: Callable[[], tuple[Path, dict[str, Any]]],
        device: Any,
        precision: Any = "auto",
        backends: Spec = None,
        tokenizer: str | Path | None = None,
        loudness: str | None = "bs1770",
        watermark: str | None = "perth",
    ) -> ChatterboxTurbo:
        """``from_pretrained`` over what ``locate()`` gives: the directory and its configuration."""
        one_of("precision", precision, PRECISIONS)
        one_of("loudness", loudness, LOUDNESS)
        one_of("watermark", watermark, WATERMARK)
        if not isinstance(device, str):
            raise DeviceError(f"device: expected auto, cpu, cuda or metal, got {type(device).__name__}")
        if not isinstance(tokenizer, (str, Path, type(None))):
            raise ArgumentError(f"tokenizer: expected the path of a tokenizer.json or None, got {type(tokenizer).__name__}")
        plan = resolve(backends)
        directory, config = locate()
        options = {"tokenizer": None if tokenizer is None else str(tokenizer)}
        device = "cpu" if device == "auto" else device
        if precision == "int8" and not _on_cpu(device):
            raise ArgumentError(f"precision: expected 'auto' or 'f32' on device {device!r}, got 'int8', which runs on the CPU")
        if precision == "auto":
            precision = "int8" if _on_cpu(device) else "f32"
        resources = Resources(directory, config, device, precision, options)
        pipeline = Pipeline(resources, hub.fingerprint(directory, config))
        pipeline.build(plan, watermark is not None)
        conds = directory / hub.BUILTIN_VOICE
        return cls(pipeline, backends, read_conds(conds) if conds.exists() else None, loudness, watermark)

    @property
    def sample_rate(self) -> int:
        """24,000 Hz."""
        return 24_000

    @property
    def config(self) -> dict[str, Any]:
        """The model's hyper-parameters."""
        return dict(self._pipeline.config)

    @property
    def precision(self) -> str:
        """``"f32"`` or ``"int8"``: what ``"auto"`` became."""
        return self._pipeline.resources.precision

    @property
    def plan(self) -> Plan:
        """The implementations that a request uses unless it names others."""
        return resolve(self._spec)

    def voice(
        self, source: Any, *, loudness: Any = ..., backends: Spec = None, progress: Any = None, cancel: Any = None
    ) -> Voice:
        """Prepares a voice from a reference clip of more than 5 seconds.

        ``source`` is a path, bytes, a binary file object or ``(array, rate)``. ``progress`` is True or a callable
        ``(stage, done, total)`` that may return False to stop; ``cancel`` an event with ``is_set()``.
        Raises ``AudioError``, ``FileError``, ``CancelledError``.
        """
        loudness = self._loudness if loudness is ... else loudness
        one_of("loudness", loudness, LOUDNESS)
        call = callback(progress, cancel)
        return self._pipeline.voice(source, resolve(backends, self._spec), loudness, call)

    def generate(
        self,
        text: str,
        *,
        voice: Voice | str | Path | None = None,
        seed: int | None = None,
        temperature: float = 0.8,
        top_p: float = 0.95,
        top_k: int = 1000,
        repetition_penalty: float = 1.2,
        max_tokens: int = MAX_TOKENS,
        loudness: Any = ...,
        watermark: Any = ...,
        backends: Spec = None,
        progress: Any = None,
        cancel: Any = None,
    ) -> Speech:
        """Speaks ``text`` with ``voice`` (a :class:`Voice`, a voice file, a clip, or None for the checkpoint's own).

        The same ``seed`` gives the same samples, to the bit, on the same machine, whatever the number of threads; without
        one, a random seed is drawn and stands in the result. ``max_tokens`` (1 to 1000) limits T3's loop, as upstream counts.
        Raises ``TextError``, ``ArgumentError``, ``VoiceError``, ``AudioError``, ``BackendError``,
        ``WatermarkError``, ``CancelledError``.
        """
        if not isinstance(text, str):
            raise ArgumentError(f"text: expected str, got {type(text).__name__}")
        watermark = self._watermark if watermark is ... else watermark
        one_of("watermark", watermark, WATERMARK)
        parameters = SamplerParameters(
            _float("temperature", temperature), top_k, _float("top_p", top_p), _float("repetition_penalty", repetition_penalty)
        )
        whole("max_tokens", max_tokens, 1, MAX_TOKENS)
        loudness = self._loudness if loudness is ... else loudness
        one_of("loudness", loudness, LOUDNESS)
        seed = int.from_bytes(os.urandom(8), "little") if seed is None else whole("seed", seed, 0, 2**64 - 1)
        plan = resolve(backends, self._spec)
        if watermark is not None:
            self._pipeline.stage("watermark", plan["watermark"])  # refuse before the work, not after it
        call = callback(progress, cancel)
        if isinstance(voice, (str, Path)):
            voice = self._open_voice(Path(voice), loudness, backends, call)
        elif voice is None:
            voice = self.builtin_voice
        if voice is None:
            raise VoiceError("voice: this checkpoint has no built-in voice (conds.pt); pass voice=tts.voice('clip.wav')")
        if not isinstance(voice, Voice):
            raise ArgumentError(f"voice: expected a Voice, a path or None, got {type(voice).__name__}")
        logger.info("plan %s, seed %d", plan, seed)
        return self._pipeline.generate(text, voice, plan, parameters, seed, int(max_tokens), watermark, call)

    def detect_watermark(self, samples: Any, sample_rate: int = 24_000, *, backends: Spec = None) -> float:
        """Perth's confidence, 0 to 1, that float32 ``samples`` [n] carry the watermark."""
        whole("sample_rate", sample_rate, 1_000, 768_000)
        plan = resolve(backends, self._spec)
        return float(self._pipeline.stage("watermark", plan["watermark"]).detect(samples, sample_rate))

    def _open_voice(self, path: Path, loudness: Any, spec: Spec, call: Any) -> Voice:
        if path.suffix in (".safetensors", ".pt", ".pth"):
            return Voice.load(path)
        return self._pipeline.voice(path, resolve(spec, self._spec), loudness, call)


def _on_cpu(device: str) -> bool:
    return device.partition(":")[0] == "cpu"


def resolve(*specs: Spec) -> Plan:
    """The plan of these switches, the strongest first."""
    return backends.resolve(*specs)


def one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raises ``ArgumentError`` unless ``value`` is allowed."""
    if not (value is None or isinstance(value, str)) or value not in allowed:
        raise ArgumentError(f"{name}: expected {', '.join(map(repr, allowed))}, got {value!r}")


def whole(name: str, value: Any, low: int, high: int) -> int:
    """``value`` as int; raises ``ArgumentError`` unless it is a whole number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not low <= int(value) <= high:
        raise ArgumentError(f"{name}: expected a whole number from {low} to {high}, got {value!r}")
    return int(value)


def _float(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ArgumentError(f"{name}: expected a number, got {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ArgumentError(f"{name}: expected a number, got one beyond every float") from None
