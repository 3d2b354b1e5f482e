"""Upstream's ``conds.pt``: the arrays of a voice out of it, and back. No torch, nothing is executed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import CheckpointError, VoiceError
from . import torch_archive


class Arrays(Protocol):
    """The five arrays of a ``Voice``."""

    @property
    def speaker_embedding(self) -> np.ndarray: ...
    @property
    def t3_prompt_tokens(self) -> np.ndarray: ...
    @property
    def s3gen_prompt_tokens(self) -> np.ndarray: ...
    @property
    def s3gen_prompt_mel(self) -> np.ndarray: ...
    @property
    def xvector(self) -> np.ndarray: ...


def read(path: str | Path) -> dict[str, Any]:
    """The arguments of ``Voice`` in ``{"t3": {...}, "gen": {...}}``, as upstream's ``Conditionals.save`` writes it (``tts_turbo.py`` at 5de7a54).

    Raises ``VoiceError`` when the file is no such archive or an entry is missing.
    """
    try:
        content = torch_archive.read(path)
    except CheckpointError as error:
        raise VoiceError(f"not a voice file: {error}") from None
    try:
        return from_dicts(*sections(content))
    except VoiceError as error:
        raise VoiceError(f"{path}: {error}") from None


def write(path: str | Path, voice: Arrays) -> None:
    """Writes ``voice`` so that upstream's ``Conditionals.load`` reads it; whole or not at all. Raises ``FileError``."""
    t3, gen = to_dicts(voice)
    torch_archive.save(path, {"t3": t3, "gen": gen})


def sections(content: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two dictionaries of a file's content; raises ``VoiceError`` when there are none."""
    t3, gen = (content.get(name) if isinstance(content, dict) else None for name in ("t3", "gen"))
    if not isinstance(t3, dict) or not isinstance(gen, dict):
        raise VoiceError("expected upstream's conds.pt, a dict with the dicts t3 and gen")
    return t3, gen


def from_dicts(t3: Mapping[str, Any], gen: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``Voice`` in upstream's two dictionaries of arrays.

    Ids may be floats there: upstream's ``T3.prepare_conditioning`` and ``S3Gen`` cast what they are given, and a ``conds``
    that was used is saved so. Raises ``VoiceError`` that names the entry.
    """
    arrays = {
        "speaker_embedding": _floats(t3, "t3.speaker_emb", 1),
        "t3_prompt_tokens": _ids(t3, "t3.cond_prompt_speech_tokens"),
        "s3gen_prompt_tokens": _ids(gen, "gen.prompt_token"),
        "s3gen_prompt_mel": _floats(gen, "gen.prompt_feat", 2),
        "xvector": _floats(gen, "gen.embedding", 1),
    }
    counted = {"prompt_token_len": "s3gen_prompt_tokens", "prompt_feat_len": "s3gen_prompt_mel"}
    for key, length in ((key, len(arrays[name])) for key, name in counted.items()):
        if length and gen.get(key) is not None and not np.array_equal(np.asarray(gen[key]).reshape(-1), [length]):
            raise VoiceError(f"gen.{key}: expected {length}, as long as what it counts, found {gen[key]!r}")
    return arrays


def to_dicts(voice: Arrays, exaggeration: float = 0.5) -> tuple[dict[str, Any], dict[str, Any]]:
    """Upstream's dictionaries of a voice: what ``T3Cond`` and ``ref_dict`` hold."""
    t3 = {
        "speaker_emb": voice.speaker_embedding[None].copy(),
        "clap_emb": None,
        "cond_prompt_speech_tokens": voice.t3_prompt_tokens[None].copy(),
        "cond_prompt_speech_emb": None,
        "emotion_adv": np.full((1, 1, 1), exaggeration, np.float32),
    }
    gen = {
        "prompt_token": voice.s3gen_prompt_tokens[None].copy(),
        "prompt_token_len": np.array([len(voice.s3gen_prompt_tokens)], np.int64),
        "prompt_feat": voice.s3gen_prompt_mel[None].copy(),
        "prompt_feat_len": None,
        "embedding": voice.xvector[None].copy(),
    }
    return t3, gen


def _single(section: Mapping[str, Any], key: str, dimensions: int) -> np.ndarray:
    """The only row of ``[1, ...]``; a row without the batch axis is taken too."""
    value = section.get(key.split(".")[1])
    array = value if isinstance(value, np.ndarray) else np.asarray(None)
    if array.dtype.kind not in "iuf":
        raise VoiceError(f"{key}: expected an array of numbers, found {'nothing' if value is None else type(value).__name__}")
    if array.ndim == dimensions + 1 and len(array) == 1:
        return array[0]
    if array.ndim != dimensions:
        raise VoiceError(f"{key}: expected one row of {dimensions} axes, found shape {list(array.shape)}")
    return array


def _floats(section: Mapping[str, Any], key: str, dimensions: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        return _single(section, key, dimensions).astype(np.float32)


def _ids(section: Mapping[str, Any], key: str) -> np.ndarray:
    array = _single(section, key, 1)
    with np.errstate(invalid="ignore"):
        ids = array.astype(np.int64)
    if not np.array_equal(ids, array):
        raise VoiceError(f"{key}: expected whole numbers")
    return ids
