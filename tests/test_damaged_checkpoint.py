"""A damaged checkpoint is refused when it is loaded, by an error that names file, tensor, what was expected and what came."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.errors import CheckpointError, ConfigError, VoiceError

FILES = {
    "t3_turbo_v1.safetensors": "tfmr.h.1.attn.c_attn.weight",
    "s3gen_meanflow.safetensors": "flow.encoder.embed.out.0.weight",
    "ve.safetensors": "lstm.weight_hh_l1",
}
BUFFERS = ["tokenizer._mel_filters", "speaker_encoder.xvector.tdnn.nonlinear.batchnorm.running_var", "mel2wav.conv_pre.bias"]


@pytest.fixture
def directory(tiny_checkpoint, tmp_path):
    """The tiny checkpoint, of links: a test replaces the file that it damages."""
    for file in tiny_checkpoint.iterdir():
        os.link(file, tmp_path / file.name)
    return tmp_path


def refused(directory: Path, *parts: str, error: type[Exception] = CheckpointError) -> str:
    with pytest.raises(error) as caught:
        ChatterboxTurbo.from_pretrained(directory)
    message = str(caught.value)
    assert "\n" not in message and all(part in message for part in parts), message
    return message


def rewrite(path: Path, change) -> None:
    tensors = load_file(path)
    change(tensors)
    path.unlink()
    save_file({name: np.array(value, order="C") for name, value in tensors.items()}, path)


def test_the_undamaged_one_is_accepted(directory):
    for name in FILES:
        rewrite(directory / name, lambda tensors: None)
    assert ChatterboxTurbo.from_pretrained(directory).config["name"] == "tiny"


@pytest.mark.parametrize("name", [*FILES, "vocab.json", "merges.txt", "added_tokens.json"])
def test_a_missing_file(directory, name):
    (directory / name).unlink()
    refused(directory, str(directory), "missing", name)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0, 5, 8, 100, -1])
def test_a_truncated_file(directory, name, keep):
    content = (directory / name).read_bytes()
    (directory / name).unlink()
    (directory / name).write_bytes(content[:keep])
    refused(directory, name)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_something_else(directory, name):
    (directory / name).unlink()
    (directory / name).write_bytes(b"<!DOCTYPE html><html>404 not found</html>" * 50)
    refused(directory, name)


@pytest.mark.parametrize(("name", "tensor"), [*FILES.items(), *(("s3gen_meanflow.safetensors", buffer) for buffer in BUFFERS)])
def test_a_missing_tensor(directory, name, tensor):
    rewrite(directory / name, lambda tensors: tensors.pop(tensor))
    refused(directory, name, tensor, "missing")


@pytest.mark.parametrize("name", FILES)
def test_a_tensor_too_many(directory, name):
    rewrite(directory / name, lambda tensors: tensors.update({"lora.extra": np.zeros(3, np.float32)}))
    refused(directory, name, "lora.extra")


@pytest.mark.parametrize("prefix", ["flow", "flow.encoder", "flow.decoder", "mel2wav", "tokenizer", "speaker_encoder"])
def test_a_tensor_too_many_inside_a_module(directory, prefix):
    name = "s3gen_meanflow.safetensors"
    rewrite(directory / name, lambda tensors: tensors.update({f"{prefix}.extra.weight": np.zeros(3, np.float32)}))
    refused(directory, name, f"{prefix}.extra.weight")


@pytest.mark.parametrize(("name", "tensor"), [*FILES.items(), *(("s3gen_meanflow.safetensors", buffer) for buffer in BUFFERS)])
def test_a_wrong_shape(directory, name, tensor):
    shapes = []

    def change(tensors):
        value = tensors[tensor]
        tensors[tensor] = np.concatenate([value, value[:1]])
        shapes.extend([list(value.shape), list(tensors[tensor].shape)])

    rewrite(directory / name, change)
    refused(directory, name, tensor, *map(str, shapes))


def test_transposed_tensors_of_the_same_size_are_refused(directory):
    rewrite(
        directory / "t3_turbo_v1.safetensors", lambda t: t.update({"tfmr.h.0.mlp.c_fc.weight": t["tfmr.h.0.mlp.c_fc.weight"].T})
    )
    refused(directory, "t3_turbo_v1.safetensors", "tfmr.h.0.mlp.c_fc.weight", "[32, 128]", "[128, 32]")


@pytest.mark.parametrize(("name", "tensor"), [*FILES.items(), *(("s3gen_meanflow.safetensors", buffer) for buffer in BUFFERS)])
def test_a_wrong_dtype(directory, name, tensor):
    rewrite(directory / name, lambda tensors: tensors.update({tensor: tensors[tensor].astype(np.int64)}))
    refused(directory, name, tensor, "F32", "I64")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(("name", "tensor"), [*FILES.items(), *(("s3gen_meanflow.safetensors", buffer) for buffer in BUFFERS)])
def test_numbers_that_are_not_finite(directory, name, tensor, bad):
    def change(tensors):
        tensors[tensor] = tensors[tensor].copy()
        tensors[tensor].flat[-1] = bad

    rewrite(directory / name, change)
    refused(directory, name, tensor, "finite")


def test_half_precision_is_accepted(directory):
    def halve(tensors):
        tensors.update({n: v.astype(np.float16) for n, v in tensors.items() if v.dtype == np.float32})

    for name in FILES:
        rewrite(directory / name, halve)
    ChatterboxTurbo.from_pretrained(directory)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "added_tokens.json"])
def test_a_damaged_tokenizer(directory, name):
    content = (directory / name).read_bytes()
    (directory / name).unlink()
    (directory / name).write_bytes(content[: len(content) // 2])
    refused(directory, name)


def test_a_damaged_configuration(directory):
    content = json.loads((directory / "config.json").read_text())
    for damage, error in (("{", "JSON"), (json.dumps({**content, "t4": 1}), "unknown key t4")):
        (directory / "config.json").unlink()
        (directory / "config.json").write_text(damage)
        refused(directory, "config.json", error, error=ConfigError)


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("kind", ["zip", "pickle"])
def test_nothing_in_a_voice_is_executed(directory, kind, tmp_path_factory):
    marker = tmp_path_factory.mktemp("evil") / "it-ran"
    content = pickle.dumps({"t3": {"speaker_emb": Evil(marker)}, "gen": {}}, protocol=2)
    if kind == "zip":
        with zipfile.ZipFile(directory / "conds.pt", "w") as archive:
            archive.writestr("archive/data.pkl", content)
            archive.writestr("archive/version", "3\n")
            archive.writestr("archive/byteorder", "little")
    else:
        (directory / "conds.pt").write_bytes(content)
    refused(directory, "conds.pt", error=VoiceError)
    assert not marker.exists()
    if kind == "pickle":  # the pickle does run where pickles run
        pickle.loads(content)
        assert marker.exists()
