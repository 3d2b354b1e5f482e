"""Writes a random checkpoint with the tensor names, files and tokenizer layout of Chatterbox Turbo.

usage: make_checkpoint.py --size tiny|toy|full|nano [--seed N] [--dtype f32|f16|bf16] [--config FILE] [--tokenizer DIR] DIR

``full`` and ``nano`` have every tensor of upstream's files and the real tokenizer. ``tiny`` and ``toy`` are small enough for
tests: they leave out the two tensors of T3 that no stage reads (``checkpoint_layout.UNUSED_T3``), and their tokenizer is the
beginning of the real byte-level BPE: the same bytes, merges and ids up to ``text.vocab_size - 20``, then ``<|endoftext|>`` and
the 19 tags. Needs NumPy alone. The same arguments give the same bytes on every machine.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from checkpoint_layout import Shape, is_integer, tensors
from checkpoint_values import values

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "python" / "chatterbox_turbo_rs" / "config"
SIZES = {
    "tiny": ROOT / "tests" / "data" / "tiny.json",
    "toy": ROOT / "tests" / "data" / "toy.json",
    "full": CONFIGS / "turbo.json",
    "nano": CONFIGS / "nano.json",
}
TOKENIZER = ROOT / "tests" / "data" / "tokenizer"
DTYPES = {"f32": ("F32", 4), "f16": ("F16", 2), "bf16": ("BF16", 2)}
TOKENIZER_FILES = ("vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json")
END_OF_TEXT = "<|endoftext|>"


def make(directory: Path, config: Mapping[str, Any], seed: int, dtype: str, unused: bool, tokenizer: Path = TOKENIZER) -> None:
    """Writes the weight files, the tokenizer and ``config.json`` into ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    groups = {config["files"]["t3"]: "t3", config["files"]["s3gen"]: "s3gen", config["files"]["voice_encoder"]: "ve"}
    for file, shapes in tensors(config, unused).items():
        write(directory / file, groups[file], shapes, seed, dtype, config["t3"]["stop_token"])
    write_tokenizer(directory, config["text"]["vocab_size"], tokenizer)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def write(path: Path, group: str, shapes: Mapping[str, Shape], seed: int, dtype: str, stop_token: int) -> None:
    """Writes one safetensors file, a tensor at a time: widest type first, then by name, so that all data is aligned."""
    name_of, size_of = DTYPES[dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    order = sorted(shapes, key=lambda name: (not is_integer(name), name))
    end = 0
    for name in order:
        start, end = end, end + math.prod(shapes[name]) * (8 if is_integer(name) else size_of)
        kind = "I64" if is_integer(name) else name_of
        header[name] = {"dtype": kind, "shape": list(shapes[name]), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            for piece in values(group, name, shapes[name], seed, stop_token):
                file.write(_encode(piece, dtype))
        if file.tell() != 8 + len(text) + end:
            raise RuntimeError(f"{path}: expected {8 + len(text) + end} bytes, wrote {file.tell()}")


def _encode(piece: np.ndarray, dtype: str) -> bytes:
    if piece.dtype == np.int64:
        return piece.astype("<i8").tobytes()
    if dtype == "f16":
        return piece.astype("<f2").tobytes()
    if dtype == "bf16":
        bits = piece.view(np.uint32)
        return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()  # to nearest, ties to even
    return piece.astype("<f4").tobytes()


def write_tokenizer(directory: Path, vocabulary: int, source: Path) -> None:
    """Copies upstream's five tokenizer files, or cuts them down to ``vocabulary`` entries."""
    tags: dict[str, int] = _read(source / "added_tokens.json")
    vocab: dict[str, int] = _read(source / "vocab.json")
    merges = (source / "merges.txt").read_text(encoding="utf-8").splitlines()
    settings = _read(source / "tokenizer_config.json")
    last = vocab[END_OF_TEXT]
    kept = vocabulary - 1 - len(tags)
    shift = kept - last
    directory.mkdir(parents=True, exist_ok=True)
    if shift == 0:
        for name in TOKENIZER_FILES:
            shutil.copyfile(source / name, directory / name)
        return
    if not 256 <= kept <= last:
        raise ValueError(f"text.vocab_size: expected {256 + 1 + len(tags)} to {last + 1 + len(tags)}, found {vocabulary}")
    vocab = {token: index for token, index in vocab.items() if index < kept} | {END_OF_TEXT: kept}
    tags = {token: index + shift for token, index in tags.items()}
    decoder = settings["added_tokens_decoder"]
    settings["added_tokens_decoder"] = {str(int(index) + shift): entry for index, entry in decoder.items()}
    _write(directory / "vocab.json", vocab, None)
    _write(directory / "added_tokens.json", tags, 2)
    _write(directory / "tokenizer_config.json", settings, 2)
    _write(directory / "special_tokens_map.json", _read(source / "special_tokens_map.json"), 2)
    # The first line is a version; merge i makes token 256 + i.
    (directory / "merges.txt").write_text("\n".join(merges[: 1 + kept - 256]) + "\n", encoding="utf-8")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, value: Any, indent: int | None) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes a random checkpoint.")
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--size", choices=sorted(SIZES), required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="f32")
    parser.add_argument("--config", type=Path, help="a configuration file instead of the size's own")
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER, help="upstream's tokenizer files")
    arguments = parser.parse_args()
    config = _read(arguments.config or SIZES[arguments.size])
    unused = arguments.size in ("full", "nano")
    make(arguments.directory, config, arguments.seed, arguments.dtype, unused, arguments.tokenizer)


if __name__ == "__main__":
    main()
