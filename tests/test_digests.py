"""Digests of what the networks were given: the core's against NumPy's, tensor by tensor."""

from __future__ import annotations

import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chatterbox_turbo_rs import _core
from chatterbox_turbo_rs.checkpoint.resources import Resources
from chatterbox_turbo_rs.checkpoint.tensor_file import TensorFile
from chatterbox_turbo_rs.errors import ArgumentError
from chatterbox_turbo_rs.parity.digests import digest
from chatterbox_turbo_rs.parity.official import digests

NETWORKS = ("VoiceEncoder", "S3Tokenizer", "SpeakerEncoder", "T3Decoder", "FlowEncoder", "Flow", "Vocoder")
NORM = ".parametrizations.weight.original"
UNUSED = ("similarity_weight", "similarity_bias", "tfmr.wte.weight", "text_head.weight")


@pytest.fixture(scope="module")
def files(tiny_checkpoint: Path) -> dict[str, TensorFile]:
    """Tensor name → the file that holds it."""
    names = json.loads((tiny_checkpoint / "config.json").read_text())["files"].values()
    return {name: file for file in (TensorFile(tiny_checkpoint / f) for f in names) for name in file.names()}


@pytest.fixture(scope="module")
def found(tiny_checkpoint: Path) -> dict[str, Any]:
    """Digests of all networks of the tiny checkpoint."""
    checkpoint = _core.Checkpoint(tiny_checkpoint, (tiny_checkpoint / "config.json").read_text(), record=True)
    for name in NETWORKS:
        getattr(_core, name)(checkpoint, "cpu")
    _core.S3TokenizerMel(checkpoint)
    return dict(checkpoint.digests())


def close(one: dict[str, Any], other: dict[str, Any], relative: float) -> bool:
    """Every sum within ``relative`` of its scale: Σ|v| is at most √(n Σv²)."""
    scale = np.sqrt(one["squares"] * max(1, np.prod(one["shape"])))
    return (
        abs(one["sum"] - other["sum"]) <= relative * scale
        and abs(one["weighted"] - other["weighted"]) <= relative * scale
        and abs(one["squares"] - other["squares"]) <= relative * one["squares"]
    )


def test_every_tensor_is_there_once(found: dict[str, Any], files: dict[str, TensorFile]) -> None:
    plain = {name for name in files if NORM not in name}
    folded = {name.split(NORM)[0] + ".weight" for name in files if NORM in name}
    assert len(folded) == 82 and not folded & plain
    assert found.keys() == plain | folded


def test_unused_tensors_are_listed_as_such(found: dict[str, Any], files: dict[str, TensorFile]) -> None:
    for name, entry in found.items():
        unused = name in UNUSED or name.endswith(".num_batches_tracked")
        assert entry.get("unused", False) is unused, name
        if unused:
            assert entry == {"unused": True, "shape": list(files[name].shape(name))}


def test_tensors_of_the_files_have_the_bits_of_the_files(found: dict[str, Any], files: dict[str, TensorFile]) -> None:
    for name, entry in found.items():
        if name in files and not entry.get("unused"):
            expected = digest(files[name].get(name))
            assert (entry["sha256"], entry["shape"]) == (expected["sha256"], expected["shape"]), name
            assert close(entry, expected, 1e-12), name


def test_folded_weights_are_those_that_are_used(found: dict[str, Any], files: dict[str, TensorFile]) -> None:
    for name in found.keys() - files.keys():
        stem = name.removesuffix(".weight") + NORM
        gain, v = (files[f"{stem}{i}"].get(f"{stem}{i}").astype(np.float64) for i in (0, 1))
        norm = np.sqrt((v.reshape(len(v), -1) ** 2).sum(axis=1)).reshape(gain.shape)
        assert close(digest((gain * v / norm).astype(np.float32)), found[name], 1e-6), name


def test_a_network_records_its_own_tensors(tiny_checkpoint: Path) -> None:
    checkpoint = _core.Checkpoint(tiny_checkpoint, (tiny_checkpoint / "config.json").read_text(), record=True)
    assert checkpoint.digests() == {}
    _core.Flow(checkpoint, "cpu")
    assert {name.split(".")[1] for name in checkpoint.digests()} == {"spk_embed_affine_layer", "decoder"}
    first = checkpoint.digests()
    _core.Flow(checkpoint, "cpu")
    assert checkpoint.digests() == first


def test_nothing_is_recorded_unless_asked_for(tiny_checkpoint: Path) -> None:
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    with pytest.raises(ArgumentError, match="digests: expected a checkpoint opened with record=True"):
        Resources(tiny_checkpoint, config).core.digests()
    resources = Resources(tiny_checkpoint, config, options={"digests": True})
    importlib.import_module("chatterbox_turbo_rs.stages.voice_encoder.embedding.rust").create(resources)
    assert "proj.weight" in resources.core.digests()


def test_figures_follow_their_definitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "PIECE", 100)
    array = (np.arange(350, dtype=np.float32) % 37 / 8 - 2).reshape(5, 70)
    entry = digest(array)
    assert entry["shape"] == [5, 70]
    assert entry["sha256"] == hashlib.sha256(array.tobytes()).hexdigest()
    values = [float(v) for v in array.ravel()]
    assert entry["sum"] == sum(values) and entry["squares"] == sum(v * v for v in values)
    weighted = sum(v * ((i * 0.6180339887498949) % 1 - 0.5) for i, v in enumerate(values))
    assert abs(entry["weighted"] - weighted) < 1e-9
    assert digest(np.asfortranarray(array)) == entry
    assert digest(np.ascontiguousarray(array[:, ::-1]))["weighted"] != entry["weighted"]
    assert digest(np.zeros((0, 3), np.float32))["sha256"] == hashlib.sha256().hexdigest()
    assert digest(np.array(2.5, np.float32))["shape"] == []


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros(3, np.int64), [1.0]])
def test_other_arrays_are_refused(array: Any) -> None:
    with pytest.raises(ArgumentError, match="array: expected a float32 array, got"):
        digest(array)
