"""Voices: saved and read back, upstream's conds.pt both ways, and everything that does not fit refused by name."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from toy_model import TOY

from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.checkpoint import conds_pt, config, torch_archive
from chatterbox_turbo_rs.checkpoint.fingerprint import Fingerprint
from chatterbox_turbo_rs.checkpoint.resources import Resources
from chatterbox_turbo_rs.errors import ArgumentError, FileError, VoiceError
from chatterbox_turbo_rs.tts_turbo import Conditionals
from chatterbox_turbo_rs.voice import ENDINGS, KIND, Voice, describe, is_voice_file, show

ARRAYS = ("speaker_embedding", "t3_prompt_tokens", "s3gen_prompt_tokens", "s3gen_prompt_mel", "xvector")
NAMES = {"t3": ["speaker_emb", "clap_emb", "cond_prompt_speech_tokens", "cond_prompt_speech_emb", "emotion_adv"]}
NAMES["gen"] = ["prompt_token", "prompt_token_len", "prompt_feat", "prompt_feat_len", "embedding"]


@pytest.fixture(params=["conds_fresh", "conds_used"])
def conds(request: Any, goldens: Path) -> Path:
    """Files that upstream's ``Conditionals.save`` wrote with torch: before and after an utterance."""
    return goldens / f"{request.param}.pt"


@pytest.fixture
def voice(goldens: Path) -> Voice:
    return dataclasses.replace(Voice.load(goldens / "conds_fresh.pt"), metadata={"checkpoint": "c" * 64, "source": "ä"})


@pytest.fixture
def model(tiny_checkpoint: Path) -> tuple[dict[str, Any], Fingerprint]:
    settings = config.read(tiny_checkpoint / "config.json")
    return settings, Fingerprint.of(Resources(tiny_checkpoint, settings))


def same(found: Voice, expected: Voice) -> None:
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), strict=True, err_msg=name)


def test_what_is_saved_is_read_back(tmp_path: Path, voice: Voice) -> None:
    voice.save(tmp_path / "a.safetensors")
    found = Voice.load(tmp_path / "a.safetensors")
    same(found, voice)
    assert found.metadata == voice.metadata
    again = pickle.loads(pickle.dumps(found))
    same(again, voice)
    assert show(found)["arrays"]["s3gen_prompt_mel"] == ["float32", 250, 80]
    assert json.loads(json.dumps(show(found)))["metadata"] == dict(voice.metadata)


def test_metadata_cannot_make_it_another_kind_of_file(tmp_path: Path, voice: Voice) -> None:
    dataclasses.replace(voice, metadata={"kind": "x", "format": "9", "more": "y"}).save(tmp_path / "a.safetensors")
    assert Voice.load(tmp_path / "a.safetensors").metadata == {"more": "y"}
    with pytest.raises(VoiceError, match="metadata: expected a map from text to text"):
        dataclasses.replace(voice, metadata={"seconds": 5})


def test_a_voice_does_not_change(voice: Voice) -> None:
    mel = np.array(voice.s3gen_prompt_mel)
    own = dataclasses.replace(voice, s3gen_prompt_mel=mel)
    mel[:] = 0
    same(own, voice)
    with pytest.raises(ValueError, match="read-only"):
        own.xvector[0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        own.xvector = own.xvector  # type: ignore[misc]


def test_what_is_made_now_says_so(model: Any) -> None:
    made = describe(model[1], np.zeros(3, np.float32))
    hexadecimal = re.compile("[0-9a-f]{64}")
    assert set(made) == {"voice_encoder", "s3tokenizer", "speaker_encoder", "prompt_mel", "source", "version"}
    assert all(hexadecimal.fullmatch(value) for name, value in made.items() if name != "version")
    assert re.match(r"\d+\.\d+", made["version"])
    assert describe(model[1], np.ones(3, np.float32))["source"] != made["source"]


@pytest.mark.parametrize("name", ["bob.safetensors", "BOB.SAFETENSORS", "bob.pt", "bob.PT", "bob.pth", "a.b.Pth"])
def test_what_save_accepts_is_a_voice_everywhere(tmp_path: Path, toy: ChatterboxTurbo, name: str) -> None:
    """``Voice.load``, ``generate(voice=…)`` and the command's ``--voice`` read what ``save`` wrote, whatever the case of its ending."""
    from chatterbox_turbo_rs.cli.main import main

    voice = toy.builtin_voice
    assert voice is not None
    path = tmp_path / name
    assert voice.save(str(path)) == path
    same(Voice.load(path), voice)
    expected = toy.generate("Hi.", seed=1, max_tokens=2, watermark=None).samples
    for given in (path, str(path)):
        spoken = toy.generate("Hi.", voice=given, seed=1, max_tokens=2, watermark=None)
        np.testing.assert_array_equal(spoken.samples, expected)
    arguments = [
        "say",
        "Hi.",
        "--model",
        TOY,
        "--voice",
        str(path),
        "--max-tokens",
        "2",
        "--watermark",
        "none",
        "-o",
        str(tmp_path / "a.wav"),
    ]
    assert main(arguments) == 0


@pytest.mark.parametrize("name", ["bob", "bob.wav", "bob.npz", "bob.safetensors.bak", ".pt", "safetensors"])
def test_other_endings_are_refused_before_anything_is_written(tmp_path: Path, voice: Voice, name: str) -> None:
    assert not is_voice_file(name)
    with pytest.raises(ArgumentError, match=f"{name}: expected a name ending in {', '.join(ENDINGS)}, got"):
        voice.save(tmp_path / name)
    with pytest.raises(ArgumentError, match="path: expected str or os.PathLike, got int"):
        voice.save(5)  # type: ignore[arg-type]
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_a_url_is_no_voice_file(name: str) -> None:
    with pytest.raises(FileError, match=f"^https://example.com/{name}: expected a file, got a URL; download it first"):
        Voice.load(f"https://example.com/{name}")


def test_saved_conds_are_what_torch_reads(tmp_path: Path, voice: Voice) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: upstream reads conds.pt with it")
    content = torch.load(voice.save(tmp_path / "a.pt"), weights_only=True)
    assert {section: list(entries) for section, entries in content.items()} == NAMES
    np.testing.assert_array_equal(content["gen"]["prompt_feat"].numpy()[0], voice.s3gen_prompt_mel)
    np.testing.assert_array_equal(content["t3"]["cond_prompt_speech_tokens"].numpy()[0], voice.t3_prompt_tokens)


def test_conds_of_upstream_are_read(conds: Path, model: Any) -> None:
    voice, content = Voice.load(conds), torch_archive.read(conds)
    assert [array.shape for array in (getattr(voice, name) for name in ARRAYS)] == [(32,), (126,), (125,), (250, 80), (192,)]
    assert voice.s3gen_prompt_tokens.dtype == np.int64 and voice.speaker_embedding.dtype == np.float32
    np.testing.assert_array_equal(voice.s3gen_prompt_mel, content["gen"]["prompt_feat"][0])
    np.testing.assert_array_equal(voice.s3gen_prompt_tokens, content["gen"]["prompt_token"][0])
    np.testing.assert_array_equal(voice.t3_prompt_tokens, content["t3"]["cond_prompt_speech_tokens"][0])
    np.testing.assert_array_equal(voice.speaker_embedding, content["t3"]["speaker_emb"][0])
    np.testing.assert_array_equal(voice.xvector, content["gen"]["embedding"][0])
    voice.check(*model)


def test_used_conds_hold_ids_as_floats_and_are_the_same_voice(goldens: Path) -> None:
    assert torch_archive.read(goldens / "conds_used.pt")["gen"]["prompt_token"].dtype == np.float32
    same(Voice.load(goldens / "conds_used.pt"), Voice.load(goldens / "conds_fresh.pt"))


def test_written_conds_have_upstreams_structure(tmp_path: Path, voice: Voice, goldens: Path) -> None:
    """The same keys in the same order, the same dtypes and shapes, and the same storages as torch's own file."""
    t3, gen = conds_pt.to_dicts(voice)
    torch_archive.save(tmp_path / "a.pt", {"t3": t3, "gen": gen})
    found, expected = torch_archive.read(tmp_path / "a.pt"), torch_archive.read(goldens / "conds_fresh.pt")
    assert {section: list(entries) for section, entries in found.items()} == NAMES
    for section, entries in expected.items():
        assert list(found[section]) == list(entries)
        for name, value in entries.items():
            if value is None:
                assert found[section][name] is None, name
            elif name != "emotion_adv":
                np.testing.assert_array_equal(found[section][name], value, strict=True, err_msg=name)
            else:
                assert (found[section][name].dtype, found[section][name].shape) == (value.dtype, value.shape)
    with zipfile.ZipFile(tmp_path / "a.pt") as ours, zipfile.ZipFile(goldens / "conds_fresh.pt") as theirs:
        sizes = [sorted(i.file_size for i in archive.infolist() if "/data/" in i.filename) for archive in (ours, theirs)]
    assert sizes[0] == sizes[1]
    same(Voice.load(tmp_path / "a.pt"), voice)


def test_conditionals_are_upstreams_class(tmp_path: Path, conds: Path) -> None:
    loaded = Conditionals.load(conds, map_location="cuda")
    assert list(vars(loaded.t3)) == NAMES["t3"] and list(loaded.gen) == NAMES["gen"]
    assert loaded.to("cpu") is loaded
    loaded.save(tmp_path / "a.pt")
    again = torch_archive.read(tmp_path / "a.pt")
    for section, entries in torch_archive.read(conds).items():
        for name, value in entries.items():
            np.testing.assert_array_equal(again[section][name], value, err_msg=name)
    same(loaded.voice(), Voice.load(conds))
    same(Conditionals.load(tmp_path / "a.pt").voice(), Voice.load(conds))


def test_conditionals_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent.pt"):
        Conditionals.load(tmp_path / "absent.pt")
    path = tmp_path / "a.pt"
    for content, says in [
        ([], "a dict with the dicts t3 and gen"),
        ({"t3": {"colour": 1}, "gen": {}}, "colour"),
        ({"t3": 1, "gen": {}}, "t3 and gen"),
    ]:
        torch_archive.save(path, content)
        with pytest.raises(VoiceError, match=f"a.pt: .*{says}"):
            Conditionals.load(path)
    path.write_text("no archive")
    with pytest.raises(VoiceError, match=r"a.pt"):
        Conditionals.load(path)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("speaker_embedding", np.zeros(32), "expected a float32 array with 1 axes, got float64"),
        ("speaker_embedding", np.zeros((1, 32), np.float32), r"got float32 of shape \[1, 32\]"),
        ("speaker_embedding", np.zeros(0, np.float32), r"of shape \[0\]"),
        ("speaker_embedding", [0.5] * 32, "got float64"),
        ("speaker_embedding", None, "got object"),
        ("speaker_embedding", np.zeros(32, ">f4"), "got >f4"),
        ("xvector", np.full(192, np.nan, np.float32), "expected finite numbers"),
        ("s3gen_prompt_mel", np.full((250, 80), -np.inf, np.float32), "expected finite numbers"),
        ("s3gen_prompt_mel", np.zeros((252, 80), np.float32), "expected 250 or 251 frames, got 252"),
        ("s3gen_prompt_mel", np.zeros((249, 80), np.float32), "expected 250 or 251 frames, got 249"),
        ("s3gen_prompt_mel", np.zeros(250, np.float32), "with 2 axes"),
        ("t3_prompt_tokens", np.zeros(9, np.int32), "expected a int64 array"),
        ("t3_prompt_tokens", np.zeros(9, np.float32), "expected a int64 array"),
        ("s3gen_prompt_tokens", np.zeros(0, np.int64), r"of shape \[0\]"),
    ],
)
def test_arrays_that_are_no_voice(voice: Voice, name: str, value: Any, says: str) -> None:
    with pytest.raises(VoiceError, match=f"voice: {name}: .*{says}"):
        dataclasses.replace(voice, **{name: value})


def test_voices_that_fit(voice: Voice, model: Any) -> None:
    settings, fingerprint = model
    dataclasses.replace(voice, metadata=fingerprint.parts).check(*model)
    dataclasses.replace(voice, metadata={"checkpoint": fingerprint.checkpoint}).check(*model)
    dataclasses.replace(voice, metadata={**fingerprint.parts, "checkpoint": "d" * 64}).check(*model)
    dataclasses.replace(voice, metadata={}, t3_prompt_tokens=np.zeros(0, np.int64)).check(*model)
    odd = np.concatenate([voice.s3gen_prompt_mel, voice.s3gen_prompt_mel[-1:]])
    dataclasses.replace(voice, metadata={}, s3gen_prompt_mel=odd).check(*model)
    ends = np.array([0, settings["t3"]["speech_vocab"] - 1])
    dataclasses.replace(voice, metadata={}, t3_prompt_tokens=ends).check(*model)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"metadata": {"checkpoint": "d" * 64}},
            r"by an earlier version with another checkpoint \(d{12}…, this model is [0-9a-f]{12}…\), perhaps only another T3; "
            r"prepare it again from its clip, or take it as it is: dataclasses.replace\(voice, metadata=\{\}\)",
        ),
        (
            {"metadata": {"voice_encoder": "d" * 64, "speaker_encoder": "e" * 64}},
            "prepared with another voice_encoder and speaker_encoder than this model's; prepare it again from its clip",
        ),
        (
            {"speaker_embedding": np.zeros(256, np.float32)},
            r"speaker_embedding: this model expects shape \[32\], the voice has \[256\]",
        ),
        ({"xvector": np.zeros(80, np.float32)}, r"xvector: this model expects shape \[192\], the voice has \[80\]"),
        ({"s3gen_prompt_mel": np.zeros((250, 79), np.float32)}, r"s3gen_prompt_mel: this model expects shape \[250, 80\]"),
        ({"t3_prompt_tokens": np.zeros(376, np.int64)}, "t3_prompt_tokens: expected at most 375, got 376"),
        ({"t3_prompt_tokens": np.array([0, 6563])}, "t3_prompt_tokens: expected ids from 0 to 6562, found 0 to 6563"),
        ({"t3_prompt_tokens": np.array([-1, 3])}, "found -1 to 3"),
        ({"s3gen_prompt_tokens": np.full(125, 6561)}, "s3gen_prompt_tokens: expected ids from 0 to 6560, found 6561 to 6561"),
    ],
)
def test_voices_that_do_not_fit(voice: Voice, model: Any, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(VoiceError, match=says):
        dataclasses.replace(voice, **{"metadata": {}, **changes}).check(*model)


def test_files_that_are_no_voice(tmp_path: Path, voice: Voice, tiny_checkpoint: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(FileError, match="No such file"):
        Voice.load(path)
    with pytest.raises(FileError, match="No such file"):
        Voice.load(tmp_path / "a.pt")
    with pytest.raises(VoiceError, match=f"not a voice file: .*expected kind '{KIND}'"):
        Voice.load(tiny_checkpoint / "ve.safetensors")
    voice.save(path)
    content, arrays = path.read_bytes(), load_file(path)
    for end in (0, 7, 8, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(VoiceError, match=f"not a voice file: {path}"):
            Voice.load(path)
    save_file(arrays, path, {"kind": KIND, "format": "2"})
    with pytest.raises(VoiceError, match="expected voice format 1, found 2"):
        Voice.load(path)
    for name in ARRAYS:
        save_file({k: v for k, v in arrays.items() if k != name}, path, {"kind": KIND, "format": "1"})
        with pytest.raises(VoiceError, match=f"a.safetensors: tensor {name} is missing"):
            Voice.load(path)
    for name, wrong, says in [
        ("xvector", arrays["xvector"][:0], "xvector: expected a float32 array"),
        ("xvector", np.full(192, np.nan, np.float32), "xvector: expected finite"),
        ("xvector", arrays["xvector"].astype(np.float64), "xvector: expected dtype"),
        ("xvector", np.zeros(192, np.int64), "xvector: expected a float32 array"),
        ("t3_prompt_tokens", np.zeros(4, np.float32), "t3_prompt_tokens: expected a int64 array"),
        ("s3gen_prompt_mel", arrays["s3gen_prompt_mel"][:, 0].copy(), "s3gen_prompt_mel: expected"),
    ]:
        save_file({**arrays, name: wrong}, path, {"kind": KIND, "format": "1"})
        with pytest.raises(VoiceError, match=f"a.safetensors.*{says}"):
            Voice.load(path)


def test_truncated_conds(tmp_path: Path, goldens: Path) -> None:
    content = (goldens / "conds_fresh.pt").read_bytes()
    for end in (0, 3, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "a.PT").write_bytes(content[:end])
        with pytest.raises(VoiceError, match=r"not a voice file: .*a.PT"):
            Voice.load(tmp_path / "a.PT")


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


def test_nothing_in_conds_is_executed(tmp_path: Path, goldens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(goldens / "conds_fresh.pt") as old, zipfile.ZipFile("evil.pt", "w") as new:
        for item in old.infolist():
            evil = pickle.dumps({"t3": Evil(), "gen": {}}, protocol=2)
            new.writestr(item.filename, evil if item.filename.endswith("data.pkl") else old.read(item))
    for load in (Voice.load, Conditionals.load):
        with pytest.raises(VoiceError, match=r"evil.pt: .*system"):
            load("evil.pt")
    assert not Path("executed").exists()
    pickle.loads(pickle.dumps(Evil()))
    assert Path("executed").exists(), "the file would have been harmless anyhow"


@pytest.mark.parametrize(
    ("entry", "value", "says"),
    [
        ("t3.speaker_emb", ..., "t3.speaker_emb: expected an array of numbers, found nothing"),
        ("t3.speaker_emb", "text", "t3.speaker_emb: expected an array of numbers, found str"),
        ("t3.speaker_emb", [[1.0]], "t3.speaker_emb: expected an array of numbers, found list"),
        (
            "t3.speaker_emb",
            np.zeros((2, 32), np.float32),
            r"t3.speaker_emb: expected one row of 1 axes, found shape \[2, 32\]",
        ),
        ("t3.speaker_emb", np.full((1, 32), 1e300), "speaker_embedding: expected finite"),
        ("t3.cond_prompt_speech_tokens", None, "t3.cond_prompt_speech_tokens: expected an array of numbers, found nothing"),
        (
            "t3.cond_prompt_speech_tokens",
            np.array([[0.5]], np.float32),
            "t3.cond_prompt_speech_tokens: expected whole numbers",
        ),
        (
            "t3.cond_prompt_speech_tokens",
            np.array([[np.nan]], np.float32),
            "t3.cond_prompt_speech_tokens: expected whole numbers",
        ),
        (
            "t3.cond_prompt_speech_tokens",
            np.array([[np.inf]], np.float32),
            "t3.cond_prompt_speech_tokens: expected whole numbers",
        ),
        ("gen.prompt_token", np.array([[True]]), "gen.prompt_token: expected an array of numbers"),
        ("gen.prompt_token", np.zeros((1, 0), np.int64), "s3gen_prompt_tokens: expected"),
        ("gen.prompt_token_len", np.array([124]), "gen.prompt_token_len: expected 125"),
        ("gen.prompt_feat_len", np.array([249]), "gen.prompt_feat_len: expected 250"),
        ("gen.prompt_feat", np.zeros((1, 1, 250, 80), np.float32), "gen.prompt_feat: expected one row of 2 axes"),
        ("gen.prompt_feat", np.zeros((1, 300, 80), np.float32), "s3gen_prompt_mel: expected 250 or 251 frames"),
        ("gen.embedding", ..., "gen.embedding: expected an array of numbers, found nothing"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_conds_that_are_no_voice(tmp_path: Path, goldens: Path, entry: str, value: Any, says: str) -> None:
    content = torch_archive.read(goldens / "conds_fresh.pt")
    section, name = entry.split(".")
    if value is ...:
        del content[section][name]
    else:
        content[section][name] = value
    torch_archive.save(tmp_path / "a.pt", content)
    with pytest.raises(VoiceError, match=f"a.pt: .*{says}"):
        Voice.load(tmp_path / "a.pt")


@pytest.mark.parametrize("copied", [lambda voice: pickle.loads(pickle.dumps(voice)), copy.deepcopy, copy.copy])
def test_a_copy_is_as_immutable_as_the_voice(voice: Voice, copied: Any) -> None:
    """T3 keeps what it computed of a voice: one that changed in place would be spoken with in part."""
    other = copied(voice)
    assert other.same_arrays(voice) and other.metadata == voice.metadata
    assert not any(getattr(other, name).flags.writeable for name in ARRAYS)


def test_a_prompt_without_end_is_refused(voice: Voice, model: Any) -> None:
    long = {"s3gen_prompt_tokens": np.zeros(100_000, np.int64), "s3gen_prompt_mel": np.zeros((200_000, 80), np.float32)}
    with pytest.raises(VoiceError, match="s3gen_prompt_tokens: expected at most 1000"):
        dataclasses.replace(voice, metadata={}, **long).check(*model)


def test_a_shorter_prompt_is_the_beginning_of_the_whole_one(toy: ChatterboxTurbo, clip: Path) -> None:
    whole = toy.voice(clip)
    assert len(whole.s3gen_prompt_tokens) == 125 and len(whole.s3gen_prompt_mel) in (250, 251)
    for seconds, tokens in ((1, 25), (2.5, 62), (3.01, 75), (5, 125), (10, 125)):
        shorter = toy.voice(clip, prompt_seconds=seconds)
        assert len(shorter.s3gen_prompt_tokens) == tokens
        assert len(shorter.s3gen_prompt_mel) == (len(whole.s3gen_prompt_mel) if tokens == 125 else 2 * tokens)
        assert (shorter.s3gen_prompt_tokens == whole.s3gen_prompt_tokens[:tokens]).all()
        assert (shorter.s3gen_prompt_mel == whole.s3gen_prompt_mel[: len(shorter.s3gen_prompt_mel)]).all()
        for name in ("speaker_embedding", "t3_prompt_tokens", "xvector"):
            assert (getattr(shorter, name) == getattr(whole, name)).all()
        assert shorter.metadata == whole.metadata
    arguments: dict[str, Any] = {"seed": 1, "max_tokens": 20, "watermark": None}
    spoken = [toy.generate("Hello.", voice=voice, **arguments) for voice in (whole, toy.voice(clip, prompt_seconds=2))]
    assert (spoken[0].tokens == spoken[1].tokens).all() and not np.array_equal(spoken[0].samples, spoken[1].samples)


@pytest.mark.parametrize("seconds", [0.9, 10.1, 0, -3, float("nan"), float("inf")])
def test_a_prompt_out_of_range_is_refused(toy: ChatterboxTurbo, clip: Path, seconds: float) -> None:
    with pytest.raises(ArgumentError, match=f"prompt_seconds: expected seconds from 1 to 10, got {seconds}"):
        toy.voice(clip, prompt_seconds=seconds)
