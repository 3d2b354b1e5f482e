"""What each party really loaded: the files' contents, every network's hyper-parameters, and a digest of every tensor.

Hyper-parameters are reported by the loaded network itself (lengths of lists, shapes, constants that its code uses), not by the
JSON file. Digests are of the tensors as the network was given them, weight norm folded: bit-identical, or within rounding.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .recording import NETWORKS, Recording
from .rows import Row
from .tolerances import limits

# Network -> key of the configuration's ``files`` and the prefixes of its tensors.
TENSORS: dict[str, tuple[str, tuple[str, ...]]] = {
    "t3.decoder": ("t3", ("",)),
    "voice_encoder.embedding": ("voice_encoder", ("",)),
    "s3tokenizer.tokens": ("s3gen", ("tokenizer.",)),
    "speaker_encoder.xvector": ("s3gen", ("speaker_encoder.",)),
    "s3gen.encoder": ("s3gen", ("flow.input_embedding.", "flow.encoder.", "flow.encoder_proj.")),
    "s3gen.flow": ("s3gen", ("flow.decoder.", "flow.spk_embed_affine_layer.")),
    "s3gen.vocoder": ("s3gen", ("mel2wav.",)),
}


UNUSED = ("text_head.weight", "tfmr.wte.weight", "similarity_weight", "similarity_bias")
"""Tensors of training: a module may hold them, no computation here reads them."""


def sha256(path: Path) -> str:
    """Of a file's bytes, hexadecimal."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 22):
            digest.update(block)
        return digest.hexdigest()


def rows(a: Recording, b: Recording) -> Iterator[Row]:
    """The rows of section 1 of the checklist, reference ``a`` against candidate ``b``."""
    pair = (a.party, b.party)
    # Python and Rust read one directory in one process: there the digests below are what can differ.
    for name in sorted(set(a.files) | set(b.files)) if "official" in pair else ():
        found = tuple(r.files.get(name, {}).get("sha256", "not read")[:16] for r in (a, b))
        row = Row(pair, "loaded", f"files.{name}", "", values=(found[0], found[1]))
        if found[0] != found[1]:
            row.wrong = [f"SHA-256 {found[1]}…, expected {found[0]}…"]
        yield row
    for network in NETWORKS:
        yield from _hyperparameters(pair, network, a.hyperparameters.get(network), b.hyperparameters.get(network))
    for network in NETWORKS:
        yield _digests(pair, network, a.digests, b.digests)


def _hyperparameters(
    pair: tuple[str, str], network: str, a: Mapping[str, Any] | None, b: Mapping[str, Any] | None
) -> Iterator[Row]:
    stage = f"config.{network}"
    if a is None or b is None:
        yield Row(pair, "loaded", stage, "", missing=f"{pair[0] if a is None else pair[1]} reports none")
        return
    for key in sorted(set(a) | set(b)):
        row = Row(pair, "loaded", f"{stage}.{key}", "", values=(a.get(key, "not reported"), b.get(key, "not reported")))
        if not same(*row.values or (None, None)):
            row.wrong = [f"{b.get(key, 'not reported')!r}, expected {a.get(key, 'not reported')!r}"]
        yield row


def same(a: Any, b: Any) -> bool:
    """Equal; floating-point numbers to 1e-5, for a side may hold them as float32 or tell them by what they do."""
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    if isinstance(a, bool) or isinstance(b, bool) or isinstance(a, str) or isinstance(b, str):
        return type(a) is type(b) and a == b
    return math.isclose(a, b, rel_tol=1e-5)


def _digests(pair: tuple[str, str], network: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Row:
    which, prefixes = TENSORS[network]
    sides = [
        {n: d for n, d in side.get(which, {}).items() if n.startswith(prefixes) and n not in UNUSED and not d.get("unused")}
        for side in (a, b)
    ]
    row = Row(pair, "loaded", f"digest.{network}", which)
    if not all(sides):
        row.missing = f"{pair[0] if not sides[0] else pair[1]} reports no tensors"
        return row
    identical, worst, where = 0, 0.0, ""
    for name in sorted(set(sides[0]) | set(sides[1])):
        x, y = (side.get(name) for side in sides)
        if x is None or y is None:
            row.wrong.append(f"{name}: only {pair[1] if x is None else pair[0]} reads it")
        elif x["shape"] != y["shape"]:
            row.wrong.append(f"{name}: shape {y['shape']}, expected {x['shape']}")
        elif x["sha256"] == y["sha256"]:
            identical += 1
        elif (difference := distance(x, y)) > worst:
            worst, where = difference, name
    limit = limits("digest", "loaded")["relative_rms"]
    if worst > limit:
        row.wrong.append(f"{where}: relative difference {worst:.1e}, expected at most {limit:.0e}")
    row.wrong = row.wrong[:8]
    row.values = (f"{len(sides[0])} tensors", f"{len(sides[1])} tensors, {identical} of them identical")
    row.note = f"largest difference of the others {worst:.1e}, {where}" if where else ""
    return row


def distance(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    """The largest difference of two digests' figures, by the tensor's norm (position-weighted sums by that times √n)."""
    norm = math.sqrt(max(a["squares"], 1e-60))
    count = math.prod(a["shape"])
    figures = (
        abs(math.sqrt(max(a["squares"], 0)) - math.sqrt(max(b["squares"], 0))) / norm,
        abs(a["sum"] - b["sum"]) / (norm * math.sqrt(count)),
        abs(a["weighted"] - b["weighted"]) / (norm * math.sqrt(count)),
    )
    return max(figures)


S3GEN_PREFIXES = ("tokenizer.", "speaker_encoder.", "flow.", "mel2wav.")
"""What the names of the tensors in S3Gen's file begin with."""
