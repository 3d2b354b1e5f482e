"""The three boxes that the parity checklist leaves open, answered with figures of our own stages.

``tokenizer_source`` (box "Model Files"), ``loudness`` and ``watermark`` each give a dict that JSON can hold; ``sentence`` says
any of them in one plain sentence. ``sides`` loads a stage for the last two. All figures are taken from what the stages put
out. Upstream: ``src/chatterbox/tts_turbo.py`` and ``models/tokenizers/tokenizer.py`` of resemble-ai/chatterbox at 5de7a54.
"""

from __future__ import annotations

import importlib.resources
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint.resources import Resources
from ..engine import registry
from ..errors import ArgumentError, AudioError
from ..stages.reference.loudness import METHODS, RMS_GAIN_LIMIT, TARGET
from ..stages.text.tokenize import SPACE, vocabulary
from ..stages.text.tokenize import python as tokenizer_files
from ..stages.watermark import SAMPLE_RATE

UNKNOWN = "[UNK]"
HOW_TO_GET_IT = (
    "it is tokenizer.json of huggingface.co/ResembleAI/chatterbox (hf download ResembleAI/chatterbox tokenizer.json), "
    "to be given with --base-tokenizer FILE"
)
SENTENCES = tuple(importlib.resources.files(__package__).joinpath("sentences.txt").read_text("utf-8").splitlines())
"""Forty plain sentences, some with tags."""


def sides(key: str, resources: Resources) -> dict[str, Any]:
    """Side (``"python"``, ``"rust"``) -> stage, for every side that can run here."""
    return {name: registry.load(key, name, resources) for name in registry.IMPLEMENTATIONS if not registry.missing(key, name)}


def tokenizer_source(resources: Resources, file: Path | None, sentences: Sequence[str] = SENTENCES) -> dict[str, Any]:
    """The checkpoint's own tokenizer against the base model's ``tokenizer.json`` (``file``), on normalised ``sentences``.

    The base model reads a space as ``[SPACE]``; ``base_without_space`` has the figures of a reader that leaves spaces to the
    tokenizer, which drops them. Entries are compared as the text that they stand for. Raises ``CheckpointError`` for a damaged
    vocabulary and ``ArgumentError`` for no sentences.
    """
    if not sentences:
        raise ArgumentError("sentences: expected at least one, got none")
    config, size = resources.config, resources.config["text"]["vocab_size"]
    turbo, tags = _turbo_vocabulary(resources.directory, size)
    found: dict[str, Any] = {"box": "tokenizer_source", "turbo_size": len(turbo), "tags": len(tags), "sentences": len(sentences)}
    if file is None:
        return {**found, "base_file": None, "how_to_get_it": HOW_TO_GET_IT}
    base = {" " if text == SPACE else text: at for text, at in tokenizer_files.from_file(file, size).get_vocab().items()}
    meaning, shared = {at: text for text, at in turbo.items()}, turbo.keys() & base.keys()

    texts = [next(iter(sides("text.normalize", resources).values()))(text) for text in sentences]
    turbo_sides = sides("text.tokenize", Resources(resources.directory, config))
    base_sides = sides("text.tokenize", Resources(resources.directory, config, options={"tokenizer": str(file)}))
    turbo_ids = _ids(turbo_sides, texts)
    base_ids = _ids(base_sides, texts)
    # A line feed is whitespace to the tokenizer as well, and is not rewritten.
    without_space = _ids(base_sides, [text.replace(" ", "\n") for text in texts])
    first_turbo, first_base, first_without = (next(iter(ids.values())) for ids in (turbo_ids, base_ids, without_space))

    def against(ids: list[list[int]]) -> dict[str, Any]:
        emitted = [at for row in ids for at in row]
        text_of = {at: text for text, at in base.items()}
        return {
            "sentences_with_other_ids": sum(a != b for a, b in zip(first_turbo, ids)),
            "mean_tokens": len(emitted) / len(ids),
            "tokens": len(emitted),
            "tokens_with_another_meaning": sum(meaning[at] != text_of[at] for at in emitted),
            "unknown_tokens": emitted.count(base.get(UNKNOWN, -1)),
        }

    return {
        **found,
        "base_file": file.name,
        "base_size": len(base),
        "shared": len(shared),
        "shared_with_same_id": sum(turbo[text] == base[text] for text in shared),
        "base_ids_with_another_meaning": sum(meaning[at] != text for text, at in base.items()),
        "turbo_mean_tokens": sum(map(len, first_turbo)) / len(texts),
        "base": against(first_base),
        "base_without_space": against(first_without),
        "tags_that_are_no_token": [tag for tag in tags if tag not in base],
        "tags_with_another_id": [tag for tag in tags if base.get(tag, turbo[tag]) != turbo[tag]],
        "sides": list(turbo_ids),
        "sides_agree": all(ids == next(iter(x.values())) for x in (turbo_ids, base_ids, without_space) for ids in x.values()),
        "example": {
            "text": texts[0],
            "turbo": first_turbo[0],
            "base": first_base[0],
            "base_without_space": first_without[0],
            "turbo_reads_base_as": "".join(meaning[at] for at in first_base[0]).encode(errors="replace").decode(),
        },
    }


def loudness(clips: Sequence[tuple[str, np.ndarray]], stages: Mapping[str, Any]) -> dict[str, Any]:
    """The gain of BS.1770 loudness against that of the root mean square, both to -27, on float32 clips ``[n]`` at 24 kHz.

    Gains are levels of output over input, in dB. ``cap_withholds_db`` says how far below -27 dB the limit on the RMS gain leaves
    a clip (0 where it does not act). Silent clips have no gain and are only named.
    """
    _check(stages)
    rows: list[dict[str, Any]] = []
    silent, apart = [], 0.0
    for name, samples in clips:
        before = _level(samples)
        if before is None:
            silent.append(name)
            continue
        gains = {
            side: {method: _gain(before, stage(samples, method), f"{side}, {method}") for method in METHODS}
            for side, stage in stages.items()
        }
        apart = max(apart, *(max(g[m] for g in gains.values()) - min(g[m] for g in gains.values()) for m in METHODS))
        bs1770, rms = next(iter(gains.values())).values()
        withheld = TARGET - (before + rms)
        rows.append(
            {
                "name": name,
                "level_db": before,
                "bs1770_gain_db": bs1770,
                "rms_gain_db": rms,
                "difference_db": rms - bs1770,
                "cap_withholds_db": withheld if withheld > 1e-3 else 0.0,
            }
        )
    differences = [abs(row["difference_db"]) for row in rows]
    return {
        "box": "loudness",
        "target": TARGET,
        "cap_db": 20.0 * math.log10(RMS_GAIN_LIMIT),
        "clips": rows,
        "silent": silent,
        "mean_difference_db": sum(differences) / len(differences) if differences else None,
        "largest_difference_db": max(differences, default=None),
        "largest_difference_clip": max(rows, key=lambda row: abs(row["difference_db"]))["name"] if rows else None,
        "capped_clips": sum(row["cap_withholds_db"] > 0.0 for row in rows),
        "sides": list(stages),
        "largest_gain_between_sides_db": apart if rows else None,
    }


def watermark(samples: np.ndarray, stages: Mapping[str, Any]) -> dict[str, Any]:
    """What the mark does to a float32 clip ``[n]`` at 24 kHz, and what each side's detector says of each side's output.

    A side that is not in ``stages`` is left out, with the reason. Raises ``AudioError`` for a silent clip and one of 32 ms or less.
    """
    _check(stages)
    marked = {side: stage(samples) for side, stage in stages.items()}
    rows = {
        side: {
            "snr_db": _snr(samples, out),
            "largest_difference": float(np.abs(out - samples).max()),
            "peak": float(np.abs(out).max()),
        }
        for side, out in marked.items()
    }
    scores = {
        side: {
            "unmarked": stage.detect(samples, SAMPLE_RATE),
            "marked": {marker: stage.detect(out, SAMPLE_RATE) for marker, out in marked.items()},
        }
        for side, stage in stages.items()
    }
    first = next(iter(marked.values()))
    left_out = [side for side in registry.IMPLEMENTATIONS if side not in stages]
    return {
        "box": "watermark",
        "samples": len(samples),
        "peak": float(np.abs(samples).max()),
        "marked": rows,
        "scores": scores,
        "largest_difference_between_sides": max(float(np.abs(out - first).max()) for out in marked.values()),
        "left_out": {side: registry.missing("watermark", side) or "not asked for" for side in left_out},
    }


def sentence(found: Mapping[str, Any]) -> str:
    """One plain sentence with the figures of ``tokenizer_source``, ``loudness`` or ``watermark``."""
    says = {"tokenizer_source": _say_tokenizer, "loudness": _say_loudness, "watermark": _say_watermark}
    if found.get("box") not in says:
        raise ArgumentError(f"box: expected {', '.join(says)}, got {found.get('box')!r}")
    return says[found["box"]](found)


def _turbo_vocabulary(directory: Path, size: int) -> tuple[dict[str, int], list[str]]:
    """Text -> id of the checkpoint's tokenizer, and its tags; bytes that are no UTF-8 become lone surrogates."""
    tokens, _, tags = vocabulary.read(directory, size)
    symbols = vocabulary.byte_symbols()
    themselves = [ord(symbol) for symbol in symbols if ord(symbol) < 256]
    byte = dict(zip(symbols, [*themselves, *sorted(set(range(256)) - set(themselves))]))
    texts = {bytes(byte[s] for s in token).decode(errors="surrogateescape"): at for token, at in tokens.items()}
    return {**texts, **{tag: len(tokens) + at for at, tag in enumerate(tags)}}, tags


def _ids(stages: Mapping[str, Any], texts: Sequence[str]) -> dict[str, list[list[int]]]:
    return {side: [stage(text).tolist() for text in texts] for side, stage in stages.items()}


def _level(samples: np.ndarray) -> float | None:
    """Root mean square in dB; None for silence."""
    power = float(np.mean(samples.astype(np.float64) ** 2)) if len(samples) else 0.0
    return 10.0 * math.log10(power) if power > 0.0 else None


def _gain(before: float, out: np.ndarray, origin: str) -> float:
    level = _level(out)
    if level is None:
        raise AudioError(f"{origin}: expected sound after loudness normalisation, got silence")
    return level - before


def _snr(clean: np.ndarray, changed: np.ndarray) -> float | None:
    noise = _level(changed.astype(np.float64) - clean)
    signal = _level(clean)
    return None if noise is None or signal is None else signal - noise


def _check(stages: Mapping[str, Any]) -> None:
    if not stages:
        raise ArgumentError("stages: expected at least one side, got none")


def _say_tokenizer(found: Mapping[str, Any]) -> str:
    own = f"Turbo's own tokenizer ({found['turbo_size']} entries, {found['tags']} tags)"
    if found["base_file"] is None:
        return f"Only {own} was read, since the base model's was not given: {found['how_to_get_it']}."
    base, bare, lost = found["base"], found["base_without_space"], len(found["tags_that_are_no_token"])
    return (
        f"{own} and the base model's ({found['base_size']} entries) share {found['shared']} entries, "
        f"{found['shared_with_same_id']} under the same id, so that {found['base_ids_with_another_meaning']} of the base model's "
        f"ids mean another string to Turbo: of {found['sentences']} sentences {base['sentences_with_other_ids']} get other ids "
        f"({bare['sentences_with_other_ids']} where spaces are not rewritten to {SPACE}), "
        f"at {base['mean_tokens']:.1f} tokens a sentence ({bare['mean_tokens']:.1f}) instead of {found['turbo_mean_tokens']:.1f}, "
        f"{base['unknown_tokens']} of them unknown ({bare['unknown_tokens']}); {lost} of the tags are no token there and "
        f"{len(found['tags_with_another_id'])} have another id."
    )


def _say_loudness(found: Mapping[str, Any]) -> str:
    rows = found["clips"]
    if not rows:
        return "No clip had a level to normalise."
    return (
        f"The RMS gain is {found['mean_difference_db']:.2f} dB off the BS.1770 gain on average over {len(rows)} clips and "
        f"{found['largest_difference_db']:.2f} dB at most ({found['largest_difference_clip']}), and its limit of "
        f"{found['cap_db']:.0f} dB would act on {found['capped_clips']} of them; this implementation uses BS.1770 on the reference "
        f"voice as the official package does."
    )


def _say_watermark(found: Mapping[str, Any]) -> str:
    def both(values: Sequence[float | None], form: str) -> str:
        return " / ".join("none" if value is None else format(value, form) for value in values)

    rows, scores = list(found["marked"].values()), list(found["scores"].values())
    missing = "".join(f"; {side} was left out ({why})" for side, why in found["left_out"].items())
    return (
        f"The mark ({' / '.join(found['marked'])}) lies {both([r['snr_db'] for r in rows], '.1f')} dB below the speech, changes a "
        f"sample by at most {both([r['largest_difference'] for r in rows], '.3f')} and takes the peak from {found['peak']:.3f} to "
        f"{both([r['peak'] for r in rows], '.3f')}; the detectors give at most {max(s['unmarked'] for s in scores):.4f} without it "
        f"and at least {min(v for s in scores for v in s['marked'].values()):.4f} with it, whichever side marked{missing}."
    )
