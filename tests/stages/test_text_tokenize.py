"""`text.tokenize`: the ids of the official tokenizer, truncation, damaged vocabularies, the base model's tokenizer.json."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from chatterbox_turbo_rs.checkpoint.resources import Resources
from chatterbox_turbo_rs.errors import ArgumentError, CheckpointError, TextError, TruncationWarning

TESTS = Path(__file__).parents[1]
VOCABULARY = TESTS / "data/tokenizer"
GOLDEN = json.loads((TESTS / "goldens/text_tokenize.json").read_text())
CONFIG = json.loads((TESTS.parent / "python/chatterbox_turbo_rs/config/turbo.json").read_text())


@pytest.fixture(params=["python", "rust"])
def impl(request):
    return module(request.param)


def module(name):
    return importlib.import_module(f"chatterbox_turbo_rs.stages.text.tokenize.{name}")


def load(impl, directory=VOCABULARY, **options):
    return impl.create(Resources(directory, CONFIG, options=options))


def test_official_ids(impl):
    tokenize = load(impl)
    assert len(GOLDEN["short"]) >= 200
    for text, ids in GOLDEN["short"]:
        found = tokenize(text)
        assert found.dtype == np.int64 and found.tolist() == ids, text


def test_official_truncation(impl):
    tokenize = load(impl)
    cut = 0
    for piece, count, ids in GOLDEN["long"]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert tokenize(piece * count).tolist() == ids
        cut += len(caught)
        assert len(ids) == 1024 or not caught
    assert cut == 5


@pytest.mark.parametrize(
    ("text", "tokens", "characters"),
    [
        ("[laugh]" * 1025, 1025, 7 * 1024),
        (" hello" * 2000, 2000, 6 * 1024),
        ("é" * 1023 + " 😀 a", 1026, 1025),
        ("a😀" * 600, None, 1024 // 3 * 2 + 1),
    ],
)
def test_truncation_says_where(impl, text, tokens, characters):
    with pytest.warns(TruncationWarning) as caught:
        assert len(load(impl)(text)) == 1024
    message = str(caught[0].message)
    got, spoken = map(
        int, re.search(r"expected at most 1024 tokens, got (\d+): only its first (\d+) characters", message).groups()
    )
    assert tokens in (None, got) and spoken == characters, message


def test_implementations_agree_on_every_character():
    """All planes with assigned characters, and every 61st of the others (unassigned and private use)."""
    python, rust = load(module("python")), load(module("rust"))
    codes = [*range(0xD800), *range(0xE000, 0x33480), *range(0xE0000, 0xE0200), *range(0x33480, sys.maxunicode + 1, 61)]
    differ = []
    for start in range(0, len(codes), 64):
        # A letter, a space and a digit around each character show how the text is split before the merges.
        pieces = [f"{chr(code)}a {chr(code)}1" for code in codes[start : start + 64]]
        if not equal(python, rust, "".join(pieces)):
            differ += [f"U+{ord(piece[0]):04X}" for piece in pieces if not equal(python, rust, piece)]
    assert differ == []


def equal(python, rust, text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        return np.array_equal(python(text), rust(text))


def test_wrong_input(impl):
    with pytest.raises(ArgumentError, match="text: expected str, got NoneType"):
        load(impl)(None)
    with pytest.raises(TextError, match="half a surrogate pair"):
        load(impl)("\udc00")


def rewrite(name, change):
    def damage(directory):
        file = directory / name
        file.write_bytes(change(file.read_bytes()))

    return damage


DAMAGES = {
    "no vocab": (lambda d: (d / "vocab.json").unlink(), "vocab.json: expected a vocabulary file, found no such file"),
    "no merges": (lambda d: (d / "merges.txt").unlink(), "merges.txt: expected a vocabulary file, found no such file"),
    "no tags": (lambda d: (d / "added_tokens.json").unlink(), "added_tokens.json: expected a vocabulary file, found no such file"),
    "short vocab": (rewrite("vocab.json", lambda b: b[:5000]), "vocab.json: expected a JSON object of token: id, found"),
    "no object": (rewrite("vocab.json", lambda b: b"[1]"), "vocab.json: expected a JSON object of token: id, found"),
    "text as id": (rewrite("vocab.json", lambda b: b.replace(b'"!": 0', b'"!": "0"')), "vocab.json: expected a JSON object of token: id"),
    "no utf-8": (rewrite("vocab.json", lambda b: b[:100] + b"\xff" + b[101:]), "vocab.json: expected UTF-8, found another byte at 100"),
    "id gap": (rewrite("vocab.json", lambda b: b.replace(b'"!": 0', b'"!": 99999')), "vocab.json: expected each id from 0 to 50256 once, found no token for 0"),
    "no byte": (rewrite("vocab.json", lambda b: b.replace(b'"!": 0', b'"!x!": 0')), "vocab.json: expected all 256 byte symbols, 1 are missing"),
    "no end": (rewrite("vocab.json", lambda b: b.replace(b"<|endoftext|>", b"<|end|>")), "vocab.json: expected the token <|endoftext|>, found none"),
    "short merges": (rewrite("merges.txt", lambda b: b[: b.rindex(b"\n", 0, -1) + 1]), "merges.txt: expected a merge for every longer token of vocab.json, found none for 1 (first: "),
    "bad merge": (rewrite("merges.txt", lambda b: b.replace(b"\nh e\n", b"\nhe\n")), "merges.txt: line 4: expected two tokens of vocab.json that make a third, found"),
    "one tag less": (rewrite("added_tokens.json", lambda b: b.replace(b', "[laugh]": 50275', b"")), "vocab.json: expected text.vocab_size = 50276 tokens together with added_tokens.json, found 50257 + 18 = 50275"),
    "tag gap": (rewrite("added_tokens.json", lambda b: b.replace(b"50260", b"60260")), "added_tokens.json: expected each id from 50257 to 50275 once, found no token for 50260"),
    "known tag": (rewrite("added_tokens.json", lambda b: b.replace(b"[angry]", b"hello")), "added_tokens.json: expected tokens that are not in vocab.json, found"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_vocabulary(impl, tmp_path, damage):
    act, message = DAMAGES[damage]
    for file in ("vocab.json", "merges.txt", "added_tokens.json"):
        shutil.copy(VOCABULARY / file, tmp_path / file)
    load(impl, tmp_path)
    act(tmp_path)
    with pytest.raises(CheckpointError, match=re.escape(message)):
        load(impl, tmp_path)


def base_tokenizer(path, special=("[START]", "[STOP]", "[UNK]", "[SPACE]")):
    """A small tokenizer.json in the base model's form: symbols of one character, whitespace split, special tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    symbols = [*special, *"abcdefghijklmnopqrstuvwxyz.,!é"]
    tokenizer = Tokenizer(
        models.BPE(vocab={s: i for i, s in enumerate([*symbols, "he", "ll"])}, merges=[("h", "e"), ("l", "l")], unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(special))
    tokenizer.save(str(path))
    return tokenizer


def test_base_tokenizer_reads_spaces_as_the_base_model_does(impl, tmp_path):
    official = base_tokenizer(tmp_path / "tokenizer.json")
    tokenize = load(impl, tokenizer=tmp_path / "tokenizer.json")
    for text in ["hello there.", " a  b ", "hé!", "", "[SPACE] x", "Q?"]:
        # EnTokenizer.encode of the official package
        assert tokenize(text).tolist() == official.encode(text.replace(" ", "[SPACE]")).ids, text
    with pytest.warns(TruncationWarning, match="got 2200: only its first 1024 characters"):
        assert len(tokenize("b " * 1100)) == 1024


def test_wrong_base_tokenizer(impl, tmp_path):
    file = tmp_path / "tokenizer.json"
    with pytest.raises(CheckpointError, match="tokenizer.json: expected a vocabulary file, found no such file"):
        load(impl, tokenizer=file)
    file.write_text('{"version": "1.0"}')
    with pytest.raises(CheckpointError, match="tokenizer.json: expected a tokenizer.json, found another text"):
        load(impl, tokenizer=file)
    base_tokenizer(file, special=("[START]", "[STOP]", "[UNK]"))
    with pytest.raises(CheckpointError, match=r"expected the base model's vocabulary with \[SPACE\], found none"):
        load(impl, tokenizer=file)
    base_tokenizer(file)
    small = {**CONFIG, "text": {**CONFIG["text"], "vocab_size": 10}}
    with pytest.raises(CheckpointError, match="expected ids below text.vocab_size = 10, found 35"):
        impl.create(Resources(VOCABULARY, small, options={"tokenizer": file}))
