"""Upstream's ``conds.pt``: reading it as a :class:`Voice`, writing one from a voice. No torch, nothing is executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

import numpy as np

from . import torch_archive
from .errors import CheckpointError, VoiceError
from .voice import Voice


def read_conds(path: str | Path) -> Voice:
    """Reads ``{"t3": {...}, "gen": {...}}`` as upstream's ``Conditionals.save`` writes it (``tts_turbo.py`` at 5de7a54).

    Raises ``VoiceError`` when the file is no such archive or an entry is missing.
    """
    try:
        content = torch_archive.read(path)
    except CheckpointError as error:
        raise VoiceError(str(error)) from None
    try:
        return from_dicts(content["t3"], content["gen"])
    except (KeyError, TypeError, AttributeError) as error:
        raise VoiceError(f"{path}: expected the entries of upstream's conds.pt, missing or wrong: {error}") from None
    except VoiceError as error:
        raise VoiceError(f"{path}: {error}") from None


def from_dicts(t3: Mapping[str, Any], gen: Mapping[str, Any]) -> Voice:
    """A voice from upstream's two dictionaries (ids may have become floats there, see parity traps)."""
    return Voice(
        speaker_embedding=_floats(t3["speaker_emb"]).reshape(-1),
        t3_prompt_tokens=_ids(t3["cond_prompt_speech_tokens"]),
        s3gen_prompt_tokens=_ids(gen["prompt_token"]),
        s3gen_prompt_mel=_single(_floats(gen["prompt_feat"])),
        xvector=_floats(gen["embedding"]).reshape(-1),
    )


def to_dicts(voice: Voice, exaggeration: float = 0.5) -> tuple[dict[str, Any], dict[str, Any]]:
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


def _floats(value: Any) -> np.ndarray:
    return np.asarray(value).astype(np.float32)


def _ids(value: Any) -> np.ndarray:
    array = np.asarray(value).reshape(-1)
    ids = array.astype(np.int64)
    if not np.array_equal(ids, array):
        raise VoiceError("token ids: expected whole numbers")
    return ids


def _single(value: np.ndarray) -> np.ndarray:
    if value.ndim != 3 or len(value) != 1:
        raise VoiceError(f"gen.prompt_feat: expected shape [1, M, 80], found {list(value.shape)}")
    return value[0]
