"""What of a checkpoint made a voice: its voice encoder, S3Tokenizer and CAMPPlus, and the settings of the prompt mel.

T3, the flow and the vocoder only use voices: another T3 (Nano's, a fine-tune) speaks with the voices of this one.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..constants import HOP, SAMPLE_RATE
from ..errors import FileError
from .resources import Resources
from .tensor_file import TensorFile

NETWORKS = {
    "voice_encoder": ("voice_encoder", ""),
    "s3tokenizer": ("s3gen", "tokenizer."),
    "speaker_encoder": ("s3gen", "speaker_encoder."),
}
"""Section of the configuration → weight file, and the prefix of the network's tensors in it."""
UNUSED = ("similarity_weight", "similarity_bias")
"""Tensors of the voice encoder that only training reads."""
VOCABULARY = ("vocab.json", "merges.txt", "added_tokens.json")
BLOCK = 4096
"""Bytes that are read at the beginning, in the middle and at the end of a tensor; a smaller one is read whole."""


@dataclass(frozen=True)
class Fingerprint:
    """``parts``: a digest of each network that makes voices, and of the prompt mel; ``checkpoint``: one of the whole checkpoint,
    by which versions before 0.2 bound voices.
    """

    parts: Mapping[str, str]
    checkpoint: str

    @classmethod
    def of(cls, resources: Resources) -> Fingerprint:
        """Of the checkpoint behind ``resources``. Raises ``FileError`` and ``CheckpointError``."""
        config = resources.config
        parts = {name: of_tensors(resources.tensors(file), prefix, config[name]) for name, (file, prefix) in NETWORKS.items()}
        mel = {"mels": config["s3gen"]["mels"], "hop": HOP, "rate": SAMPLE_RATE}
        parts["prompt_mel"] = hashlib.sha256(_json(mel)).hexdigest()
        return cls(parts, of_files([resources.directory / name for name in config["files"].values()]))


def of_model(resources: Resources) -> str:
    """SHA-256 of all that speaks: the configuration, every tensor (sampled, as in ``of_tensors``) and the tokenizer's files.

    Raises ``FileError`` and ``CheckpointError``.
    """
    digest = hashlib.sha256(_json(resources.config))
    for file in sorted(resources.config["files"]):
        digest.update(of_tensors(resources.tensors(file), "", {}).encode())
    own = resources.options.get("tokenizer")
    for path in [Path(own)] if own else [resources.directory / name for name in VOCABULARY]:
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError as error:
            raise FileError(f"{path}: {error.strerror or error}") from None
    return digest.hexdigest()


def of_tensors(file: TensorFile, prefix: str, settings: Mapping[str, Any]) -> str:
    """SHA-256 over ``settings`` and the names, dtypes, shapes and sampled bytes of the tensors under ``prefix``.

    Training changes every value of a tensor, so samples tell; a file need not be read for it whole.
    """
    digest = hashlib.sha256(_json(settings))
    try:
        with open(file.path, "rb", buffering=0) as content:
            for name in file.names():
                if not name.startswith(prefix) or name in UNUSED:
                    continue
                start, stop = file.place(name)
                digest.update(_json([name, file.dtype(name), file.shape(name)]))
                size = stop - start
                whole = size <= 3 * BLOCK
                for at, length in [(0, size)] if whole else [(0, BLOCK), ((size - BLOCK) // 2, BLOCK), (size - BLOCK, BLOCK)]:
                    content.seek(start + at)
                    digest.update(content.read(length))
    except OSError as error:
        raise FileError(f"{file.path}: {error.strerror or error}") from None
    return digest.hexdigest()


def of_files(paths: list[Path]) -> str:
    """SHA-256 over each file's size, header, and first and last 64 KiB of data. Raises ``FileError``."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                head = file.read(8)
                header = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
                digest.update(struct.pack("<Q", size) + head)
                digest.update(file.read(min(header, size)))
                digest.update(file.read(65536))
                file.seek(max(size - 65536, 0))
                digest.update(file.read(65536))
        except OSError as error:
            raise FileError(f"{path}: {error.strerror or error}") from None
    return digest.hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
