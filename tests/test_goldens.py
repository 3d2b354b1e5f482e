"""The goldens of the network stages are complete, unchanged, and rest on the checkpoint and the scripts that are here."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
GOLDENS = ROOT / "tests" / "goldens"
MANIFEST = json.loads((GOLDENS / "manifest.json").read_text())
AGAIN = "dump them again: tools/make_checkpoint.py --size tiny --seed 1234 DIR, then tools/dump_goldens.py DIR"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_golden_is_the_one_in_the_manifest() -> None:
    assert len(MANIFEST["files"]) == 11
    for name, entry in MANIFEST["files"].items():
        assert (GOLDENS / name).is_file(), f"{name} is missing; {AGAIN}"
        assert digest(GOLDENS / name) == entry["sha256"], f"{name} was changed; {AGAIN}"
        if name.endswith(".npz"):
            with np.load(GOLDENS / name) as arrays:
                assert {key: [str(arrays[key].dtype), *arrays[key].shape] for key in arrays.files} == entry["entries"]


def test_scripts_are_those_that_made_the_goldens() -> None:
    for name, expected in MANIFEST["scripts"].items():
        assert digest(ROOT / name) == expected, f"{name} was changed since the goldens were made; {AGAIN}"


def test_checkpoint_is_the_one_that_made_the_goldens(tiny_checkpoint: Path) -> None:
    for name, expected in MANIFEST["checkpoint"]["sha256"].items():
        assert digest(tiny_checkpoint / name) == expected, f"{name} differs; {AGAIN}"


def test_signals_were_alive() -> None:
    """Dead signals would agree with anything."""
    with np.load(GOLDENS / "s3gen_vocoder.npz") as vocoder:
        assert (vocoder["f0"] > 10).any() and (vocoder["f0"] < 10).any()
        assert np.sqrt(np.mean(vocoder["samples"] ** 2)) > 0.01 and np.abs(vocoder["samples"]).max() < 0.99
        assert not vocoder["samples"][:480].any() and vocoder["samples"][1000:].std() > 0.01
    with np.load(GOLDENS / "s3tokenizer_tokens.npz") as tokens:
        levels = np.concatenate([tokens[f"{case}.levels"] for case in "abc"])
        assert set(np.unique(np.rint(levels))) == {-1.0, 0.0, 1.0}
        assert ((np.rint(levels) + 1) @ 3 ** np.arange(8) == np.concatenate([tokens[f"{case}.tokens"] for case in "abc"])).all()
    with np.load(GOLDENS / "t3_loop.npz") as loop:
        assert len(loop["greedy.tokens"]) == 221 and len(loop["sampled.tokens"]) == 301
        assert len(set(loop["sampled.tokens"].tolist())) > 100 and len(set(loop["greedy.tokens"].tolist())) > 20
        assert len(loop["stops.tokens"]) == 9 and loop["first_is_stop.tokens"][0] == 6562
        assert len(loop["first_is_stop.tokens"]) == 31
    with np.load(GOLDENS / "s3gen_flow.npz") as flow:
        for case, frames in (("even", 40), ("odd", 41), ("no_prompt", 0)):
            assert len(flow[f"{case}.mel"]) == len(flow["mu"]) - frames
            assert flow[f"{case}.mel"].std(axis=0).mean() > 0.3
