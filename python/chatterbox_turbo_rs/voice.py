"""A prepared voice: what T3 and S3Gen need to know of a speaker."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .audio.files import whole_file
from .audio.source import local
from .checkpoint import conds_pt
from .checkpoint.fingerprint import Fingerprint
from .checkpoint.tensor_file import TensorFile
from .errors import ArgumentError, CheckpointError, VoiceError
from .plan import IMPLEMENTATIONS, Plan

ENDINGS = (".safetensors", ".pt", ".pth")
"""Of the names of voice files, in any case; the last two are upstream's ``conds.pt``."""
FORMAT = "1"
KIND = "chatterbox-turbo-rs voice"
MOST_PROMPT_TOKENS = 1000
"""S3Gen's prompt of a voice is 250 tokens, 10 s, where upstream or this project made it; its attention takes the square of their number."""
_TENSORS = {
    "speaker_embedding": (np.float32, 1),
    "t3_prompt_tokens": (np.int64, 1),
    "s3gen_prompt_tokens": (np.int64, 1),
    "s3gen_prompt_mel": (np.float32, 2),
    "xvector": (np.float32, 1),
}


@dataclass(frozen=True, eq=False)
class Voice:
    """Five arrays and a description; immutable, for any number of utterances and threads.

    ``speaker_embedding`` float32 [256] and ``t3_prompt_tokens`` int64 [P ≤ 375] are T3's; ``s3gen_prompt_tokens`` int64 [K],
    ``s3gen_prompt_mel`` float32 [M, 80] (M = 2K or 2K + 1) and ``xvector`` float32 [192] are S3Gen's. ``metadata`` holds, where
    they are known, digests of what made it (``voice_encoder``, ``s3tokenizer``, ``speaker_encoder``, ``prompt_mel``; in files of
    earlier versions ``checkpoint``), ``source`` (SHA-256 of the clip's samples), ``version``, and ``reference.load`` where
    ``auto`` left the clip to Python.
    Raises ``VoiceError`` when an array has another shape or dtype than these.
    """

    speaker_embedding: np.ndarray
    t3_prompt_tokens: np.ndarray
    s3gen_prompt_tokens: np.ndarray
    s3gen_prompt_mel: np.ndarray
    xvector: np.ndarray
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, (dtype, dimensions) in _TENSORS.items():
            value = np.array(getattr(self, name), order="C")
            if value.dtype != dtype or value.ndim != dimensions or (value.size == 0 and name != "t3_prompt_tokens"):
                expected = f"a {np.dtype(dtype).name} array with {dimensions} axes"
                raise VoiceError(f"voice: {name}: expected {expected}, got {value.dtype} of shape {list(value.shape)}")
            if value.dtype == np.float32 and not np.isfinite(value).all():
                raise VoiceError(f"voice: {name}: expected finite numbers, found NaN or infinity")
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        if not all(isinstance(text, str) for item in self.metadata.items() for text in item):
            raise VoiceError("voice: metadata: expected a map from text to text")
        object.__setattr__(self, "metadata", dict(self.metadata))
        frames, tokens = len(self.s3gen_prompt_mel), len(self.s3gen_prompt_tokens)
        if frames not in (2 * tokens, 2 * tokens + 1):
            raise VoiceError(f"voice: s3gen_prompt_mel: expected {2 * tokens} or {2 * tokens + 1} frames, got {frames}")

    def __reduce__(self) -> tuple[Any, ...]:
        return Voice, (*(getattr(self, name) for name in _TENSORS), dict(self.metadata))  # whose arrays are read-only again

    def __repr__(self) -> str:
        seconds = len(self.s3gen_prompt_tokens) / 25
        return f"Voice({seconds:.1f} s prompt, {len(self.t3_prompt_tokens)} T3 tokens, {dict(self.metadata)})"

    def same_arrays(self, other: Voice) -> bool:
        """Does ``other`` hold the same numbers, whatever its metadata?"""
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in _TENSORS)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the arrays; metadata does not count."""
        digest = hashlib.sha256()
        for name in _TENSORS:
            value = getattr(self, name)
            digest.update(f"{name} {value.dtype.str} {value.shape}\n".encode() + value.tobytes())
        return digest.hexdigest()

    def shortened(self, seconds: float) -> Voice:
        """This voice with at most so many seconds of S3Gen's prompt: tokens, and twice as many frames of mel. What T3 takes, and the
        x-vector, stay. Less prompt is less work for encoder and flow, which see it beside every text."""
        count = int(seconds * 25)
        if len(self.s3gen_prompt_tokens) <= count:
            return self
        ids, mel = self.s3gen_prompt_tokens[:count], self.s3gen_prompt_mel[: 2 * count]
        return replace(self, s3gen_prompt_tokens=ids, s3gen_prompt_mel=mel)

    def plan(self, wanted: Plan) -> Plan:
        """``wanted`` with the side that read this voice's clip, where ``auto`` could not choose it freely."""
        reader = self.metadata.get("reference.load")
        return wanted.but("reference.load", reader) if reader in IMPLEMENTATIONS else wanted

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes a safetensors file with the metadata, or upstream's ``conds.pt`` (which has none) where the name ends in ``.pt``
        or ``.pth``; whole or not at all. Returns the path.

        Raises ``ArgumentError`` for another ending, which nothing would take for a voice, and ``FileError``.
        """
        from safetensors.numpy import save

        path = check_name(path)
        if path.suffix.lower() != ".safetensors":
            conds_pt.write(path, self)
            return path
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _TENSORS}
        data = save(arrays, metadata={**self.metadata, "format": FORMAT, "kind": KIND})
        with whole_file(path) as temporary:
            temporary.write_bytes(data)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Voice:
        """Reads a voice file, or upstream's ``conds.pt`` (nothing in it is ever executed).

        Raises ``FileError`` when the file cannot be read, ``VoiceError`` when it is not a voice.
        """
        path = local(path)
        if path.suffix.lower() in (".pt", ".pth"):
            arrays = conds_pt.read(path)
            try:
                return cls(**arrays)
            except VoiceError as error:
                raise VoiceError(f"{path}: {error}") from None
        try:
            file = TensorFile(path)
            if file.metadata.get("kind") != KIND:
                raise VoiceError(
                    f"not a voice file: {path}: expected kind {KIND!r} in its metadata, found {file.metadata.get('kind')!r}"
                )
            if file.metadata.get("format") != FORMAT:
                raise VoiceError(
                    f"{path}: expected voice format {FORMAT}, found {file.metadata.get('format')}; is it of a later version?"
                )
            arrays = {name: file.get(name) for name in _TENSORS}
        except CheckpointError as error:
            raise VoiceError(f"not a voice file: {error}") from None
        known = {k: v for k, v in file.metadata.items() if k not in ("format", "kind")}
        try:
            return cls(**arrays, metadata=known)
        except VoiceError as error:
            raise VoiceError(f"{path}: {error}") from None

    def check(self, config: Mapping[str, Any], fingerprint: Fingerprint) -> None:
        """Raises ``VoiceError`` when this voice does not fit a model: other sizes, ids out of range, made by other networks.

        A voice whose metadata says nothing of what made it fits wherever its sizes do. One of an earlier version names the whole
        checkpoint, T3 included: it fits that checkpoint alone.
        """
        expected = {
            "speaker_embedding": (config["voice_encoder"]["embedding_size"],),
            "xvector": (config["speaker_encoder"]["embedding_size"],),
            "s3gen_prompt_mel": (len(self.s3gen_prompt_mel), config["s3gen"]["mels"]),
        }
        for name, shape in expected.items():
            found = getattr(self, name).shape
            if found != shape:
                raise VoiceError(f"voice: {name}: this model expects shape {list(shape)}, the voice has {list(found)}")
        limit = config["t3"]["prompt_tokens"]
        if len(self.t3_prompt_tokens) > limit:
            raise VoiceError(f"voice: t3_prompt_tokens: expected at most {limit}, got {len(self.t3_prompt_tokens)}")
        if len(self.s3gen_prompt_tokens) > MOST_PROMPT_TOKENS:
            count = len(self.s3gen_prompt_tokens)
            raise VoiceError(f"voice: s3gen_prompt_tokens: expected at most {MOST_PROMPT_TOKENS} (40 s), got {count}")
        for name, size in (("t3_prompt_tokens", config["t3"]["speech_vocab"]), ("s3gen_prompt_tokens", config["s3gen"]["vocab"])):
            ids = getattr(self, name)
            if len(ids) and not (ids.min() >= 0 and ids.max() < size):
                raise VoiceError(f"voice: {name}: expected ids from 0 to {size - 1}, found {ids.min()} to {ids.max()}")
        made_by = {name: self.metadata[name] for name in fingerprint.parts if name in self.metadata}
        others = [name for name, found in made_by.items() if found != fingerprint.parts[name]]
        if others:
            raise VoiceError(f"voice: prepared with another {' and '.join(others)} than this model's; {_WAY_OUT}")
        origin = self.metadata.get("checkpoint")
        if origin and not made_by and origin != fingerprint.checkpoint:
            raise VoiceError(
                f"voice: prepared by an earlier version with another checkpoint ({origin[:12]}…, this model is "
                f"{fingerprint.checkpoint[:12]}…), perhaps only another T3; {_WAY_OUT}"
            )


_WAY_OUT = "prepare it again from its clip, or take it as it is: dataclasses.replace(voice, metadata={})"


def is_voice_file(path: str | os.PathLike[str]) -> bool:
    """Does the name say that this is a voice file? If not, it is a clip."""
    return Path(path).suffix.lower() in ENDINGS


def check_name(path: str | os.PathLike[str]) -> Path:
    """``path``, when its ending is one of a voice file; else ``ArgumentError``."""
    if not isinstance(path, (str, os.PathLike)):
        raise ArgumentError(f"path: expected str or os.PathLike, got {type(path).__name__}")
    if not is_voice_file(path):
        raise ArgumentError(f"{path}: expected a name ending in {', '.join(ENDINGS)}, got {Path(path).suffix!r}")
    return Path(path)


def digest(samples: np.ndarray) -> str:
    """SHA-256 of a clip's samples."""
    return hashlib.sha256(np.ascontiguousarray(samples).tobytes()).hexdigest()


def describe(fingerprint: Fingerprint, samples: np.ndarray, **more: str) -> dict[str, str]:
    """The metadata of a voice made now."""
    from . import _core

    return {**fingerprint.parts, "source": digest(samples), "version": _core.build_info()["version"], **more}


def show(voice: Voice) -> dict[str, Any]:
    """What the command prints of a voice."""
    shapes = {name: [str(getattr(voice, name).dtype), *getattr(voice, name).shape] for name in _TENSORS}
    return {"arrays": shapes, "metadata": dict(voice.metadata)}
