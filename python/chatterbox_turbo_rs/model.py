"""The public API: :class:`ChatterboxTurbo`."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from numpy.typing import ArrayLike

from . import _core
from .checkpoint import locate
from .checkpoint.fingerprint import of_model
from .checkpoint.resources import Resources
from .constants import SAMPLE_RATE
from .engine import comparison, conversion, devices, long_text, registry, warn
from .engine import stream as streaming
from .engine.batch import Batch, Taker
from .engine.comparison import Comparison
from .engine.hand_over import asynchronous, hand_over
from .engine.observer import Either, Onlooker
from .engine.open_batch import OpenBatch
from .engine.pipeline import S3GEN_SECONDS, Pipeline, Run
from .engine.segments import Segment, segments
from .engine.voices import Voices
from .errors import ArgumentError, BatchError, ChatterboxError
from .options import (
    CHUNK,
    LOUDNESS,
    MAX_TOKENS,
    PRECISIONS,
    ROWS,
    WATERMARK,
    AnyPath,
    AnyVoice,
    Clip,
    CompareArguments,
    GenerationOptions,
    Latency,
    Loudness,
    Many,
    OnError,
    Order,
    Precision,
    Result,
    SomeSeeds,
    SomeVoices,
    Split,
    SplitWhen,
    StreamOptions,
    TorchDevice,
    Watermark,
    between,
    one_of,
    path_of,
    samples_of,
    seed_of,
    split_of,
    text_of,
    whole,
)
from .plan import Plan, Spec
from .progress import Event, Progress
from .speech import Chunk, Speech
from .voice import Voice

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import Arguments, ManyArguments, StreamArguments

logger = logging.getLogger(__name__)


class ChatterboxTurbo:
    """A loaded model. It does not change: threads may share it, and each request keeps its own state.

    It pickles by what it was loaded with: whoever unpickles it loads the model again.
    """

    def __init__(
        self, pipeline: Pipeline, spec: Spec, builtin_voice: Voice | None, loudness: Loudness | None, watermark: Watermark | None
    ) -> None:
        self._pipeline = pipeline
        self._spec = spec
        self._loudness = loudness
        self._watermark = watermark
        self._voices = Voices(pipeline, builtin_voice)
        self._loaded: tuple[Any, ...] = ()
        self.builtin_voice = builtin_voice
        """The voice that comes with the checkpoint (``conds.pt``), or None."""

    @classmethod
    def from_pretrained(
        cls,
        model: AnyPath = "turbo",
        *,
        device: str | TorchDevice = "auto",
        precision: Precision = "auto",
        backends: Spec = None,
        revision: str | None = None,
        tokenizer: AnyPath | None = None,
        loudness: Loudness | None = "bs1770",
        watermark: Watermark | None = "perth",
        t3: bool = True,
        progress: bool = True,
    ) -> ChatterboxTurbo:
        """Loads ``"turbo"``, ``"nano"``, ``"demo"``, a repository id or a directory with upstream's files.

        ``device`` is ``"cpu"``, ``"cuda"`` (``"cuda:1"``), ``"metal"`` (or ``"mps"``), a ``torch.device``, or ``"auto"``: CUDA
        where this build, a driver, a card and the libraries of ``chatterbox-turbo-rs[cuda]`` allow it, else the CPU (see
        ``docs/devices.md``; ``chatterbox-turbo info`` says why not). ``precision`` is ``"f32"``, the parity contract; on the CPU
        ``"int8"`` or ``"int4"``, T3's large weights in 8 or 4 bits, ``"bf16"``, S3Gen's products in bfloat16, ``"int8+bf16"`` or
        ``"int4+bf16"`` (the Rust side; PyTorch has float32 alone); or ``"auto"``: on the CPU int8, with bf16 where the CPU multiplies it faster, f32 elsewhere
        (see ``docs/precision.md``). ``backends`` is the switch (see ``plan.py``). ``tokenizer`` is the path of another
        tokenizer.json; ``loudness`` (``"bs1770"``, ``"rms"`` or None) and ``watermark`` (``"perth"`` or None) are defaults for
        ``voice``, ``generate`` and ``convert``. ``t3=False`` leaves T3 out, which ``voice`` and ``convert`` do without; it is
        loaded when something is first spoken.

        Raises ``CheckpointError``, ``DownloadError``, ``DeviceError``, ``BackendError``, ``ArgumentError``.
        """
        if not isinstance(model, (str, os.PathLike)) or model == "":
            raise ArgumentError(f"model: expected turbo, nano, demo, a repository id or a directory, got {model!r}")
        if not isinstance(revision, (str, type(None))):
            raise ArgumentError(f"revision: expected a name or None, got {revision!r}")
        found = model if isinstance(model, str) else Path(path_of("model", model))
        find = partial(locate.locate, found, revision, progress)
        return cls._open(find, device, precision, backends, tokenizer, loudness, watermark, t3)

    @classmethod
    def _open(
        cls,
        find: Callable[[], tuple[Path, dict[str, Any]]],
        device: str | TorchDevice,
        precision: Precision = "auto",
        backends: Spec = None,
        tokenizer: AnyPath | None = None,
        loudness: Loudness | None = "bs1770",
        watermark: Watermark | None = "perth",
        t3: bool = True,
    ) -> ChatterboxTurbo:
        """``from_pretrained`` over what ``find()`` gives: the directory and its configuration."""
        one_of("precision", precision, PRECISIONS)
        one_of("loudness", loudness, LOUDNESS)
        one_of("watermark", watermark, WATERMARK)
        if not isinstance(t3, bool):
            raise ArgumentError(f"t3: expected True or False, got {t3!r}")
        tokenizer = None if tokenizer is None else path_of("tokenizer", tokenizer)
        device = devices.named(device)
        plan = registry.resolve(backends)
        loaded = (find, device, precision, backends, tokenizer, loudness, watermark, t3)
        directory, config = find()
        device = devices.resolve(device, precision, plan)
        on_cpu = device.partition(":")[0] == "cpu"
        if precision not in ("auto", "f32") and not on_cpu:
            expected = f"expected 'auto' or 'f32' on device {device!r}"
            raise ArgumentError(f"precision: {expected}, got {precision!r}, which runs on the CPU")
        chosen = precision if precision != "auto" else _core.build_info()["cpu_precision"] if on_cpu else "f32"
        pipeline = Pipeline(Resources(directory, config, device, chosen, {"tokenizer": tokenizer}))
        pipeline.build(plan, watermark is not None, t3)
        conds = directory / locate.BUILTIN_VOICE
        model = cls(pipeline, backends, Voice.load(conds) if os.path.lexists(conds) else None, loudness, watermark)
        model._loaded = loaded
        return model

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self)._open, self._loaded

    def __repr__(self) -> str:
        resources = self._pipeline.resources
        try:
            plan = str(self.plan)
        except ChatterboxError as error:  # the environment's switch has changed since
            plan = str(error)
        where = f"{str(resources.directory)!r}, model={self.config['name']!r}, device={resources.device!r}"
        return f"ChatterboxTurbo({where}, precision={self.precision!r}, plan={plan!r})"

    @property
    def sample_rate(self) -> int:
        """24,000 Hz."""
        return SAMPLE_RATE

    @property
    def config(self) -> dict[str, Any]:
        """The model's hyper-parameters, a JSON document."""
        return dict(self._pipeline.config)

    @property
    def device(self) -> str:
        """``"cpu"``, ``"cuda"`` (``"cuda:1"``) or ``"metal"``: what ``"auto"`` became."""
        return self._pipeline.resources.device

    @property
    def tags(self) -> tuple[str, ...]:
        """What the tokenizer takes for one token each, such as ``"[laugh]"``; nothing with ``tokenizer=``."""
        return self._pipeline.tags

    @property
    def precision(self) -> Precision:
        """``"f32"``, ``"int8"``, ``"bf16"``, ``"int8+bf16"``, ``"int4"`` or ``"int4+bf16"``: what ``"auto"`` became."""
        return cast(Precision, self._pipeline.resources.precision)

    @property
    def fingerprint(self) -> str:
        """A digest of what makes the sound: weights (sampled), tokenizer, configuration, precision, device, plan and version.

        Where it is equal, so are the samples of a text, a seed, a voice and options, on CPUs of the same level
        (``chatterbox-turbo info``). Raises ``FileError`` and ``CheckpointError`` when the files are gone.
        """
        resources = self._pipeline.resources
        made = [of_model(resources), self.precision, resources.device.partition(":")[0], str(self.plan)]
        return hashlib.sha256("\n".join([*made, _core.build_info()["version"]]).encode()).hexdigest()

    @property
    def plan(self) -> Plan:
        """The implementations that a request uses unless it names others."""
        return registry.resolve(self._spec)

    def voice(
        self,
        source: Clip,
        *,
        prompt_seconds: float = S3GEN_SECONDS,
        loudness: Loudness | None | EllipsisType = ...,
        backends: Spec = None,
        progress: Progress = None,
        cancel: Event | None = None,
    ) -> Voice:
        """Prepares a voice from a reference clip of more than 5 seconds.

        ``source`` is a path, bytes, a binary file object or ``(array, rate)``. ``prompt_seconds`` (1 to 10, upstream's) is how much of
        it S3Gen hears beside every text, in its mel and its tokens: less is faster and further from the speaker. ``progress`` is True or a callable
        ``(stage, done, total)`` that may return False to stop; ``cancel`` an event with ``is_set()``.
        Raises ``AudioError``, ``FileError``, ``CancelledError``.
        """
        loudness = self._loudness if loudness is ... else loudness
        one_of("loudness", loudness, LOUDNESS)
        prompt_seconds = between("prompt_seconds", prompt_seconds, 1, S3GEN_SECONDS, "seconds")
        plan = registry.resolve(backends, self._spec)
        with Onlooker(progress, cancel) as call:
            return self._pipeline.voice(source, plan, loudness, call).shortened(prompt_seconds)

    def generate(
        self,
        text: str,
        *,
        voice: AnyVoice = None,
        seed: int | None = None,
        temperature: float = 0.8,
        top_p: float = 0.95,
        top_k: int = 1000,
        repetition_penalty: float = 1.2,
        max_tokens: int = MAX_TOKENS,
        loudness: Loudness | None | EllipsisType = ...,
        watermark: Watermark | None | EllipsisType = ...,
        split: SplitWhen = "auto",
        speed: float = 1.0,
        pronounce: Mapping[str, str] | None = None,
        backends: Spec = None,
        progress: Progress = None,
        cancel: Event | None = None,
    ) -> Speech:
        """Speaks ``text`` with ``voice``: a :class:`Voice`, a voice file, a clip, or None for the checkpoint's own.

        A voice from a file is kept: the next request with the same file (by its content) does not prepare it again. The 32
        that were used last are (0.2 MB each), and T3's keys and values of the last 4 (36.5 MB each with int8 or int4, 75.8 in float32).

        ``seed`` (0 to 2**64 - 1): the same one gives the same samples, to the bit, on the same machine, whatever the number of
        threads; without one, a random seed is drawn and stands in the result.

        How each speech token is drawn, in this order: ``temperature`` divides the scores: below 1 the likely tokens become
        likelier, above 1 less so; 0 and below mean 1, as upstream has it (``top_k=1`` always takes the likeliest). ``top_k``
        keeps the so many likeliest tokens; 0 and below keep all. ``top_p`` keeps the likeliest whose probabilities together
        reach it; 1 and above keep all, 0 the likeliest alone. ``repetition_penalty`` (above 0) makes tokens that were spoken
        before less likely where it is above 1, likelier below; 1 is off.

        ``max_tokens`` (1 to 1000) limits T3's loop, as upstream counts: 25 tokens are a second. Speech that reaches it is cut:
        ``finish_reason`` is then ``"length"``, and a ``TruncatedSpeechWarning`` says so.

        ``split``: a text of more than 280 characters (of fewer with a model that speaks fewer well, as the embedded one), or with pauses (``[pause 0.5s]``), is spoken in segments (see ``segments``)
        which are decoded together, each anew, at most three times, when it went wrong, and joined; shorter ones are not touched.
        A ``Split`` has other limits; ``"never"`` speaks everything in one go, as upstream does, and what is beyond
        ``max_tokens`` is lost. ``speed`` (0.5 to 2) changes the pace and leaves the pitch. ``pronounce`` maps whole words to what
        is spoken in their place (``{"Nguyen": "win"}``).

        ``loudness`` (``"bs1770"``, ``"rms"``, None) is that of ``voice`` where it is a clip; ``watermark`` (``"perth"``, None)
        marks the sound; ``backends`` is the switch (see ``plan.py``); ``progress`` and ``cancel`` are as in ``voice``.

        Raises ``TextError``, ``ArgumentError``, ``VoiceError``, ``AudioError``, ``BackendError``, ``WatermarkError``,
        ``CancelledError``.
        """
        text = text_of(text)
        sampling = (seed_of(seed), temperature, top_p, top_k, repetition_penalty, max_tokens)
        plan, options = self._checked(sampling, loudness, watermark, split, speed, pronounce, backends)
        with Onlooker(progress, cancel) as call:
            opened = self._voices.open(voice, plan, options.loudness, call)
            logger.info("plan %s, seed %d", plan, options.seed)
            if len(long_text.plan_of(text, options.seed, options)) == 1:
                speech = self._pipeline.generate(text, opened, plan, options, call)
            else:
                batch = Batch(self._pipeline, self._voices, plan, options, call)
                speech = long_text.speak_one(batch, text, opened, options.seed)
        warn.of_cuts({"the speech": speech}, options.max_tokens)
        return speech

    def stream(
        self,
        text: str,
        *,
        latency: Latency = "sentence",
        chunk: float = CHUNK,
        voice: AnyVoice = None,
        seed: int | None = None,
        temperature: float = 0.8,
        top_p: float = 0.95,
        top_k: int = 1000,
        repetition_penalty: float = 1.2,
        max_tokens: int = MAX_TOKENS,
        loudness: Loudness | None | EllipsisType = ...,
        watermark: Watermark | None | EllipsisType = ...,
        split: SplitWhen = "auto",
        speed: float = 1.0,
        pronounce: Mapping[str, str] | None = None,
        backends: Spec = None,
        progress: Progress = None,
        cancel: Event | None = None,
    ) -> Generator[Chunk, None, None]:
        """``generate`` that yields its sound in chunks, each as soon as it is made: ``for chunk in tts.stream(text): play(chunk.samples)``.

        ``latency="sentence"``: the chunks joined are the samples of ``generate`` with the same arguments, mark included (to the bit
        where vocoder and watermark are Rust's on the CPU, within 1e-6 elsewhere: ``docs/streaming.md``). The first one comes when T3
        and the flow are through the text and the vocoder through half a second. ``latency="low"``: the first one comes when T3 has
        drawn 13 tokens (half a second). Tokens are those of ``generate``, samples are not: S3Gen has heard less when it renders them.

        ``chunk`` is the most seconds of a chunk (0.02 to 10); it changes no sample. The work runs in a thread of its own from the first
        ``next`` on (which ``progress`` is called in), up to a minute of sound ahead of whoever takes the chunks, and ends when the
        generator is closed or dropped, or ``cancel`` is set. Any number of streams may run at a time. The other arguments are those of
        ``generate``; all are checked at once.

        Raises what ``generate`` does: ``ArgumentError``, ``BackendError`` and ``WatermarkError`` at once, the others from ``next``.
        """
        order = self._order(
            text,
            latency=latency,
            chunk=chunk,
            voice=voice,
            seed=seed,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            repetition_penalty=repetition_penalty,
            max_tokens=max_tokens,
            loudness=loudness,
            watermark=watermark,
            split=split,
            speed=speed,
            pronounce=pronounce,
            backends=backends,
        )
        return streaming.stream(self._pipeline, self._voices, order, Onlooker(progress, cancel))

    def astream(self, text: str, **arguments: Unpack[StreamArguments]) -> AsyncGenerator[Chunk, None]:
        """``stream`` for an event loop: ``async for chunk in tts.astream(text): …``. Arguments are those of ``stream`` and are checked at once.

        Closing it (``aclose``) and cancelling its task stop the work and wait until it has ended, which takes a moment.
        """
        stop = threading.Event()
        arguments["cancel"] = Either(stop, arguments.get("cancel"))
        return asynchronous(self.stream(text, **arguments), stop)

    def open_batch(self, rows: int = 8, *, waiting: int = 100, ahead: float = 10.0) -> OpenBatch:
        """One engine for many callers at a time: ``with tts.open_batch() as batch: for chunk in batch.stream(text, seed=7): …``.

        Texts join while others are spoken; ``rows`` segments of them (1 to 1024) are decoded together, and S3Gen's work goes round.
        Chunks are those of ``stream`` with the same arguments, to the bit, whatever else is spoken. ``waiting`` requests may wait for a
        row; one more is a ``BusyError``. No more than ``ahead`` seconds of a text are made before they are taken.
        It has a thread of its own until it is closed.
        """
        return OpenBatch(self._pipeline, self._voices, self._order, rows, waiting, ahead)

    def _order(
        self,
        text: str,
        *,
        latency: Latency = "sentence",
        chunk: float = CHUNK,
        voice: AnyVoice = None,
        seed: int | None = None,
        loudness: Loudness | None | EllipsisType = ...,
        watermark: Watermark | None | EllipsisType = ...,
        split: SplitWhen = "auto",
        pronounce: Mapping[str, str] | None = None,
        backends: Spec = None,
        **sampling: Any,
    ) -> Order:
        """The arguments of ``stream``, checked."""
        how = StreamOptions(latency, chunk)
        options = self._options(loudness, watermark, seed_of(seed), split=self._split(split), pronounce=pronounce, **sampling)
        return Order(text_of(text), voice, self._planned(options, backends), options, how)

    def segments(self, text: str, *, seed: int = 0, split: Split | None = None) -> list[Segment]:
        """The segments that ``generate(text, seed=…, split=…)`` speaks: see :func:`engine.segments.segments`.

        Raises ``ArgumentError`` and ``TextError``.
        """
        limits = self._split(split or "auto") if isinstance(split, (Split, type(None))) else split
        return segments(text_of(text), seed=seed_of(seed), split=limits)

    def convert(
        self,
        source: Clip,
        *,
        voice: AnyVoice = None,
        seed: int | None = None,
        loudness: Loudness | None | EllipsisType = ...,
        watermark: Watermark | None | EllipsisType = ...,
        backends: Spec = None,
        progress: Progress = None,
        cancel: Event | None = None,
    ) -> Speech:
        """What somebody says in ``source``, in another ``voice``: words and timing stay, the speaker changes (``docs/conversion.md``).

        ``source`` is a path, bytes, a binary file object or ``(array, rate)``, longer than 0.1 s and of any length: beyond 20 s it
        is cut at its quietest places. The result is as long, to 40 ms. ``voice`` is that of ``generate``, and so are ``loudness``
        (of the voice's clip: the source's is left), ``watermark``, ``backends``, and ``seed``: the same one gives the same
        samples. ``progress`` and ``cancel`` are as in ``voice``; ``"pieces"`` counts the pieces of the source that are done.
        T3 takes no part, and is not loaded for it (``from_pretrained(…, t3=False)``).

        Raises ``AudioError``, also for digital silence, ``FileError``, ``ArgumentError``, ``VoiceError``, ``BackendError``,
        ``WatermarkError``, ``CancelledError``.
        """
        options = self._options(loudness, watermark, seed_of(seed))
        plan = self._planned(options, backends)
        with Onlooker(progress, cancel) as call:
            run = Run(self._pipeline, plan, call)
            samples = conversion.load(run, source)
            opened = self._voices.open(voice, plan, options.loudness, call)
            logger.info("plan %s, seed %d", run.plan, options.seed)
            return conversion.convert(run, samples, opened, options.seed, options.watermark is not None)

    def compare(
        self,
        text: str,
        a: tuple[Spec, Precision],
        b: tuple[Spec, Precision],
        *,
        progress: Progress = None,
        cancel: Event | None = None,
        **arguments: Unpack[CompareArguments],
    ) -> Comparison:
        """Speaks ``text`` in two ways, with the same voice, seed and tokens, and measures the difference: ``tts.compare("Hi.", ("rust", "f32"), ("rust", "int8"))``.

        ``a`` and ``b`` are each the switch (see ``plan.py``) and a precision, ``"auto"`` for this model's. Another one than this model's is loaded for the call, which takes
        a model's memory, and let go again. The text is spoken in one go. The other arguments are those of ``generate``, but for ``split``, ``speed`` and
        ``backends``.

        Raises what ``generate`` does.
        """
        if unknown := sorted(set(arguments) - set(CompareArguments.__annotations__)):
            raise TypeError(f"compare() got an unexpected keyword argument {unknown[0]!r}")
        known = comparison.precisions(self.device)
        sides = []
        for name, side in (("a", a), ("b", b)):
            if not isinstance(side, (tuple, list)) or len(side) != 2:
                raise ArgumentError(f"{name}: expected a switch and a precision, such as ('rust', 'f32'), got {side!r}")
            backends, precision = side
            one_of(f"{name}.precision", precision, ("auto", *known))
            sides.append((registry.resolve(backends, self._spec), self.precision if precision == "auto" else precision))
        order = self._order(text, split="never", backends=a[0], **arguments)
        with Onlooker(progress, cancel) as call:
            opened = self._voices.open(order.voice, order.plan, order.options.loudness, call)
            return comparison.compare(self._pipeline, opened, order.text, (sides[0], sides[1]), order.options, call)

    @overload
    def generate_many(
        self,
        texts: Iterable[str],
        voices: SomeVoices = ...,
        seeds: SomeSeeds = ...,
        *,
        errors: Literal["raise"] = ...,
        **more: Unpack[ManyArguments],
    ) -> list[Speech]: ...

    @overload
    def generate_many(
        self,
        texts: Iterable[str],
        voices: SomeVoices = ...,
        seeds: SomeSeeds = ...,
        *,
        errors: OnError,
        **more: Unpack[ManyArguments],
    ) -> list[Result]: ...

    def generate_many(
        self,
        texts: Iterable[str],
        voices: SomeVoices = None,
        seeds: SomeSeeds = None,
        *,
        batch: int = ROWS,
        errors: OnError = "raise",
        finished: Taker | None = None,
        temperature: float = 0.8,
        top_p: float = 0.95,
        top_k: int = 1000,
        repetition_penalty: float = 1.2,
        max_tokens: int = MAX_TOKENS,
        loudness: Loudness | None | EllipsisType = ...,
        watermark: Watermark | None | EllipsisType = ...,
        split: SplitWhen = "auto",
        speed: float = 1.0,
        pronounce: Mapping[str, str] | None = None,
        backends: Spec = None,
        progress: Progress = None,
        cancel: Event | None = None,
    ) -> list[Speech] | list[Result]:
        """Speaks many ``texts``, up to ``batch`` of them (1 to 1024) decoded together; a list in their order.

        Each speech has the samples of ``generate(text, voice=…, seed=…)``. ``voices`` is one voice for all (what ``generate``
        takes) or one for each text; ``seeds`` likewise: text ``i`` has seed ``seeds + i``, or ``seeds[i]``, or a random one.
        The other arguments are those of ``generate`` and hold for all texts. The list holds all sound: ``iter_many`` does not.

        A text that fails does not stop the others. When these are done, ``errors="raise"`` raises ``BatchError``, whose
        ``results`` are the list with the error in that text's place; ``errors="return"`` returns that list.
        ``finished(i, speech or error)`` is called as soon as text ``i`` is done, in the order in which they are.
        One ``TruncatedSpeechWarning`` at the end names the texts that were cut at ``max_tokens``.

        Long texts are split as ``generate`` splits them, and their segments decoded together with all others; ``"segments"`` then
        stands for ``"texts"`` in what ``progress`` hears.

        ``progress`` reports stages as ``generate`` does: ``"t3"`` counts the tokens of all texts of the sum of their limits (a
        finished text counts as its limit), the others are those of the text that is at it, ``"texts"`` counts finished texts.
        ``timings["t3"]`` is a text's share: its own prefill, and of every common step an equal part for each text in it.

        T3 decodes together where both its stages are Rust's; in another plan one text follows the other. Raises at once,
        before any work: ``ArgumentError``, ``BackendError``, ``WatermarkError``, and what is wrong with a voice that all share;
        later ``BatchError`` and ``CancelledError``.
        """
        if finished is not None and not callable(finished):
            raise ArgumentError(f"finished: expected a callable (index, speech or error), got {type(finished).__name__}")
        sampling = (0, temperature, top_p, top_k, repetition_penalty, max_tokens)
        plan, options = self._checked(sampling, loudness, watermark, split, speed, pronounce, backends)
        many = Many(texts, voices, seeds, batch, errors)
        results: dict[int, Result] = {}

        def take(index: int, result: Result) -> None:
            results[index] = result
            if finished is not None:
                finished(index, result)

        with Onlooker(progress, cancel) as call:
            long_text.speak(Batch(self._pipeline, self._voices, plan, options, call), many, take)
        ordered = [results[index] for index in range(len(results))]
        warn.of_cuts({f"texts[{i}]": result for i, result in enumerate(ordered)}, options.max_tokens)
        failed = [(index, result) for index, result in enumerate(ordered) if isinstance(result, ChatterboxError)]
        if failed and errors == "raise":
            index, first = failed[0]
            raise BatchError(f"{len(failed)} of {len(ordered)} texts failed; texts[{index}]: {first}", ordered) from first
        return ordered

    @overload
    def iter_many(
        self,
        texts: Iterable[str],
        voices: SomeVoices = ...,
        seeds: SomeSeeds = ...,
        *,
        errors: Literal["raise"] = ...,
        **more: Unpack[Arguments],
    ) -> Generator[tuple[int, Speech], None, None]: ...

    @overload
    def iter_many(
        self,
        texts: Iterable[str],
        voices: SomeVoices = ...,
        seeds: SomeSeeds = ...,
        *,
        errors: OnError,
        **more: Unpack[Arguments],
    ) -> Generator[tuple[int, Result], None, None]: ...

    def iter_many(
        self,
        texts: Iterable[str],
        voices: SomeVoices = None,
        seeds: SomeSeeds = None,
        *,
        batch: int = ROWS,
        errors: OnError = "raise",
        temperature: float = 0.8,
        top_p: float = 0.95,
        top_k: int = 1000,
        repetition_penalty: float = 1.2,
        max_tokens: int = MAX_TOKENS,
        loudness: Loudness | None | EllipsisType = ...,
        watermark: Watermark | None | EllipsisType = ...,
        split: SplitWhen = "auto",
        speed: float = 1.0,
        pronounce: Mapping[str, str] | None = None,
        backends: Spec = None,
        progress: Progress = None,
        cancel: Event | None = None,
    ) -> Generator[tuple[int, Speech], None, None] | Generator[tuple[int, Result], None, None]:
        """``generate_many`` that yields ``(i, speech)`` as soon as text ``i`` is done, in the order in which they are, and keeps nothing.

        Sound takes no more memory for many texts than for few: beside the one that was yielded at most two wait to be taken,
        then the work does. It runs in a thread of its own from the first ``next`` on (which ``progress`` is called in), and
        ends when the generator is closed or dropped. Arguments are those of ``generate_many`` and are checked at once.

        A text that fails ends the iteration with a ``BatchError`` that names it (``errors="raise"``), or is yielded as
        ``(i, error)`` (``errors="return"``). A ``TruncatedSpeechWarning`` names each text that was cut at ``max_tokens``.
        """
        sampling = (0, temperature, top_p, top_k, repetition_penalty, max_tokens)
        plan, options = self._checked(sampling, loudness, watermark, split, speed, pronounce, backends)
        many, onlooker = Many(texts, voices, seeds, batch, errors), Onlooker(progress, cancel)

        def work(give: Callable[[tuple[int, Result]], None], check: Callable[[], None]) -> None:
            with onlooker as call:

                def watched(stage: str, done: int, total: int) -> None:
                    check()
                    if call is not None:
                        call(stage, done, total)

                batch = Batch(self._pipeline, self._voices, plan, options, watched)
                long_text.speak(batch, many, lambda index, result: give((index, result)))

        def look(pair: tuple[int, Result]) -> None:
            index, result = pair
            if isinstance(result, ChatterboxError) and errors == "raise":
                raise BatchError(f"texts[{index}]: {result}") from result
            warn.of_cuts({f"texts[{index}]": result}, options.max_tokens)

        return hand_over(work, look)

    def detect_watermark(self, samples: Speech | ArrayLike, sample_rate: int | None = None, *, backends: Spec = None) -> float:
        """Perth's confidence, 0 to 1, that ``samples`` carry the watermark: a ``Speech``, or numbers [n] (or [1, n]) in any float type,
        or integers by their full scale. ``sample_rate`` is in Hz; the speech's own, or 24,000, unless it is given.

        Raises ``ArgumentError``, ``AudioError`` for a clip that is silent or not longer than 32 ms, ``WatermarkError``.
        """
        if sample_rate is None:
            sample_rate = samples.sample_rate if isinstance(samples, Speech) else SAMPLE_RATE
        whole("sample_rate", sample_rate, 1_000, 768_000)
        plan = registry.resolve(backends, self._spec)
        return float(self._pipeline.stage("watermark", plan["watermark"]).detect(samples_of(samples), sample_rate))

    def _checked(
        self,
        sampling: tuple[int, float, float, int, float, int],
        loudness: Loudness | None | EllipsisType,
        watermark: Watermark | None | EllipsisType,
        split: SplitWhen,
        speed: float,
        pronounce: Mapping[str, str] | None,
        backends: Spec,
    ) -> tuple[Plan, GenerationOptions]:
        """The plan and the options of a request."""
        more = {"split": self._split(split), "speed": speed, "pronounce": pronounce}
        options = self._options(loudness, watermark, *sampling, **more)
        return self._planned(options, backends), options

    def _options(
        self, loudness: Loudness | None | EllipsisType, watermark: Watermark | None | EllipsisType, *sampling: Any, **more: Any
    ) -> GenerationOptions:
        """The options, with the model's own loudness and watermark for ``...``."""
        more["loudness"] = self._loudness if loudness is ... else loudness
        more["watermark"] = self._watermark if watermark is ... else watermark
        if more.get("pronounce") is None:
            more["pronounce"] = {}
        return GenerationOptions(*sampling, **more)

    def _split(self, value: SplitWhen) -> Split | None:
        """How a text is split, into segments that this model speaks well."""
        split = split_of(value)
        return split and split.within(self._pipeline.config["text"]["longest"])

    def _planned(self, options: GenerationOptions, backends: Spec) -> Plan:
        plan = registry.resolve(backends, self._spec)
        if options.watermark is not None:
            self._pipeline.stage("watermark", plan["watermark"])  # refuse before the work, not after it
        return plan
