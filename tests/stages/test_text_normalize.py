"""`text.normalize`: the official function's pairs, and both implementations against each other over all of Unicode."""

from __future__ import annotations

import importlib
import json
import sys
import unicodedata
from pathlib import Path

import pytest

from chatterbox_turbo_rs.errors import ArgumentError, TextError
from chatterbox_turbo_rs.stages.text.normalize import python, rust

PAIRS = json.loads((Path(__file__).parents[1] / "goldens/text_normalize.json").read_text())
SCALARS = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
RUST_UNICODE = (17, 0, 0)  # of the compiler in rust-toolchain.toml


@pytest.fixture(params=["python", "rust"])
def impl(request):
    return importlib.import_module(f"chatterbox_turbo_rs.stages.text.normalize.{request.param}").create(None)


def test_official_pairs(impl):
    assert len(PAIRS) == 102
    assert [pair for pair in PAIRS if impl(pair["in"]) != pair["out"]] == []


@pytest.mark.parametrize("code", [0x1C, 0x1D, 0x1E, 0x1F])
def test_information_separators_are_spaces(impl, code):
    assert impl(f"a{chr(code)}b{chr(code)}") == "A b."


def test_wrong_input(impl):
    with pytest.raises(ArgumentError, match="text: expected str, got bytes"):
        impl(b"hello")
    with pytest.raises(TextError, match=r"half a surrogate pair \(U\+D83D\) at 2"):
        impl("hi\ud83d")


@pytest.mark.skipif(
    tuple(map(int, unicodedata.unidata_version.split("."))) > RUST_UNICODE,
    reason="the interpreter's Unicode is newer than Rust's",
)
@pytest.mark.parametrize("form", ["{}", "{}bc", "a{}c", "ab{}"])
def test_implementations_agree_on_every_character(form):
    differ = [c for c in SCALARS if python.normalize(form.format(c)) != rust.normalize(form.format(c))]
    assert [f"U+{ord(c):04X}" for c in differ] == []


def test_letters_newer_than_the_interpreter_stay():
    """What Rust alone would raise and this interpreter does not is exactly what later versions of Unicode added."""
    from chatterbox_turbo_rs import _core

    differ = [c for c in SCALARS if _core.text_normalize(c) != python.normalize(c)]
    raised_later = {13: 95, 14: 55, 15: 55, 16: 28, 17: 0}
    assert len(differ) == raised_later[int(unicodedata.unidata_version.split(".")[0])]
