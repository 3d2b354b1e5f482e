"""The public API: :class:`ChatterboxTurbo`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from . import _core
from .checkpoint import locate
from .checkpoint.resources import Resources
from .constants import SAMPLE_RATE
from .engine import devices, registry
from .engine.batch import AnyVoice, Batch, Result, Speaking, Taker
from .engine.observer import callback
from .engine.pipeline import Pipeline
from .errors import ArgumentError, BatchError, ChatterboxError, DeviceError, VoiceError
from .options import number, one_of, one_voice, seed_of, seeds_of, texts_of, voices_of, whole
from .plan import Plan, Spec
from .speech import Speech
from .stages.t3.sampler import SamplerParameters
from .voice import Voice, is_voice_file

logger = logging.getLogger(__name__)
LOUDNESS = ("bs1770", "rms", None)
WATERMARK = ("perth", None)
PRECISIONS = ("auto", "f32", "int8", "bf16", "int8+bf16")
MAX_TOKENS = 1000
"""Upstream's limit of T3's loop (the first token comes on top)."""
ROWS = 16
"""Texts that T3 decodes together unless the caller says otherwise."""
MOST_ROWS = 1024
ERRORS = ("raise", "return")


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

        ``device`` is ``"cpu"``, ``"cuda"`` (``"cuda:1"``), ``"metal"``, or ``"auto"``: CUDA where this build, a driver, a card
        and the libraries of ``chatterbox-turbo-rs[cuda]`` allow it, else the CPU (see ``docs/devices.md``; ``chatterbox-turbo
        info`` says why not). ``precision`` is ``"f32"``, the parity contract; on the CPU ``"int8"``, T3's large weights in 8 bits, ``"bf16"``, S3Gen's products in bfloat16, or
        ``"int8+bf16"`` (the Rust side; PyTorch has float32 alone); or ``"auto"``: on the CPU int8, with bf16 where the CPU
        multiplies it faster, f32 elsewhere (see ``docs/precision.md``). ``backends`` is the switch (see ``registry.py``).
        ``tokenizer`` is the path of another tokenizer.json; ``loudness`` (``"bs1770"``, ``"rms"`` or None) and ``watermark``
        (``"perth"`` or None) are defaults for ``voice`` and ``generate``.

        Raises ``CheckpointError``, ``DownloadError``, ``DeviceError``, ``BackendError``, ``ArgumentError``.
        """
        if not isinstance(model, (str, Path)) or model == "":
            raise ArgumentError(f"model: expected turbo, nano, demo, a repository id or a directory, got {model!r}")
        if not isinstance(revision, (str, type(None))):
            raise ArgumentError(f"revision: expected a name or None, got {revision!r}")
        return cls._open(
            lambda: locate.locate(model, revision, progress), device, precision, backends, tokenizer, loudness, watermark
        )

    @classmethod
    def _open(
        cls,
        find: Callable[[], tuple[Path, dict[str, Any]]],
        device: Any,
        precision: Any = "auto",
        backends: Spec = None,
        tokenizer: str | Path | None = None,
        loudness: str | None = "bs1770",
        watermark: str | None = "perth",
    ) -> ChatterboxTurbo:
        """``from_pretrained`` over what ``find()`` gives: the directory and its configuration."""
        one_of("precision", precision, PRECISIONS)
        one_of("loudness", loudness, LOUDNESS)
        one_of("watermark", watermark, WATERMARK)
        if not isinstance(device, str):
            raise DeviceError(f"device: expected auto, cpu, cuda or metal, got {type(device).__name__}")
        if not isinstance(tokenizer, (str, Path, type(None))):
            raise ArgumentError(f"tokenizer: expected the path of a tokenizer.json or None, got {type(tokenizer).__name__}")
        plan = resolve(backends)
        directory, config = find()
        options = {"tokenizer": None if tokenizer is None else str(tokenizer)}
        device = devices.resolve(device, precision, plan)
        if precision not in ("auto", "f32") and not _on_cpu(device):
            expected = f"expected 'auto' or 'f32' on device {device!r}"
            raise ArgumentError(f"precision: {expected}, got {precision!r}, which runs on the CPU")
        if precision == "auto":
            precision = _core.build_info()["cpu_precision"] if _on_cpu(device) else "f32"
        resources = Resources(directory, config, device, precision, options)
        pipeline = Pipeline(resources)
        pipeline.build(plan, watermark is not None)
        conds = directory / locate.BUILTIN_VOICE
        return cls(pipeline, backends, Voice.load(conds) if conds.exists() else None, loudness, watermark)

    @property
    def sample_rate(self) -> int:
        """24,000 Hz."""
        return SAMPLE_RATE

    @property
    def config(self) -> dict[str, Any]:
        """The model's hyper-parameters."""
        return dict(self._pipeline.config)

    @property
    def precision(self) -> str:
        """``"f32"``, ``"int8"``, ``"bf16"`` or ``"int8+bf16"``: what ``"auto"`` became."""
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
        speaking = self._speaking(temperature, top_p, top_k, repetition_penalty, max_tokens, loudness, watermark, backends)
        seed = seed_of(seed)
        call = callback(progress, cancel)
        voice = self._voice_of(voice, speaking, call)
        logger.info("plan %s, seed %d", speaking.plan, seed)
        return self._pipeline.generate(
            text, voice, speaking.plan, speaking.parameters, seed, speaking.max_tokens, speaking.watermark, call
        )

    def generate_many(
        self,
        texts: Iterable[str],
        voices: AnyVoice | Iterable[AnyVoice] = None,
        seeds: int | Iterable[int] | None = None,
        *,
        batch: int = ROWS,
        errors: str = "raise",
        finished: Taker | None = None,
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
    ) -> list[Result]:
        """Speaks many ``texts``, up to ``batch`` of them (1 to 1024) decoded together; a list in their order.

        Each speech has the samples of ``generate(text, voice=…, seed=…)``. ``voices`` is one voice for all (what ``generate``
        takes) or one for each text; ``seeds`` likewise: text ``i`` has seed ``seeds + i``, or ``seeds[i]``, or a random one.
        The other arguments are those of ``generate`` and hold for all texts.

        A text that fails does not stop the others. When these are done, ``errors="raise"`` raises ``BatchError``, whose
        ``results`` are the list with the error in that text's place; ``errors="return"`` returns that list.
        ``finished(i, speech or error)`` is called as soon as text ``i`` is done, in the order in which they are.

        ``progress`` reports stages as ``generate`` does: ``"t3"`` counts the tokens of all texts of the sum of their limits (a
        finished text counts as its limit), the others are those of the text that is at it, ``"texts"`` counts finished texts.
        ``timings["t3"]`` is a text's share: its own prefill, and of every common step an equal part for each text in it.

        T3 decodes together where both its stages are Rust's; in another plan one text follows the other. Raises at once,
        before any work: ``ArgumentError``, ``BackendError``, ``WatermarkError``, and what is wrong with a voice that all share;
        later ``BatchError`` and ``CancelledError``.
        """
        wanted = texts_of(texts)
        chosen, drawn = voices_of(voices, len(wanted)), seeds_of(seeds, len(wanted))
        whole("batch", batch, 1, MOST_ROWS)
        one_of("errors", errors, ERRORS)
        if finished is not None and not callable(finished):
            raise ArgumentError(f"finished: expected a callable (index, speech or error), got {type(finished).__name__}")
        speaking = self._speaking(temperature, top_p, top_k, repetition_penalty, max_tokens, loudness, watermark, backends)
        work = Batch(self._pipeline, speaking, int(batch), callback(progress, cancel), finished)
        opened = work.open(chosen, lambda voice, call: self._voice_of(voice, speaking, call), shared=one_voice(voices))
        logger.info("plan %s, %d texts", speaking.plan, len(wanted))
        results = work.speak(wanted, opened, drawn)
        failed = [(index, result) for index, result in enumerate(results) if isinstance(result, ChatterboxError)]
        if failed and errors == "raise":
            index, first = failed[0]
            raise BatchError(f"{len(failed)} of {len(results)} texts failed; texts[{index}]: {first}", results) from first
        return results

    def detect_watermark(self, samples: Any, sample_rate: int = SAMPLE_RATE, *, backends: Spec = None) -> float:
        """Perth's confidence, 0 to 1, that float32 ``samples`` [n] carry the watermark."""
        whole("sample_rate", sample_rate, 1_000, 768_000)
        plan = resolve(backends, self._spec)
        return float(self._pipeline.stage("watermark", plan["watermark"]).detect(samples, sample_rate))

    def _speaking(
        self,
        temperature: Any,
        top_p: Any,
        top_k: Any,
        repetition_penalty: Any,
        max_tokens: Any,
        loudness: Any,
        watermark: Any,
        spec: Spec,
    ) -> Speaking:
        """What ``generate`` and ``generate_many`` take alike, checked."""
        watermark = self._watermark if watermark is ... else watermark
        one_of("watermark", watermark, WATERMARK)
        penalty = number("repetition_penalty", repetition_penalty)
        parameters = SamplerParameters(number("temperature", temperature), top_k, number("top_p", top_p), penalty)
        max_tokens = whole("max_tokens", max_tokens, 1, MAX_TOKENS)
        loudness = self._loudness if loudness is ... else loudness
        one_of("loudness", loudness, LOUDNESS)
        plan = resolve(spec, self._spec)
        if watermark is not None:
            self._pipeline.stage("watermark", plan["watermark"])  # refuse before the work, not after it
        return Speaking(plan, parameters, max_tokens, watermark, loudness)

    def _voice_of(self, voice: Any, speaking: Speaking, call: Any) -> Voice:
        """The voice, read or prepared where it is a path, the checkpoint's own for None."""
        if isinstance(voice, (str, os.PathLike)):
            if is_voice_file(voice):
                return Voice.load(voice)
            return self._pipeline.voice(voice, speaking.plan, speaking.loudness, call)
        if voice is None:
            voice = self.builtin_voice
        if voice is None:
            raise VoiceError("voice: this checkpoint has no built-in voice (conds.pt); pass voice=tts.voice('clip.wav')")
        if not isinstance(voice, Voice):
            raise ArgumentError(f"voice: expected a Voice, a path or None, got {type(voice).__name__}")
        return voice


def _on_cpu(device: str) -> bool:
    return device.partition(":")[0] == "cpu"


def resolve(*specs: Spec) -> Plan:
    """The plan of these switches, the strongest first."""
    return registry.resolve(*specs)
