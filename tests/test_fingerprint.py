"""A voice is bound to the networks that made it, whatever else of the checkpoint changes."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.checkpoint import config, fingerprint
from chatterbox_turbo_rs.checkpoint.fingerprint import Fingerprint
from chatterbox_turbo_rs.checkpoint.resources import Resources
from chatterbox_turbo_rs.errors import VoiceError

FILES = ("t3_turbo_v1.safetensors", "s3gen_meanflow.safetensors", "ve.safetensors")
SHORT = {"seed": 1, "max_tokens": 2, "watermark": None}
Change = Callable[[np.ndarray], np.ndarray]


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


def of(directory: Path) -> Fingerprint:
    return Fingerprint.of(Resources(directory, config.read(directory / "config.json")))


def tuned(path: Path, prefix: str, change: Change = lambda values: values * np.float32(1.001)) -> None:
    """Changes the tensors under ``prefix``, as training does."""
    tensors = load_file(path)
    assert any(name.startswith(prefix) for name in tensors)
    wanted = {
        name: change(values) if name.startswith(prefix) and values.dtype.kind == "f" else values
        for name, values in tensors.items()
    }
    save_file(wanted, path)


@pytest.mark.parametrize(
    ("file", "prefix"),
    [
        ("t3_turbo_v1.safetensors", ""),
        ("s3gen_meanflow.safetensors", "flow."),
        ("s3gen_meanflow.safetensors", "mel2wav."),
        ("ve.safetensors", "similarity_"),
    ],
)
def test_what_only_uses_voices_may_change(tiny_checkpoint: Path, copy: Path, file: str, prefix: str) -> None:
    known = of(copy)
    assert known == of(tiny_checkpoint)
    tuned(copy / file, prefix)
    assert of(copy).parts == known.parts and of(copy).checkpoint != known.checkpoint


@pytest.mark.parametrize(
    ("file", "prefix", "part"),
    [
        ("ve.safetensors", "lstm.", "voice_encoder"),
        ("ve.safetensors", "proj.bias", "voice_encoder"),
        ("s3gen_meanflow.safetensors", "tokenizer.", "s3tokenizer"),
        ("s3gen_meanflow.safetensors", "tokenizer.encoder.blocks.0.attn.query.weight", "s3tokenizer"),
        ("s3gen_meanflow.safetensors", "speaker_encoder.", "speaker_encoder"),
        ("s3gen_meanflow.safetensors", "speaker_encoder.head.conv1.weight", "speaker_encoder"),
    ],
)
def test_what_made_a_voice_may_not(copy: Path, file: str, prefix: str, part: str) -> None:
    known = of(copy).parts
    tuned(copy / file, prefix)
    assert {name for name, found in of(copy).parts.items() if found != known[name]} == {part}


@pytest.mark.parametrize(
    ("section", "key", "value", "part"),
    [
        ("voice_encoder", "partials_per_second", 1.5, "voice_encoder"),
        ("s3tokenizer", "rope_theta", 20000.0, "s3tokenizer"),
        ("speaker_encoder", "segment", 50, "speaker_encoder"),
        ("s3gen", "mels", 100, "prompt_mel"),
        ("t3", "layers", 5, None),
        ("t3", "prompt_tokens", 300, None),
    ],
)
def test_settings_count_where_they_shape_a_voice(
    tiny_checkpoint: Path, section: str, key: str, value: float, part: str | None
) -> None:
    settings = config.read(tiny_checkpoint / "config.json")
    known = Fingerprint.of(Resources(tiny_checkpoint, settings)).parts
    assert settings[section][key] != value
    settings[section][key] = value
    found = Fingerprint.of(Resources(tiny_checkpoint, settings)).parts
    assert [name for name in known if found[name] != known[name]] == ([] if part is None else [part])


def test_large_tensors_are_told_apart_by_samples(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal((300, 400)).astype(np.float32)
    digests = []
    for changed in (values, values.T.copy(), values.reshape(400, 300), values * np.float32(1.001), values.astype(np.float16)):
        save_file({"a": changed}, tmp_path / "a.safetensors")
        digests.append(fingerprint.of_tensors(fingerprint.TensorFile(tmp_path / "a.safetensors"), "", {}))
    assert len(set(digests)) == len(digests)


def test_turbo_and_nano_take_each_others_voices_and_their_settings_stay() -> None:
    """Changing these settings, or adding one, makes every saved voice useless: then old digests have to be accepted too."""
    turbo, nano = (config.builtin(name) for name in ("turbo", "nano"))
    for name in fingerprint.NETWORKS:
        assert turbo[name] == nano[name]
    written = fingerprint._json([turbo[name] for name in sorted(fingerprint.NETWORKS)])
    assert hashlib.sha256(written).hexdigest()[:16] == "6fcb7e3d33d73125"


def test_voices_live_through_another_t3_and_not_through_another_voice_encoder(copy: Path, tmp_path: Path, clip: Path) -> None:
    first = ChatterboxTurbo.from_pretrained(copy, precision="f32")
    path = first.voice(clip).save(tmp_path / "voice.safetensors")
    before = first.generate("Hi.", voice=path, **SHORT).samples
    tuned(copy / FILES[0], "")
    tuned(copy / FILES[1], "flow.", lambda values: values * np.float32(1.5))
    after = ChatterboxTurbo.from_pretrained(copy, precision="f32").generate("Hi.", voice=path, **SHORT).samples
    assert not np.array_equal(before, after)
    tuned(copy / FILES[2], "")
    other = ChatterboxTurbo.from_pretrained(copy, precision="f32")
    with pytest.raises(VoiceError, match="prepared with another voice_encoder than this model's; prepare it again from its clip"):
        other.generate("Hi.", voice=path, **SHORT)
    taken = dataclasses.replace(first.voice(clip), metadata={})
    assert len(other.generate("Hi.", voice=taken, **SHORT).samples)


def test_a_model_remembers_what_it_was_loaded_from(copy: Path, clip: Path) -> None:
    """Files that are replaced behind a loaded model are not taken for its own."""
    tts = ChatterboxTurbo.from_pretrained(copy, precision="f32")
    known = of(copy).parts
    tuned(copy / FILES[2], "")
    assert of(copy).parts != known
    assert tts.voice(clip).metadata["voice_encoder"] == known["voice_encoder"]


def test_the_digest_of_earlier_versions_is_still_known(tiny_checkpoint: Path, copy: Path) -> None:
    known = of(tiny_checkpoint).checkpoint
    for name, offset in [("ve.safetensors", -1), ("s3gen_meanflow.safetensors", -1), ("t3_turbo_v1.safetensors", -65536)]:
        content = bytearray((tiny_checkpoint / name).read_bytes())
        content[offset] ^= 1
        (copy / name).write_bytes(content)
        assert of(copy).checkpoint != known, name
        shutil.copy(tiny_checkpoint / name, copy / name)
    (copy / "ve.safetensors").unlink()
    with pytest.raises(OSError, match=r"ve.safetensors"):
        of(copy)
