"""The Rust core. Contracts, shapes and errors stand in ``stages/<key>/__init__.py``; this is their calling form.

Float arrays are float32, ids int64, time first. ``callback(stage, done, total)`` is called at most every 50 ms without
holding up the work; what it raises stops the work and is raised here. The GIL is released while the core works.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any, TypedDict, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Required

from .errors import ChatterboxError

_Floats = NDArray[np.float32]
_Ids = NDArray[np.int64]
_Callback = Callable[[str, int, int], Any] | None
_Path = str | os.PathLike[str]

class _BuildInfo(TypedDict):
    version: str
    features: list[str]
    target: str
    threads: int
    cpu_level: str
    cpu_levels: list[str]
    cpu_precision: str

class _CacheEntry(TypedDict):
    name: str
    bytes: int
    used: float

class _Cache(TypedDict):
    directory: os.PathLike[str]
    limit: int
    entries: list[_CacheEntry]

class _Packed(TypedDict):
    network: str
    found: bool
    trouble: str | None

class _Digest(TypedDict, total=False):
    shape: Required[list[int]]
    sha256: str
    sum: float
    squares: float
    weighted: float
    unused: bool

_Hyperparameters = dict[str, int | float | bool | str | list[int] | list[float]]

def build_info() -> _BuildInfo:
    """What this build and this machine can do. ``cpu_level`` is the level in use: the best of ``cpu_levels`` (best first), or the
    one that ``CHATTERBOX_CPU`` names, ``cpu_precision`` what the precision ``"auto"`` is with it; DeviceError when it names none that the machine has.
    """

def memory_read_rate() -> float:
    """Bytes a second that as many threads as the kernels have read from memory together: the best of twenty times 256 MiB."""

def devices() -> dict[str, str | None]:
    """Why each of ``"cpu"``, ``"cuda"`` and ``"metal"`` cannot be used here; None where it can."""

def cache_info() -> _Cache | None:
    """The cache of packed weights: its directory, its limit in bytes, its files (the last used first; seconds since 1970); None
    where ``CHATTERBOX_CACHE`` switches it off. ArgumentError for a ``CHATTERBOX_CACHE_GB`` that is no number.
    """

def cache_clear() -> None:
    """Empties the cache of packed weights; FileError for a file that cannot be removed."""

def read_torch_archive(path: _Path) -> Any: ...
def taps_begin() -> None:
    """Begins to record intermediate values of the network stages that this thread runs; ArgumentError when it records already.

    What other threads run meanwhile is not recorded. The numbers that stages return do not depend on it.
    """

def taps_end() -> list[tuple[str, _Floats]]:
    """Ends this thread's recording: names and ``[rows, columns]`` values, in the order in which they were computed.

    A name is the module path in upstream's checkpoint, with ``.in`` for the module's input and ``#1``, ``#2``, … for the calls
    of a module that ran more than once. Rows are time: a vector over time is ``[T, 1]``, one of channels ``[1, C]``.
    ArgumentError when this thread does not record.
    """

@final
class Checkpoint:
    """``record`` keeps digests of the tensors that networks loaded from it are given, all of them read from the checkpoint itself."""
    def __new__(cls, directory: _Path, config_json: str, *, record: bool = False) -> Checkpoint: ...
    @property
    def directory(self) -> os.PathLike[str]: ...
    def digests(self) -> dict[str, _Digest]:
        """Per full tensor name what ``parity.digests.digest`` gives for the values as used (float32, weight norm folded into
        ``<name>.weight``), or ``{"unused": True, "shape": …}``; ArgumentError without ``record``.
        """
    def packed(self) -> list[_Packed]:
        """Of the networks loaded so far: were their packed weights found in the cache, and what is wrong with it if anything."""

def draws_uniforms(seed: int, stream: str, start: int, count: int) -> NDArray[np.float64]: ...
def draws_normals(seed: int, stream: str, start_row: int, rows: int, cols: int) -> _Floats: ...
def draws_phases(seed: int, count: int) -> _Floats: ...
def draws_derived(seed: int, index: int) -> int: ...
def text_normalize(text: str, unicode: int | None = None) -> str: ...
def text_segments(
    text: str, seed: int, first: int, longest: int, sentence_pause: float, paragraph_pause: float, language: str
) -> list[tuple[str, float, int, bool]]: ...
def text_sentences(language: str, text: str) -> list[str]: ...

@final
class TextTokenizer:
    def __new__(cls, directory: _Path, config_json: str, file: _Path | None = None) -> TextTokenizer: ...
    def encode(self, text: str) -> tuple[_Ids, tuple[int, int] | None]: ...

def reference_load(
    source: _Path | bytes | _Floats,
    rate: int | None = None,
    *,
    to: int = ...,
    longer_than: float = ...,
    callback: _Callback = None,
) -> _Floats: ...
def reference_load_decode(
    source: _Path | bytes, most: float | None = None, *, callback: _Callback = None
) -> tuple[_Floats, int]: ...
def reference_loudness(samples: _Floats, method: str = "bs1770", *, callback: _Callback = None) -> _Floats: ...
def reference_loudness_measure(samples: _Floats) -> float | None: ...
def reference_resample(samples: _Floats, *, callback: _Callback = None) -> tuple[_Floats, _Floats]: ...
def voice_encoder_mel(samples: _Floats, callback: _Callback = None) -> _Floats: ...

@final
class VoiceEncoder:
    def __new__(cls, checkpoint: Checkpoint, device: str) -> VoiceEncoder: ...
    def hyperparameters(self) -> _Hyperparameters: ...
    def embedding(self, mel: _Floats, callback: _Callback = None) -> _Floats: ...

@final
class S3TokenizerMel:
    def __new__(cls, checkpoint: Checkpoint) -> S3TokenizerMel: ...
    def __call__(self, samples: _Floats, callback: _Callback = None) -> _Floats: ...

@final
class S3Tokenizer:
    def __new__(cls, checkpoint: Checkpoint, device: str) -> S3Tokenizer: ...
    def hyperparameters(self) -> _Hyperparameters: ...
    def tokens(self, mels: list[_Floats], callback: _Callback = None) -> list[_Ids]: ...
    def pre_codes(self, mel: _Floats, callback: _Callback = None) -> _Floats: ...

def speaker_encoder_fbank(samples: _Floats, callback: _Callback = None) -> _Floats: ...

@final
class SpeakerEncoder:
    def __new__(cls, checkpoint: Checkpoint, device: str) -> SpeakerEncoder: ...
    def hyperparameters(self) -> _Hyperparameters: ...
    def xvector(self, fbank: _Floats, callback: _Callback = None) -> _Floats: ...

def s3gen_prompt_mel(samples: _Floats, callback: _Callback = None) -> _Floats: ...

class _Request(TypedDict):
    prefix: T3Prefix
    text_ids: _Ids
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    max_tokens: int
    seed: int

@final
class T3Decoder:
    """``precision`` is ``"f32"``, ``"int8"``, ``"bf16"``, ``"int8+bf16"``, ``"int4"`` or ``"int4+bf16"``; large weights have 8 bits with int8, 4 with
    int4 (CPU)."""

    def __new__(cls, checkpoint: Checkpoint, device: str, precision: str = "f32") -> T3Decoder: ...
    def hyperparameters(self) -> _Hyperparameters: ...
    def step_bytes(self, position: int) -> int:
        """Bytes that a step after ``position`` positions reads at least: the large weights, keys and values."""

    def start(self, speaker_embedding: _Floats, prompt_tokens: _Ids, text_ids: _Ids, max_tokens: int) -> T3Session: ...
    def prefix(self, speaker_embedding: _Floats, prompt_tokens: _Ids) -> T3Prefix: ...
    def start_from(self, prefix: T3Prefix, text_ids: _Ids, max_tokens: int) -> T3Session: ...
    def step_many(self, sessions: list[T3Session], tokens: _Ids) -> list[_Floats]: ...
    def generate(
        self,
        prefix: T3Prefix,
        text_ids: _Ids,
        *,
        temperature: float,
        top_k: int,
        top_p: float,
        repetition_penalty: float,
        max_tokens: int,
        seed: int | None = None,
        uniforms: NDArray[np.float64] | None = None,
        callback: _Callback = None,
    ) -> _Ids: ...
    def generate_many(
        self,
        requests: Iterable[_Request],
        finished: Callable[[int, _Ids | ChatterboxError, float], Any],
        *,
        rows: int,
        callback: _Callback = None,
    ) -> None:
        """``generate`` of every request, at most ``rows`` together, a finished one's place taken by the next at once: the same tokens.

        ``finished(index, tokens or error, seconds)`` is called with each as soon as it is finished; what it raises stops the
        work and is raised here. ``seconds`` is its share: its own prefill, and of every step an equal part for each row in it.
        ``callback`` is called with ``("t3", tokens so far, limits of all together)``, a finished request counting as its limit.
        """

    def open_batch(self) -> T3Batch: ...
    def keep_speech(self, tokens: _Ids) -> _Ids: ...

_Outcomes = list[tuple[int, _Ids | ChatterboxError, float]]

@final
class T3Batch:
    """Token loops that step together, of requests that join and leave: the tokens of ``generate``. For one thread, but for ``interrupt``.

    What came of a request is (key, tokens or error, seconds), as ``generate_many`` hands it over.
    """

    def __len__(self) -> int: ...
    def admit(self, key: int, request: _Request, callback: _Callback = None) -> _Outcomes:
        """Begins a request; what came of it where it is over at once. What ``callback`` raises is raised here."""

    def run(self, seconds: float) -> _Outcomes:
        """Steps until a request is over, ``seconds`` are over or ``interrupt`` was called."""

    def interrupt(self) -> None: ...
    def leave(self, key: int) -> bool:
        """Takes a request away; False where it is not there."""

@final
class T3Prefix:
    """Keys and values of a voice, computed by the first prefill that needs them."""

    @property
    def nbytes(self) -> int: ...

@final
class T3Session:
    def prefill(self, callback: _Callback = None) -> _Floats: ...
    def step(self, token: int) -> _Floats: ...

def t3_sampler(
    logits: _Floats,
    history: _Ids,
    temperature: float,
    top_k: int,
    top_p: float,
    repetition_penalty: float,
    uniform: float,
) -> int | None: ...

@final
class FlowEncoder:
    """``precision`` as in :class:`T3Decoder`; with bf16, products are in bfloat16 (CPU). So of ``Flow`` and ``Vocoder``."""

    def __new__(cls, checkpoint: Checkpoint, device_name: str, precision: str = "f32") -> FlowEncoder: ...
    def hyperparameters(self) -> _Hyperparameters: ...
    def mu(self, ids: _Ids, callback: _Callback = None) -> _Floats: ...

@final
class Flow:
    def __new__(cls, checkpoint: Checkpoint, device_name: str, precision: str = "f32") -> Flow: ...
    def hyperparameters(self) -> _Hyperparameters: ...
    def mel(self, mu: _Floats, xvector: _Floats, prompt_mel: _Floats, noise: _Floats, callback: _Callback = None) -> _Floats: ...

@final
class Vocoder:
    def __new__(cls, checkpoint: Checkpoint, device_name: str, precision: str = "f32") -> Vocoder: ...
    def hyperparameters(self) -> _Hyperparameters: ...
    def samples(self, mel: _Floats, phases: _Floats, noise: _Floats, callback: _Callback = None) -> _Floats: ...
    @property
    def fade(self) -> _Floats: ...
    def f0(self, mel: _Floats) -> _Floats: ...
    def source(self, f0: _Floats, phases: _Floats, noise: _Floats) -> _Floats: ...
    def samples_from_source(self, mel: _Floats, source: _Floats, callback: _Callback = None) -> _Floats: ...

@final
class Watermarker:
    def __new__(cls, path: _Path) -> Watermarker: ...
    def embed(self, samples: _Floats, callback: _Callback = None, loudest: float | None = None) -> _Floats: ...
    def levels(self, samples: _Floats) -> NDArray[np.float64]: ...
    def detect(self, samples: _Floats, rate: int, callback: _Callback = None) -> float: ...
