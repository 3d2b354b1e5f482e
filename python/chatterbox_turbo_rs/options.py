"""What the public API takes: the types of its arguments, and their checks, which raise ``ArgumentError`` with the argument's name,
what was expected and what came."""

from __future__ import annotations

import numbers
import os
import re
from collections.abc import Callable, Iterable, Mapping, Set
from copy import copy
from dataclasses import dataclass, field, replace
from types import EllipsisType
from typing import Any, BinaryIO, Literal, Protocol, TypedDict, Union, get_args

import numpy as np

from .audio.source import to_float
from .errors import ArgumentError, ChatterboxError
from .plan import Plan, Spec
from .progress import Event, Progress
from .speech import Speech
from .stages.t3.sampler import SamplerParameters
from .voice import Voice

Precision = Literal["auto", "f32", "int8", "bf16", "int8+bf16", "int4", "int4+bf16"]
Loudness = Literal["bs1770", "rms"]
Watermark = Literal["perth"]
OnError = Literal["raise", "return"]
SplitWhen = Union[Literal["auto", "never"], "Split"]
Latency = Literal["sentence", "low"]
AnyPath = Union[str, "os.PathLike[str]"]
AnyVoice = Union[Voice, AnyPath, None]
"""A prepared voice, a voice file or a clip, None for the checkpoint's own."""
Clip = Union[AnyPath, bytes, BinaryIO, tuple[np.ndarray, int]]
"""A path, an encoded file's bytes, a binary file object, or samples and their rate (see ``stages/reference/load``)."""
Result = Union[Speech, ChatterboxError]
"""What comes of one of many texts."""
SomeVoices = Union[AnyVoice, Iterable[AnyVoice]]
SomeSeeds = Union[int, Iterable[int], None]
PRECISIONS, ON_ERROR = get_args(Precision), get_args(OnError)
LOUDNESS, WATERMARK = (*get_args(Loudness), None), (*get_args(Watermark), None)
LATENCY = get_args(Latency)
MAX_TOKENS = 1000
"""Upstream's limit of T3's loop (the first token comes on top): 40 s."""
ROWS = 16
"""Texts that T3 decodes together unless the caller says otherwise."""
MOST_ROWS = 1024
MOST_SEED = 2**64 - 1
MOST_PAUSE = 60.0
"""Seconds of one pause."""
CHUNK = 0.5
"""Seconds of a chunk unless the caller says otherwise."""
CHUNKS = (0.02, 10)
"""The shortest and the longest that may be asked for."""


class TorchDevice(Protocol):
    """A ``torch.device``."""

    @property
    def type(self) -> str: ...
    @property
    def index(self) -> int | None: ...


class Arguments(TypedDict, total=False):
    """What ``iter_many`` takes beside texts and ``errors``, for the type checker alone."""

    batch: int
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    max_tokens: int
    loudness: Loudness | None | EllipsisType
    watermark: Watermark | None | EllipsisType
    split: SplitWhen
    speed: float
    pronounce: Mapping[str, str] | None
    backends: Spec
    progress: Progress
    cancel: Event | None


class ManyArguments(Arguments, total=False):
    """The same of ``generate_many``."""

    finished: Callable[[int, Result], object] | None


class CompareArguments(TypedDict, total=False):
    """What ``compare`` takes beside the text, its two sides, ``progress`` and ``cancel``."""

    voice: AnyVoice
    seed: int | None
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    max_tokens: int
    loudness: Loudness | None | EllipsisType
    watermark: Watermark | None | EllipsisType
    pronounce: Mapping[str, str] | None


class StreamArguments(CompareArguments, total=False):
    """What ``astream`` takes beside the text."""

    latency: Latency
    chunk: float
    split: SplitWhen
    speed: float
    backends: Spec
    progress: Progress
    cancel: Event | None


class Many:
    """Texts, each with its voice and seed, checked. ``shared``: is one voice for all?"""

    def __init__(self, texts: Iterable[str], voices: SomeVoices, seeds: SomeSeeds, rows: int, errors: OnError) -> None:
        self.texts = texts_of(texts)
        self.shared = one_voice(voices)
        self.voices = voices_of(voices, len(self.texts))
        self.seeds = seeds_of(seeds, len(self.texts))
        self.rows = whole("batch", rows, 1, MOST_ROWS)
        one_of("errors", errors, ON_ERROR)

    def but(self, texts: list[str], voices: list[AnyVoice], seeds: list[int]) -> Many:
        """The same with other texts."""
        other = copy(self)
        other.texts, other.voices, other.seeds = texts, voices, seeds
        return other


@dataclass(frozen=True)
class Split:
    """How text becomes segments (see ``ChatterboxTurbo.segments``). Raises ``ArgumentError``.

    ``longest`` (20 to 1000) characters are the most of a segment (up to 20 more take in a short rest), unless the model's own limit is
    lower; ``first`` (20 to 1000, at most ``longest``) those of the first one of a text that is longer than that, so that its sound is
    there soon. ``sentence_pause`` and ``paragraph_pause`` (0 to 60 s) are the silence between segments; a line's end counts as a
    paragraph's unless the line is wrapped in the middle of a sentence. ``attempts`` (0 to 9) is how often a segment that went wrong is
    spoken again. ``language`` is the text's, an ISO 639 code.
    """

    first: int = 100
    longest: int = 280
    sentence_pause: float = 0.15
    paragraph_pause: float = 0.5
    attempts: int = 3
    language: str = "en"

    def __post_init__(self) -> None:
        object.__setattr__(self, "longest", whole("split.longest", self.longest, 20, 1000))
        object.__setattr__(self, "first", min(whole("split.first", self.first, 20, 1000), self.longest))
        object.__setattr__(self, "attempts", whole("split.attempts", self.attempts, 0, 9))
        for name in ("sentence_pause", "paragraph_pause"):
            object.__setattr__(self, name, between(f"split.{name}", getattr(self, name), 0.0, MOST_PAUSE, "seconds"))
        if not isinstance(self.language, str) or not re.fullmatch("[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*", self.language):
            raise ArgumentError(f"split.language: expected a code such as 'en', got {self.language!r}")

    def within(self, longest: int) -> Split:
        """The same with segments of at most ``longest`` characters: what a model speaks well in one go (``text.longest`` of its configuration)."""
        return replace(self, first=min(self.first, longest), longest=min(self.longest, longest))


@dataclass(frozen=True)
class GenerationOptions:
    """How a text is spoken, checked: see ``ChatterboxTurbo.generate``. Raises ``ArgumentError`` that names the argument."""

    seed: int = field(default_factory=lambda: seed_of(None))
    temperature: float = 0.8
    top_p: float = 0.95
    top_k: int = 1000
    repetition_penalty: float = 1.2
    max_tokens: int = MAX_TOKENS
    loudness: Loudness | None = "bs1770"
    watermark: Watermark | None = "perth"
    split: Split | None = field(default_factory=Split)
    speed: float = 1.0
    pronounce: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of("watermark", self.watermark, WATERMARK)
        one_of("loudness", self.loudness, LOUDNESS)
        for name in ("temperature", "top_p", "repetition_penalty"):
            object.__setattr__(self, name, number(name, getattr(self, name)))
        object.__setattr__(self, "max_tokens", whole("max_tokens", self.max_tokens, 1, MAX_TOKENS))
        object.__setattr__(self, "seed", whole("seed", self.seed, 0, MOST_SEED))
        object.__setattr__(self, "speed", between("speed", self.speed, 0.5, 2.0, "a number"))
        lexicon_of(self.pronounce)
        _ = self.sampler

    @property
    def sampler(self) -> SamplerParameters:
        """What the sampler takes, checked by it."""
        return SamplerParameters(self.temperature, self.top_k, self.top_p, self.repetition_penalty)


@dataclass(frozen=True)
class StreamOptions:
    """How a text is streamed, checked: see ``ChatterboxTurbo.stream``. Raises ``ArgumentError`` that names the argument."""

    latency: Latency = "sentence"
    chunk: float = CHUNK

    def __post_init__(self) -> None:
        one_of("latency", self.latency, LATENCY)
        object.__setattr__(self, "chunk", between("chunk", self.chunk, *CHUNKS, "seconds"))


@dataclass(frozen=True)
class Order:
    """A text and how it is to be spoken, checked: the arguments of ``ChatterboxTurbo.stream``. Raises ``ArgumentError``."""

    text: str
    voice: AnyVoice
    plan: Plan
    options: GenerationOptions
    how: StreamOptions

    def __post_init__(self) -> None:
        if self.how.latency == "low" and self.options.speed != 1.0:
            raise ArgumentError(f"speed: expected 1 with latency='low', got {self.options.speed!r}")


def path_of(name: str, value: Any) -> str:
    """A path as text; raises ``ArgumentError`` for what is none."""
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str) or path == "":
        raise ArgumentError(f"{name}: expected a path, got {value!r}")
    return path


def one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raises ``ArgumentError`` unless ``value`` is allowed."""
    if not (value is None or isinstance(value, str)) or value not in allowed:
        raise ArgumentError(f"{name}: expected {', '.join(map(repr, allowed))}, got {value!r}")


def whole(name: str, value: Any, low: int, high: int) -> int:
    """``value`` as int; raises ``ArgumentError`` unless it is a whole number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not low <= int(value) <= high:
        raise ArgumentError(f"{name}: expected a whole number from {low} to {high}, got {value!r}")
    return int(value)


def number(name: str, value: Any) -> float:
    """``value`` as float; raises ``ArgumentError`` unless it is a number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ArgumentError(f"{name}: expected a number, got {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ArgumentError(f"{name}: expected a number, got one beyond every float") from None


def between(name: str, value: Any, low: float, high: float, what: str) -> float:
    """``value`` as float; raises ``ArgumentError`` unless it is a number from ``low`` to ``high``."""
    found = number(name, value)
    if not low <= found <= high:
        raise ArgumentError(f"{name}: expected {what} from {low:g} to {high:g}, got {value!r}")
    return found


def split_of(value: Any) -> Split | None:
    """The limits of segments: ``"auto"``'s, a caller's own, or None for ``"never"``."""
    if isinstance(value, Split):
        return value
    if not isinstance(value, str) or value not in ("auto", "never"):
        raise ArgumentError(f"split: expected 'auto', 'never' or a Split, got {value!r}")
    return Split() if value == "auto" else None


def lexicon_of(value: Any) -> None:
    """Raises ``ArgumentError`` unless ``value`` maps words to what is spoken in their place."""
    if not isinstance(value, Mapping):
        raise ArgumentError(f"pronounce: expected a mapping of words to what is spoken, got {type(value).__name__}")
    for word, spoken in value.items():
        if not (isinstance(word, str) and isinstance(spoken, str) and word.strip() == word != ""):
            raise ArgumentError(f"pronounce: expected words and what is spoken for them, got {word!r}: {spoken!r}")


def seed_of(value: Any) -> int:
    """The seed, or a random one for None."""
    return int.from_bytes(os.urandom(8), "little") if value is None else whole("seed", value, 0, MOST_SEED)


def text_of(value: Any) -> str:
    """The text to speak."""
    if not isinstance(value, str):
        raise ArgumentError(f"text: expected str, got {type(value).__name__}")
    return value


def texts_of(value: Any) -> list[str]:
    """The texts; an empty list is fine."""
    texts = several("texts", value, "several texts (generate speaks one)")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ArgumentError(f"texts[{index}]: expected str, got {type(text).__name__}")
    return texts


def voices_of(value: Any, count: int) -> list[AnyVoice]:
    """A voice for every text, from one for all or as many as there are texts."""
    if one_voice(value):
        return [value] * count
    voices = several("voices", value, "a voice, a path, None, or one of these for each text")
    for index, voice in enumerate(voices):
        if not one_voice(voice):
            raise ArgumentError(f"voices[{index}]: expected a Voice, a path or None, got {type(voice).__name__}")
    return fitting("voices", voices, count)


def one_voice(value: Any) -> bool:
    """Is it what ``generate`` takes as voice?"""
    return value is None or isinstance(value, (Voice, str, os.PathLike))


def several(name: str, value: Any, expected: str) -> list[Any]:
    """The entries of anything that has an order and can be gone through."""
    ordered = isinstance(value, Iterable) and not isinstance(value, (str, bytes, bytearray, Mapping, Set))
    if not ordered or getattr(value, "ndim", 1) == 0:
        raise ArgumentError(f"{name}: expected {expected}, got {type(value).__name__}")
    return list(value)


def fitting(name: str, values: list[Any], count: int) -> list[Any]:
    """``values``, when they are as many as the texts."""
    if len(values) != count:
        raise ArgumentError(f"{name}: expected one for each of {count} texts, got {len(values)}")
    return values


def seeds_of(value: Any, count: int) -> list[int]:
    """A seed for every text: random ones for None, ``value`` + i for a number, or as many as there are texts."""
    if value is None:
        return [seed_of(None) for _ in range(count)]
    if isinstance(value, numbers.Number):
        first = whole("seeds", value, 0, MOST_SEED - max(count - 1, 0))
        return [first + index for index in range(count)]
    seeds = fitting("seeds", several("seeds", value, "a whole number, one for each text, or None"), count)
    return [whole(f"seeds[{index}]", seed, 0, MOST_SEED) for index, seed in enumerate(seeds)]


def samples_of(value: Any) -> np.ndarray:
    """float32 [n] of a sound in any form that NumPy takes: floats of any size, or int16 and the like by their full scale.

    A row ``[1, n]`` and a column ``[n, 1]`` count as the sound in them. Raises ``ArgumentError``, and ``AudioError`` for integers
    that have no full scale here.
    """
    try:
        array = np.asarray(value)
        array = array.reshape(-1) if array.ndim == 2 and 1 in array.shape else array
    except ValueError as error:
        raise ArgumentError(f"samples: expected numbers [n], got {type(value).__name__}: {error}") from None
    if array.dtype.kind not in "fiu" or array.ndim != 1:
        raise ArgumentError(f"samples: expected numbers [n], got {array.dtype} of shape {list(array.shape)}")
    return to_float(array)[:, 0]
