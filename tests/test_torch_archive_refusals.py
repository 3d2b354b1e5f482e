"""Archives made to harm: each is refused with the reason, and nothing of them runs."""

from __future__ import annotations

import io
import pickle
import random
import struct
import zipfile
from pathlib import Path

import pytest

from chatterbox_turbo_rs.checkpoint import torch_archive
from chatterbox_turbo_rs.errors import CheckpointError

GOLDENS = Path(__file__).parent / "goldens"
MARKER = "it_ran"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def archive(program: bytes, entries: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in {"data.pkl": program, "version": b"3\n", **(entries or {})}.items():
            file.writestr(f"archive/{name}", data)
    return buffer.getvalue()


def storage(kind: str = "FloatStorage", key: bytes = text("0"), size: bytes = b"K\x04") -> bytes:
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + key + text("cpu") + size + b"tQ"


def tensor(
    shape: bytes = b"K\x04\x85", stride: bytes = b"K\x01\x85", offset: bytes = b"K\x00", store: bytes | None = None
) -> bytes:
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + (store or storage()) + offset + shape + stride + b"\x89}tR"


def integer(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


DATA = {"data/0": bytes(16)}
SHELL = text(f"touch {MARKER}")


class Reduce:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


CODE = {
    "os.system": (b"cposix\nsystem\n(" + SHELL + b"tR", "global posix.system is not allowed"),
    "os.system by name": (b"cos\nsystem\n(" + SHELL + b"tR", "global os.system"),
    "eval": (b"cbuiltins\neval\n(" + text(f"open('{MARKER}', 'w')") + b"tR", "global builtins.eval"),
    "python 2 eval": (b"c__builtin__\neval\n(" + text("1") + b"tR", "global __builtin__.eval"),
    "getattr chain": (b"cbuiltins\ngetattr\n(cos\n__dict__\n" + text("system") + b"tR", "global builtins.getattr"),
    "subprocess": (b"csubprocess\nPopen\n(" + SHELL + b"tR", "global subprocess.Popen"),
    "dotted global": (b"ctorch\nFloatStorage.from_file\n(" + text("/etc/passwd") + b"tR", "torch.FloatStorage.from_file"),
    "dotted class": (b"ccollections\nOrderedDict.__class__\n", "global collections.OrderedDict.__class__"),
    "submodule": (b"ccollections.abc\nOrderedDict\n", "global collections.abc.OrderedDict"),
    "torch.load": (b"ctorch\nload\n(" + text("x") + b"tR", "global torch.load"),
    "nested load": (b"ctorch.storage\n_load_from_bytes\n", "torch.storage._load_from_bytes"),
    "hub": (b"ctorch.hub\nload\n", "global torch.hub.load"),
    "other dtype": (storage("ComplexFloatStorage"), "global torch.ComplexFloatStorage"),
    "STACK_GLOBAL": (text("os") + text("system") + b"\x93(" + SHELL + b"tR", "opcode STACK_GLOBAL is not allowed"),
    "STACK_GLOBAL of an allowed name": (text("collections") + text("OrderedDict") + b"\x93)R", "opcode STACK_GLOBAL"),
    "INST": (b"(S'touch it_ran'\nios\nsystem\n", "opcode STRING"),
    "INST without arguments": (b"(ios\nsystem\n", "opcode INST"),
    "OBJ": (b"(ccollections\nOrderedDict\no", "opcode OBJ"),
    "NEWOBJ": (b"ccollections\nOrderedDict\n)\x81", "opcode NEWOBJ"),
    "NEWOBJ_EX": (b"ccollections\nOrderedDict\n)}\x92", "opcode NEWOBJ_EX"),
    "EXT1": (b"\x82\x01)R", "opcode EXT1"),
    "FRAME": (b"\x95" + bytes(8) + b"}", "opcode FRAME"),
    "bytes": (b"C\x01a", "opcode SHORT_BINBYTES"),
    "unknown opcode": (b"\xff", "opcode 0xff"),
    "second PROTO": (b"\x80\x04}", "opcode PROTO"),
    "textual persistent id": (b"Pstorage\n", "opcode PERSID"),
    "persistent id: string": (text("file:///etc/passwd") + b"Q", "persistent id: expected"),
    "persistent id: module": (b"(" + text("module") + text("os") + text("x") + text("y") + b"tQ", "4 parts"),
    "persistent id: other tag": (storage().replace(b"storage", b"package", 1), "persistent id: expected"),
    "persistent id: class": (storage().replace(b"torch\nFloatStorage", b"collections\nOrderedDict"), "collections.OrderedDict"),
    "call of a storage class": (b"ctorch\nFloatStorage\n(" + text("/etc/passwd") + b"tR", "calling a storage class"),
    "call of a string": (text("system") + b")R", "calling a string"),
    "OrderedDict of something": (b"ccollections\nOrderedDict\n(]tR", "OrderedDict with arguments"),
    "arguments are a list": (b"ccollections\nOrderedDict\n]R", "expected a tuple of arguments"),
    "BUILD of a dict": (b"}}b", "BUILD of a dict is not allowed"),
    "BUILD of a class": (b"ccollections\nOrderedDict\n}b", "BUILD of collections.OrderedDict"),
    "BUILD with a list": (b"ccollections\nOrderedDict\n)R]b", "BUILD with a list"),
    "BUILD of a tensor": (tensor() + b"}b", "BUILD of a tensor"),
    "backward hooks": (tensor().replace(b"\x89}tR", b"\x89}" + text("a") + b"NstR"), "backward hooks"),
    "class as value": (b"ccollections\nOrderedDict\n", "collections.OrderedDict stands where a value"),
    "storage as value": (storage(), "a storage stands where a value"),
    "SETITEM on a list": (b"]" + text("a") + b"Ns", "SETITEM on a list"),
    "APPEND to a dict": (b"}Na", "APPEND to a dict"),
    "integer key": (b"}K\x01Ns", "a dict's key is an integer"),
    "tuple key": (b"})Ns", "a dict's key is a tuple"),
    "memo never stored": (b"h\x07", "memo 7 was never stored"),
    "empty stack": (b"a", "the stack is empty"),
    "pop below a mark": (b"](Na", "the stack is empty"),
    "no mark": (b"]e", "there is no MARK"),
    "odd items": (b"}(Nu", "a key without a value"),
    "nothing": (b"", "expected one object"),
    "two objects": (b"NN", "expected one object at the end, found 2"),
    "open mark": (b"N(", "expected one object"),
    "not UTF-8": (b"X\x01\0\0\0\xff", "not UTF-8"),
    "huge integer": (b"\x8a\x09" + bytes(9), "9 bytes is not allowed"),
    "string beyond the end": (b"X\xff\xff\xff\xff", "truncated"),
    "endless global": (b"c" + b"a" * 100, "truncated"),
}

# each list holds the one before it twice
SHARED = b"(]q\0" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(40)) + b"t"
SIZES = {
    "storage of 2^40 values": (tensor(store=storage(size=integer(2**40))), "bytes declared"),
    "storage of 2^63 - 1 values": (tensor(store=storage(size=integer(2**63 - 1))), "bytes declared"),
    "storage of -1 values": (tensor(store=storage(size=b"J\xff\xff\xff\xff")), "expected a size, found -1"),
    "storage is longer": (tensor(store=storage(size=b"K\x03")), "12 bytes declared (3 FloatStorage), 16 stored"),
    "storage is missing": (tensor(store=storage(key=text("1"))), "entry data/1 is missing"),
    "storage outside of data": (tensor(store=storage(key=text("../version"))), "entry data/../version is missing"),
    "shape beyond the storage": (tensor(b"K\x05\x85"), "reaches beyond its storage of 4 values"),
    "offset beyond the storage": (tensor(offset=b"K\x01"), "reaches beyond"),
    "stride beyond the storage": (tensor(b"K\x02\x85", b"K\x04\x85"), "reaches beyond"),
    "huge offset": (tensor(offset=integer(2**63 - 1)), "reaches beyond"),
    "huge stride": (tensor(b"K\x02\x85", integer(2**63 - 1) + b"\x85"), "reaches beyond"),
    "product overflows": (tensor(integer(2**62) + integer(2**62) + b"\x86", b"K\x00K\x00\x86"), "too large"),
    "2^40 copies of one value": (tensor(integer(2**40) + b"\x85", b"K\x00\x85"), "more memory"),
    "2^62 copies of one value": (tensor(integer(2**62) + b"\x85", b"K\x00\x85"), "more memory"),
    "negative shape": (tensor(b"J\xff\xff\xff\xff\x85"), "expected a size, found -1"),
    "negative stride": (tensor(b"K\x04\x85", b"J\xff\xff\xff\xff\x85"), "expected a size, found -1"),
    "shape of strings": (tensor(text("a") + b"\x85"), "expected a size, found a string"),
    "shape is a list": (tensor(b"]"), "expected a tuple of sizes"),
    "shape and stride differ": (tensor(b"K\x02K\x02\x86"), "differ in length"),
    "many axes": (tensor(b"(" + b"K\x01" * 65 + b"t", b"(" + b"K\x01" * 65 + b"t"), "at most 64 axes"),
    "few arguments": (b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage() + b"tR", "expected 6 arguments, found 1"),
    "tensor of a string": (tensor(store=text("0")), "expected a storage, found a string"),
    "list in itself": (b"]q\0h\0a", "nested deeper than 64"),
    "dict in itself": (b"}q\0" + text("a") + b"h\0s", "nested deeper than 64"),
    "deep": (b"]" * 1000 + b"a" * 999, "nested deeper than 64"),
    "2^40 shared lists": (SHARED, "more than 1048576 values"),
    "a long key, many times": (text("k" * 2000) + b"q\0}h\0Ns", "at most 1024"),
    "a long string, many times": (b"(" + text("s" * 100_000) + b"q\0" + b"h\0" * 5000 + b"t", "more memory"),
}


@pytest.fixture(autouse=True)
def nothing_ran(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / MARKER).exists(), "code of the archive ran"


def refused(content: bytes, says: str) -> None:
    Path("evil.pt").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        torch_archive.read("evil.pt")
    assert says in str(caught.value) and "evil.pt" in str(caught.value), str(caught.value)


@pytest.mark.parametrize("name", CODE)
def test_what_is_not_data_is_refused_by_name(name):
    program, says = CODE[name]
    refused(archive(b"\x80\x02" + program + b".", DATA), says)


@pytest.mark.parametrize("name", SIZES)
def test_declared_sizes_are_checked(name):
    program, says = SIZES[name]
    refused(archive(b"\x80\x02" + program + b".", DATA), says)


def test_the_attack_would_have_worked_on_pickle():
    # so that the marker of these tests is known to be able to appear
    import os

    program = pickle.dumps(Reduce(os.system, "touch it_would_have_run"), 2)
    pickle.loads(program)
    assert Path("it_would_have_run").exists()
    refused(archive(program.replace(b"it_would_have_run", b"it_ran_through_us")), "system is not allowed")
    assert not Path("it_ran_through_us").exists()


@pytest.mark.parametrize("protocol", [0, 1, 3, 4, 5])
def test_other_protocols_are_refused(protocol):
    says = "expected a pickle" if protocol < 2 else f"pickle protocol {protocol}"
    refused(archive(pickle.dumps({"a": [1, 2.0]}, protocol)), says)


def test_the_frame_of_these_tests_is_valid():
    Path("good.pt").write_bytes(archive(b"\x80\x02" + tensor() + b".", DATA))
    assert torch_archive.read("good.pt").tolist() == [0, 0, 0, 0]


def test_the_container_is_checked():
    good = b"\x80\x02" + tensor() + b"."
    refused(archive(good, {"data/0": bytes(16)}, zipfile.ZIP_DEFLATED), "compressed")
    refused(archive(good + b"x", DATA), "1 bytes follow")
    refused(archive(good, {**DATA, "byteorder": b"middle"}), "byteorder: expected little or big")
    refused(archive(b"\x80\x02N." + bytes(5 << 20)), "data.pkl: expected at most")
    other = archive(good, DATA).replace(b"archive/data.pkl", b"archive/data.txt")
    refused(other, "expected one entry <name>/data.pkl, found 0")
    two = io.BytesIO(archive(good, DATA))
    with zipfile.ZipFile(two, "a") as file:
        file.writestr("other/data.pkl", good)
    refused(two.getvalue(), "found 2")


def test_overlapping_entries_are_refused():
    # every entry of the directory points at the same megabyte
    content = bytearray(archive(b"\x80\x02N.", {f"data/{i:03}": bytes([i]) * (1 << 20 if i == 0 else 1) for i in range(50)}))
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        first = next(i for i in file.infolist() if i.filename.endswith("data/000"))
        at = content.index(b"PK\x01\x02", file.start_dir)
    while content[at : at + 4] == b"PK\x01\x02":
        name, extra, comment = struct.unpack_from("<HHH", content, at + 28)
        if b"data/0" in content[at + 46 : at + 46 + name]:
            struct.pack_into("<III", content, at + 16, first.CRC, first.file_size, first.file_size)
            struct.pack_into("<I", content, at + 42, first.header_offset)
        at += 46 + name + extra + comment
    refused(bytes(content), "the entries declare")


def test_damage_is_found_by_the_checksum():
    good = archive(b"\x80\x02" + tensor() + b".", {"data/0": b"0123456789abcdef"})
    refused(good.replace(b"0123456789abcdef", b"0123456789abcdeF"), "entry data/0 is damaged")


def test_every_truncation_is_refused():
    good = (GOLDENS / "torch_archive_kinds.pt").read_bytes()
    for length in [*range(0, 600), *range(600, len(good), 131), len(good) - 1]:
        refused(good[:length], "")
    program = b"\x80\x02" + tensor() + b"."
    for length in range(len(program)):
        refused(archive(program[:length], DATA), "data.pkl")


def test_random_damage_gives_an_error_or_data_never_a_crash():
    draw = random.Random(3)
    with zipfile.ZipFile(GOLDENS / "torch_archive_kinds.pt") as file:
        entries = {name.split("/", 1)[1]: file.read(name) for name in file.namelist()}
    program = entries.pop("data.pkl")
    outcomes = set()
    for _ in range(3000):
        damaged = bytearray(program)
        for _ in range(draw.choice([1, 1, 2, 5])):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        Path("x.pt").write_bytes(archive(bytes(damaged), entries))
        try:
            torch_archive.read("x.pt")
            outcomes.add("data")
        except CheckpointError:
            outcomes.add("error")
    assert outcomes == {"data", "error"}
    whole = (GOLDENS / "torch_archive_kinds.pt").read_bytes()
    for _ in range(1000):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        Path("x.pt").write_bytes(damaged)
        try:
            torch_archive.read("x.pt")
        except CheckpointError:
            pass
