"""``TensorFile``: values as safetensors itself reads them, and every damaged file refused by Python and by Rust."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from chatterbox_turbo_rs import _core
from chatterbox_turbo_rs.checkpoint.tensor_file import TensorFile
from chatterbox_turbo_rs.errors import CheckpointError, FileError


def file(header: Any, data: bytes = bytes(16)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype: Any = "F32", shape: Any = (2, 2), offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape, "data_offsets": list(offsets)}


GOOD = file({"a": tensor()})
BAD = {
    "nothing": b"",
    "less than a length": GOOD[:7],
    "only a length": GOOD[:8],
    "half a header": GOOD[:30],
    "no data": GOOD[:-16],
    "a byte too few": GOOD[:-1],
    "a byte too many": GOOD + b"\0",
    "a header of 2^64 - 1 bytes": struct.pack("<Q", 2**64 - 1) + GOOD[8:],
    "a header longer than the file": struct.pack("<Q", len(GOOD)) + GOOD[8:],
    "a header of nothing": struct.pack("<Q", 0) + GOOD[8:],
    "no JSON": file(b"{a"),
    "no UTF-8": file(b'{"\xff": 1}'),
    "a list": file([1]),
    "brackets without end": file(b"[" * 50_000),
    "an entry that is a list": file({"a": [1, 2]}),
    "no dtype": file({"a": {"shape": [2, 2], "data_offsets": [0, 16]}}),
    "an unknown dtype": file({"a": tensor("F31")}),
    "a dtype that is a number": file({"a": tensor(32)}),
    "metadata that is no text": file({"a": tensor(), "__metadata__": {"a": 1}}),
    "a negative size": file({"a": tensor(shape=(-2, -2))}),
    "a size with a point": file({"a": tensor(shape=(2.0, 2))}),
    "a shape that is a number": file({"a": tensor(shape=4)}),
    "negative offsets": file({"a": tensor(offsets=(-16, 0))}),
    "offsets behind the end": file({"a": tensor(offsets=(16, 32))}),
    "offsets far behind the end": file({"a": tensor(offsets=(2**63, 2**63 + 16))}),
    "offsets the wrong way round": file({"a": tensor(offsets=(16, 0))}),
    "three offsets": file({"a": tensor(offsets=(0, 8, 16))}),
    "a shape that needs more": file({"a": tensor(shape=(2, 3))}),
    "a shape that needs less": file({"a": tensor(shape=(3,))}),
    "a shape that overflows": file({"a": tensor(shape=(2**32, 2**32))}),
    "a shape that overflows to its size": file({"a": tensor(shape=(2**62, 2, 2**62, 4))}),
    "data that two tensors share": file({"a": tensor(), "b": tensor()}),
    "data that overlaps": file({"a": tensor(shape=(3,), offsets=(0, 12)), "b": tensor(shape=(3,), offsets=(4, 16))}),
    "a hole before": file({"a": tensor(shape=(2,), offsets=(8, 16))}),
    "a hole between": file({"a": tensor(shape=(1,), offsets=(0, 4)), "b": tensor(shape=(1,), offsets=(12, 16))}),
}


def python(directory: Path) -> None:
    TensorFile(directory / "ve.safetensors")


def rust(directory: Path) -> None:
    _core.Checkpoint(str(directory), (directory / "config.json").read_text())


@pytest.fixture
def directory(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    for name in ("config.json", "ve.safetensors", "t3_turbo_v1.safetensors", "s3gen_meanflow.safetensors"):
        shutil.copy(tiny_checkpoint / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("side", [python, rust])
@pytest.mark.parametrize("case", BAD)
def test_damaged_files_are_refused(directory: Path, side: Any, case: str) -> None:
    path = directory / "ve.safetensors"
    path.write_bytes(GOOD)
    side(directory)
    path.write_bytes(BAD[case])
    with pytest.raises(CheckpointError) as caught:
        side(directory)
    assert str(path) in str(caught.value) and "not a complete safetensors file" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tensor_twice_in_the_header(directory: Path) -> None:
    entry = json.dumps(tensor())
    path = directory / "ve.safetensors"
    path.write_bytes(file(f'{{"a": {entry}, "a": {entry}}}'.encode()))
    with pytest.raises(CheckpointError, match="a stands in the header twice"):
        python(directory)


@pytest.mark.parametrize("side", [python, rust])
def test_files_that_cannot_be_opened(directory: Path, side: Any) -> None:
    (directory / "ve.safetensors").unlink()
    with pytest.raises(FileError, match=r"ve.safetensors: No such file"):
        side(directory)
    (directory / "ve.safetensors").mkdir()
    with pytest.raises((FileError, CheckpointError), match=r"ve.safetensors: "):
        side(directory)


def test_a_path_that_no_system_takes() -> None:
    with pytest.raises(FileError, match="null"):
        TensorFile("a\0b")


def test_values_are_those_that_safetensors_reads(tmp_path: Path, tiny_checkpoint: Path) -> None:
    for path in tiny_checkpoint.glob("*.safetensors"):
        expected, found = load_file(path), TensorFile(path)
        assert found.names() == sorted(expected)
        for name, array in expected.items():
            value = found.get(name, array.shape)
            np.testing.assert_array_equal(value, array, strict=array.dtype == np.float32, err_msg=name)
            assert value.flags.c_contiguous and value.flags.writeable


def test_every_dtype_that_stages_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    arrays = {
        "f32": rng.standard_normal((3, 5)).astype(np.float32),
        "f16": rng.standard_normal((3, 5)).astype(np.float16),
        "small": np.array([6e-8, -6e-8, 65504, 0, -0.0], np.float16),
        "i64": np.array([[-(2**62), 7]]),
        "i32": np.array([-(2**31), 7], np.int32),
        "scalar": np.array(7, np.int64),
        "none": np.zeros((0, 4), np.float32),
    }
    save_file(arrays, tmp_path / "a.safetensors", {"format": "1"})
    found = TensorFile(tmp_path / "a.safetensors")
    assert found.metadata == {"format": "1"}
    for name, array in arrays.items():
        value = found.get(name, array.shape)
        assert value.dtype == (np.float32 if array.dtype.kind == "f" else np.int64), name
        assert value.shape == array.shape, name
        np.testing.assert_array_equal(value, array, err_msg=name)
        assert found.dtype(name) == array.dtype.name.replace("float", "F").replace("int", "I"), name
    value = found.get("f32")
    value[:] = 0
    np.testing.assert_array_equal(found.get("f32"), arrays["f32"])


def test_bfloat16_is_the_upper_half_of_float32(tmp_path: Path) -> None:
    numbers = np.array([[1.0, -2.5, 3.140625], [1e-38, 3.3895314e38, -0.0]], np.float32)
    bits = (numbers.view(np.uint32) >> 16).astype("<u2")
    for padding in (0, 1, 2, 3):  # data need not be aligned
        text = json.dumps({"a": tensor("BF16", (2, 3), (0, 12))}).encode()
        (tmp_path / "a.safetensors").write_bytes(file(text + b" " * padding, bits.tobytes()))
        found = TensorFile(tmp_path / "a.safetensors").get("a")
        np.testing.assert_array_equal(found.view(np.uint32), bits.astype(np.uint32) << 16)


def test_tensors_that_are_refused(tmp_path: Path) -> None:
    arrays = {"a": np.zeros((2, 3), np.float32), "nan": np.array([np.nan], np.float32), "inf": np.array([-np.inf], np.float16)}
    save_file({**arrays, "bytes": np.zeros(4, np.uint8)}, tmp_path / "a.safetensors")
    found = TensorFile(tmp_path / "a.safetensors")
    for name, shape, says in [
        ("b", None, "tensor b is missing"),
        ("a", (3, 2), r"tensor a: expected shape \[3, 2\], found \[2, 3\]"),
        ("a", (6,), r"tensor a: expected shape \[6\], found \[2, 3\]"),
        ("nan", None, "tensor nan: expected finite numbers"),
        ("inf", None, "tensor inf: expected finite numbers"),
        ("bytes", None, "tensor bytes: expected dtype F32, F16, BF16, I64, I32, found U8"),
    ]:
        with pytest.raises(CheckpointError, match=f"a.safetensors: {says}"):
            found.get(name, shape)
