"""Every tensor of a checkpoint is load-bearing: changing any one of them changes what its stage computes.

The network of ``speaker_encoder.xvector`` repeats one block 52 times; here it has 9, by the configuration, so that a thousand
tensors can be changed one at a time.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import implementations
import numpy as np
import pytest

from chatterbox_turbo_rs.checkpoint.resources import Resources
from chatterbox_turbo_rs.checkpoint.tensor_file import TensorFile
from chatterbox_turbo_rs.engine import registry

ROOT = Path(__file__).resolve().parents[1]
RNG = np.random.default_rng(11)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


MEL40, MEL128, MEL80 = np.abs(normal(160, 40)), normal(16, 128), 4 * normal(24, 80)
SPEAKER, XVECTOR, MU, PROMPT, NOISE = normal(32), normal(192), normal(14, 80), normal(4, 80), normal(14, 80)
F0_MEL, PHASES, SOURCE = normal(6, 80), normal(9), normal(6 * 480, 9)
WAVE = normal(16_000)


def _t3(decoder: Any) -> np.ndarray:
    session = decoder.start(SPEAKER, np.arange(4), np.arange(5), 2)
    return np.concatenate([session.prefill(), session.step(9)])


# name -> (key of config["files"], prefix of the tensors' names, what the stage gives)
STAGES: dict[str, tuple[str, Any, Callable[[Any], np.ndarray]]] = {
    "t3.decoder": ("t3", "", _t3),
    "voice_encoder.embedding": ("voice_encoder", "", lambda stage: stage(MEL40)),
    "s3tokenizer.mel": ("s3gen", ("tokenizer._mel", "tokenizer.window"), lambda stage: stage(WAVE)),
    "s3tokenizer.tokens": (
        "s3gen",
        ("tokenizer.encoder.", "tokenizer.quantizer."),
        lambda stage: stage.pre_codes(MEL128),
    ),
    "speaker_encoder.xvector": ("s3gen", "speaker_encoder.", lambda stage: stage(MEL80)),
    "s3gen.encoder": (
        "s3gen",
        ("flow.encoder", "flow.input_embedding."),
        lambda stage: stage(np.arange(6, dtype=np.int64)),
    ),
    "s3gen.flow": (
        "s3gen",
        ("flow.decoder.", "flow.spk_embed_affine_layer."),
        lambda stage: stage(MU, XVECTOR, PROMPT, NOISE),
    ),
    "s3gen.vocoder": ("s3gen", "mel2wav.", lambda stage: stage(F0_MEL, PHASES, SOURCE)),
}
CASES = [
    pytest.param(key, *param.values, marks=param.marks, id=f"{key}-{param.values[0]}")
    for key in STAGES
    for param in implementations.of(key)
]
UNUSED = ("similarity_weight", "similarity_bias")
"""Tensors that upstream's files have and no stage reads: training's loss, and BatchNorm's counters (by their ending)."""


def unused(name: str) -> bool:
    return name in UNUSED or name.endswith(".num_batches_tracked")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    config = json.loads((ROOT / "tests" / "data" / "tiny.json").read_text())
    config["speaker_encoder"]["layers"] = [3, 3, 3]
    directory = tmp_path_factory.mktemp("load_bearing")
    (directory / "config.in.json").write_text(json.dumps(config))
    tool = [sys.executable, str(ROOT / "tools" / "make_checkpoint.py"), "--size", "tiny", "--seed", "1234"]
    subprocess.run([*tool, "--config", str(directory / "config.in.json"), str(directory)], check=True)
    return directory, json.dumps(config)


class Patched:
    """A weight file in which one tensor at a time is other than it was."""

    def __init__(self, path: Path) -> None:
        self.file = TensorFile(path)
        self.handle = open(path, "r+b")
        self.start = 8 + struct.unpack("<Q", self.handle.read(8))[0]

    def swap(self, name: str) -> bytes:
        """Changes tensor ``name``; returns its former bytes."""
        _, _, begin, end = self.file._entry(name)
        self.handle.seek(self.start + begin)
        before = self.handle.read(end - begin)
        kind = "<i8" if self.file.dtype(name) == "I64" else "<f4"
        values = np.frombuffer(before, kind)
        after = values * 1.5 + 0.25 * (1 + np.arange(values.size) % 3)  # neither a scale nor a shift hides this
        self.write(name, (values + 5 if kind == "<i8" else after).astype(kind).tobytes())
        return before

    def write(self, name: str, content: bytes) -> None:
        self.handle.seek(self.start + self.file._entry(name)[2])
        self.handle.write(content)
        self.handle.flush()


@pytest.mark.parametrize(("stage", "implementation"), CASES)
def test_changing_any_tensor_changes_the_result(checkpoint, stage, implementation):
    directory, config = checkpoint
    which, prefix, run = STAGES[stage]
    patched = Patched(directory / json.loads(config)["files"][which])
    names = [name for name in patched.file.names() if name.startswith(prefix)]
    assert names

    def result() -> bytes:
        loaded = registry.load(stage, implementation, Resources(directory, json.loads(config)))
        return np.ascontiguousarray(run(loaded)).tobytes()

    with patched.handle:
        usual = result()
        assert np.isfinite(np.frombuffer(usual, "<f4")).all()
        idle = []
        for name in names:
            if not unused(name):
                before = patched.swap(name)
                if result() == usual:
                    idle.append(name)
                patched.write(name, before)
        assert not idle, f"{len(idle)} of {len(names)} tensors change nothing"
        for name in filter(unused, names):
            patched.swap(name)
        assert result() == usual, "a tensor that is listed as unused is read"


def test_every_tensor_belongs_to_one_stage(checkpoint):
    directory, config = checkpoint
    for which, name in json.loads(config)["files"].items():
        for tensor in TensorFile(directory / name).names():
            owners = [stage for stage, (file, prefix, _) in STAGES.items() if file == which and tensor.startswith(prefix)]
            assert len(owners) == 1, (tensor, owners)
