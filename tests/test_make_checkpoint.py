"""Random checkpoints: upstream's names, shapes and dtypes, nothing constant, the same bytes again, a tokenizer that fits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from checkpoint_layout import UNUSED_T3, is_integer, tensors
from checkpoint_values import slaney_filters, uniforms, values

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data"
CONFIGS = ROOT / "python" / "chatterbox_turbo_rs" / "config"
FILES = ("t3_turbo_v1.safetensors", "s3gen_meanflow.safetensors", "ve.safetensors")


EXPECTED_FIRST = [-3955865, 6774323, 8252127, 5013843]


def config(name: str) -> dict:
    path = (DATA if name in ("tiny", "toy") else CONFIGS) / f"{name}.json"
    return json.loads(path.read_text())


def test_full_layout_is_upstreams_inventory() -> None:
    rows = [line.split("\t") for line in (DATA / "tensor_inventory.tsv").read_text().splitlines()[1:]]
    expected = {(file, name): (shape, dtype) for file, name, shape, dtype in rows}
    found = {
        (file, name): ("x".join(map(str, shape)) or "scalar", "I64" if is_integer(name) else "F32")
        for file, shapes in tensors(config("turbo")).items()
        for name, shape in shapes.items()
    }
    assert len(expected) == 2806
    assert found == expected


@pytest.mark.parametrize(("name", "file"), [("nano", "t3_nano_v1.safetensors"), ("toy", "t3_turbo_v1.safetensors")])
def test_other_sizes_have_the_same_names(name: str, file: str) -> None:
    shapes = tensors(config(name))
    assert "tfmr.h.0.attn.c_attn.weight" in shapes[file]
    hidden = config(name)["t3"]["hidden_size"]
    assert shapes[file]["tfmr.h.0.attn.c_attn.weight"] == (hidden, 3 * hidden)


def test_files_follow_the_configuration(tiny_checkpoint: Path) -> None:
    from safetensors import safe_open

    for file, shapes in tensors(config("tiny"), unused=False).items():
        with safe_open(tiny_checkpoint / file, "numpy") as opened:
            assert set(opened.keys()) == set(shapes)
            for name, shape in shapes.items():
                tensor = opened.get_slice(name)
                assert tuple(tensor.get_shape()) == shape, name
                assert tensor.get_dtype() == ("I64" if is_integer(name) else "F32"), name
    assert not set(UNUSED_T3) & set(tensors(config("tiny"), unused=False)[FILES[0]])
    assert json.loads((tiny_checkpoint / "config.json").read_text()) == config("tiny")


def test_no_tensor_is_constant_and_every_value_is_finite(tiny_checkpoint: Path) -> None:
    from safetensors.numpy import load_file

    seen: dict[bytes, str] = {}
    for file in FILES:
        for name, tensor in load_file(tiny_checkpoint / file).items():
            assert np.isfinite(tensor).all(), name
            if tensor.size > 1:
                assert np.unique(tensor).size > tensor.size // 4, f"{name} repeats itself"
            if name.endswith(("running_var", "original0", "alpha")):
                assert tensor.min() > 0, name
            if is_integer(name):
                continue
            digest = hashlib.sha256(tensor.tobytes()).digest()
            assert seen.setdefault(digest, name) == name, f"{name} equals {seen[digest]}"


def test_filters_and_window_are_disturbed_but_usable(tiny_checkpoint: Path) -> None:
    from safetensors.numpy import load_file

    tensors_ = load_file(tiny_checkpoint / FILES[1])
    filters, window = tensors_["tokenizer._mel_filters"], tensors_["tokenizer.window"]
    real = slaney_filters(16000.0, 400, 128)
    assert filters.min() >= 0 and window.min() >= 0
    assert 0.05 < np.abs(filters - real).max() / real.max() < 0.3
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    assert 0.01 < np.abs(window - hann).max() < 0.1


def test_same_seed_same_bytes_and_other_seed_other_bytes(
    tiny_checkpoint: Path, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    again = make_checkpoint(tmp_path / "again", "--size", "tiny", "--seed", "1234")
    other = make_checkpoint(tmp_path / "other", "--size", "tiny", "--seed", "1235")
    for file in FILES:
        assert (again / file).read_bytes() == (tiny_checkpoint / file).read_bytes(), file
        assert (other / file).read_bytes() != (tiny_checkpoint / file).read_bytes(), file


def test_values_do_not_change_between_versions() -> None:
    """The goldens rest on these bits; a change here means that they have to be dumped again."""
    first = next(uniforms(1234, "text_emb.weight", 4))
    assert (first * 2**23).astype(int).tolist() == EXPECTED_FIRST
    assert len({len(piece) for piece in uniforms(1, "x", 7)}) == 1
    long = np.concatenate(list(uniforms(1, "x", (1 << 22) + 3)))
    assert len(long) == (1 << 22) + 3 and abs(long.mean()) < 1e-3 and abs(long.std() - 3**-0.5) < 1e-3


def test_stop_token_is_improbable() -> None:
    bias = np.concatenate(list(values("t3", "speech_head.bias", (6563,), 3, 6562)))
    assert bias[6562] < -7 < bias[:6562].min()


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_half_precision_is_the_rounded_float32(
    tiny_checkpoint: Path, make_checkpoint: Callable[..., Path], tmp_path: Path, dtype: str
) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file

    half = make_checkpoint(tmp_path / dtype, "--size", "tiny", "--seed", "1234", "--dtype", dtype)
    exact = load_file(tiny_checkpoint / FILES[0])["speech_emb.weight"]
    with safe_open(half / FILES[0], "numpy") as opened:
        assert opened.get_slice("speech_emb.weight").get_dtype() == dtype.upper()
    from chatterbox_turbo_rs.checkpoint.tensor_file import TensorFile

    rounded = TensorFile(half / FILES[0]).get("speech_emb.weight")
    limit = 2.0**-11 if dtype == "f16" else 2.0**-8
    relative = np.abs(rounded - exact) / np.maximum(np.abs(exact), 2.0**-14)
    assert 0 < relative.max() <= limit


def test_small_tokenizer_is_the_beginning_of_the_real_one(tiny_checkpoint: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocab = json.loads((tiny_checkpoint / "vocab.json").read_text(encoding="utf-8"))
    tags = json.loads((tiny_checkpoint / "added_tokens.json").read_text())
    settings = json.loads((tiny_checkpoint / "tokenizer_config.json").read_text())
    size = config("tiny")["text"]["vocab_size"]
    assert sorted([*vocab.values(), *tags.values()]) == list(range(size))
    assert vocab["<|endoftext|>"] == size - 20 and tags["[angry]"] == size - 19 and tags["[laugh]"] == size - 1
    assert {int(index): entry["content"] for index, entry in settings["added_tokens_decoder"].items()} == {
        index: token for token, index in {**tags, "<|endoftext|>": size - 20}.items()
    }
    lines = (tiny_checkpoint / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    for index, line in enumerate(lines):
        left, right = line.split(" ")
        assert left in vocab and right in vocab and vocab[left + right] == 256 + index
    tokenizer = Tokenizer(models.BPE(vocab, [tuple(line.split(" ")) for line in lines]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(token, normalized=True) for token in tags])
    text = "Hello [laugh] naïve café 😀, this is it."
    ids = tokenizer.encode(text).ids
    assert max(ids) < size and tags["[laugh]"] in ids and tokenizer.decode(ids) == text


def test_full_tokenizer_is_copied(tmp_path: Path) -> None:
    from make_checkpoint import TOKENIZER_FILES, write_tokenizer

    write_tokenizer(tmp_path, 50276, DATA / "tokenizer")
    for name in TOKENIZER_FILES:
        assert (tmp_path / name).read_bytes() == (DATA / "tokenizer" / name).read_bytes()
    with pytest.raises(ValueError, match="expected 276 to 50276, found 50277"):
        write_tokenizer(tmp_path, 50277, DATA / "tokenizer")
