"""Files of ``torch.save``, read and written without torch; what may not be read is in test_torch_archive_refusals.py."""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from chatterbox_turbo_rs.checkpoint import torch_archive
from chatterbox_turbo_rs.errors import ArgumentError, CheckpointError, FileError

GOLDENS = Path(__file__).parent / "goldens"


def tensors(value, path=""):
    """Every array of ``value`` by its path, and every other leaf."""
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in tensors(item, f"{path}/{key}" if path else key).items()}
    if isinstance(value, list):
        return {k: v for i, item in enumerate(value) for k, v in tensors(item, f"{path}/{i}").items()}
    return {path: value}


@pytest.mark.parametrize("name", ["conds", "kinds"])
def test_tensors_of_torch_are_read_exactly(name):
    leaves = tensors(torch_archive.read(GOLDENS / f"torch_archive_{name}.pt"), name)
    found = {key: leaf for key, leaf in leaves.items() if isinstance(leaf, np.ndarray)}
    with np.load(GOLDENS / "torch_archive.npz") as file:
        expected = {k: file[k] for k in file if k.startswith(name)}
    assert found.keys() == expected.keys() and len(expected) >= 6
    for key, array in expected.items():
        assert (found[key].dtype, found[key].shape) == (array.dtype, array.shape), key
        assert found[key].flags.c_contiguous, key
        np.testing.assert_array_equal(found[key], array, err_msg=key)


def test_conds_have_upstreams_structure():
    conds = torch_archive.read(GOLDENS / "torch_archive_conds.pt")
    assert list(conds) == ["t3", "gen"]
    assert conds["t3"]["clap_emb"] is None and conds["gen"]["prompt_feat_len"] is None
    assert conds["t3"]["cond_prompt_speech_tokens"].dtype == np.int64
    assert conds["gen"]["prompt_feat"].shape == (1, 20, 80)


def test_plain_values_keep_their_type_and_order():
    kinds = torch_archive.read(GOLDENS / "torch_archive_kinds.pt")
    plain = kinds["plain"]
    assert plain["ints"] == [0, -1, 255, 65535, 2**31, -(2**40)]
    assert plain["floats"] == [0.1, 0.0, float("inf")] and np.signbit(plain["floats"][1])
    assert plain["text"] == "grün\n" and plain[""] is True
    assert list(kinds["ordered"].items()) == [("b", False), ("a", None)]
    assert list(kinds["module"]) == ["weight", "bias"]


def test_big_endian_storages_are_swapped(tmp_path):
    source, target = GOLDENS / "torch_archive_kinds.pt", tmp_path / "big.pt"
    sizes = [4, 2, 2, 8, 8, 4, 1, 1]  # of the storages 0 to 7, in the order of the dict; later ones are float32
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            parent, key = name.rsplit("/", 1)
            if key == "byteorder":
                assert data == b"little"
                data = b"big"
            if parent.endswith("/data"):
                size = sizes[int(key)] if int(key) < len(sizes) else 4
                data = np.frombuffer(data, f"u{size}").byteswap().tobytes()
            new.writestr(name, data)
    found, expected = tensors(torch_archive.read(target)), tensors(torch_archive.read(source))
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


KINDS = (("f2", [0.5]), ("f4", 7), ("f8", 0.1), ("i8", 2**62), ("i4", -5), ("u1", [255]), ("?", [True, False]))
VALUE = {
    "t3": {
        "speaker_emb": np.linspace(-1, 1, 256, dtype=np.float32)[None],
        "clap_emb": None,
        "tokens": np.arange(-3, 12)[None],
    },
    "views": [np.arange(12.0).reshape(3, 4).T, np.arange(20, dtype=np.int32)[::3], np.ones((2, 0, 3), np.float32)],
    "kinds": [np.array(value, dtype=kind) for kind, value in KINDS],
    "plain": ["", "grün\n\0", 0, -1, 2**31, -(2**63), 0.1, True, False, None, [], {}, [[[]]]],
}


def same(a, b, path="value"):
    if isinstance(b, np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), path
        np.testing.assert_array_equal(a, b, err_msg=path)
    elif isinstance(b, (dict, list)):
        assert type(a) is type(b) and len(a) == len(b), path
        pairs = ((k, a[k], b[k]) for k in b) if isinstance(b, dict) else ((i, x, y) for i, (x, y) in enumerate(zip(a, b)))
        assert not isinstance(b, dict) or list(a) == list(b), path
        for key, x, y in pairs:
            same(x, y, f"{path}/{key}")
    else:
        assert type(a) is type(b) and a == b, path


def test_what_is_saved_is_read_back(tmp_path):
    torch_archive.save(tmp_path / "a.pt", VALUE)
    same(torch_archive.read(tmp_path / "a.pt"), VALUE)


def test_equal_values_give_equal_files_with_aligned_storages(tmp_path):
    for name in "ab":
        torch_archive.save(tmp_path / f"{name}.pt", VALUE)
    data = (tmp_path / "a.pt").read_bytes()
    assert data == (tmp_path / "b.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        for info in archive.infolist():
            name, extra = struct.unpack_from("<HH", data, info.header_offset + 26)
            assert (info.header_offset + 30 + name + extra) % 64 == 0, info.filename


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_reads_what_is_saved(tmp_path, mmap):
    torch = pytest.importorskip("torch", reason="torch is not installed: reading our files with torch is not checked")
    torch_archive.save(tmp_path / "a.pt", VALUE)

    def plain(value):
        if isinstance(value, torch.Tensor):
            return value.numpy()
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list) else value

    loaded = torch.load(tmp_path / "a.pt", weights_only=True, mmap=mmap)
    assert loaded["views"][0].is_contiguous()
    same(plain(loaded), VALUE)


def test_tuples_are_written_as_tuples(tmp_path):
    torch_archive.save(tmp_path / "a.pt", {"a": (1, (), np.zeros(2, np.float32))})
    assert torch_archive.read(tmp_path / "a.pt")["a"][:2] == [1, []]
    torch = pytest.importorskip("torch", reason="torch is not installed: reading our files with torch is not checked")
    assert isinstance(torch.load(tmp_path / "a.pt", weights_only=True)["a"], tuple)


@pytest.mark.parametrize(
    "value, says",
    [
        ({"a": {"b": np.zeros(2, np.complex64)}}, "value['a']['b']: expected one of float32"),
        ({"a": [1, np.zeros(2, np.int16)]}, "value['a'][1]"),
        ({1: 2}, "string keys, got 1"),
        ({"a": object()}, "got object"),
        ({"a": 2**63}, "64 bits"),
        ({"a": "\ud800"}, "surrogate"),
        (np.array(["x"]), "got <U1"),
    ],
)
def test_what_cannot_be_saved_is_named_and_nothing_is_written(tmp_path, value, says):
    with pytest.raises(ArgumentError) as caught:
        torch_archive.save(tmp_path / "a.pt", value)
    assert says in str(caught.value)
    assert not os.listdir(tmp_path)


def test_a_failed_save_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    torch_archive.save(path, {"a": 1})
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    for function in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, full)
            with pytest.raises(FileError, match="a.pt: cannot be written: No space left"):
                torch_archive.save(path, {"a": 2})
        assert os.listdir(tmp_path) == ["a.pt"] and path.read_bytes() == before
    with pytest.raises(FileError):
        torch_archive.save(tmp_path / "absent" / "a.pt", {})


def test_files_that_are_no_archives_are_explained(tmp_path):
    with pytest.raises(FileError, match="absent.pt"):
        torch_archive.read(tmp_path / "absent.pt")
    with pytest.raises(CheckpointError, match="old format from before 1.6"):
        torch_archive.read(GOLDENS / "torch_archive_legacy.pt")
    for content in (b"", b"hello", b"\x80\x02}q\x00."):
        (tmp_path / "x.pt").write_bytes(content)
        with pytest.raises(CheckpointError, match="expected a zip file"):
            torch_archive.read(tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="expected a file"):
        torch_archive.read(tmp_path)
