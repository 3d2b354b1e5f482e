"""One set of formats for everything that takes a clip; what cannot be read is named, with the way out."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from toy_model import TOY

sys.path.insert(0, str(Path(__file__).parent / "stages"))
import reference_clips as clips

from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.audio import formats
from chatterbox_turbo_rs.audio import read as reader
from chatterbox_turbo_rs.audio.read import read
from chatterbox_turbo_rs.cli.main import main
from chatterbox_turbo_rs.errors import AudioError, FileError, UnsupportedAudioError
from chatterbox_turbo_rs.stages.reference.load import python, rust

SHORT = {"seed": 1, "max_tokens": 2, "watermark": None}
# name -> (format, subtype, what an error calls it)
BOTH = {
    "opus": ("OGG", "OPUS", "Ogg Opus"),
    "vorbis": ("OGG", "VORBIS", "Ogg Vorbis"),
}
OTHERS = {
    "ima": ("WAV", "IMA_ADPCM", "WAV IMA ADPCM"),
    "ms": ("WAV", "MS_ADPCM", "WAV Microsoft ADPCM"),
    "au": ("AU", "PCM_16", "Sun AU"),
    "rf64": ("RF64", "PCM_16", "RF64"),
    "w64": ("W64", "PCM_16", "Wave64"),
    "gsm": ("WAV", "GSM610", "WAV GSM 6.10"),
    "g721": ("AU", "G721_32", "Sun AU"),
    "aifc": ("AIFF", "IMA_ADPCM", "AIFC IMA ADPCM"),
    "caf": ("CAF", "ALAC_16", "CAF ALAC"),
    "caf mu-law": ("CAF", "ULAW", "CAF"),
    "voc": ("VOC", "PCM_16", "VOC"),
}
UNREADABLE = {
    "amr": (b"#!AMR\n" + bytes(999), "AMR, which libsndfile"),
    "webm": (b"\x1aE\xdf\xa3" + bytes(40) + b"\x86\x86A_OPUS" + bytes(999), "WebM or Matroska Opus, which libsndfile"),
    "wma": (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + bytes(999), r"Windows Media \(ASF\), which libsndfile"),
    "speex": (b"OggS\0\x02" + bytes(20) + b"\x01\x50Speex   " + bytes(999), "Ogg Speex, which libsndfile"),
    "noise": (np.random.default_rng(3).bytes(5000), "not an audio file of a known format"),
}
NO_AUDIO = {
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "found a git-lfs pointer to it; run `git lfs pull` where it was cloned",
    ),
    "page": (b"<!DOCTYPE html><html>Not found</html>", "found an HTML page"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(999), "found a PNG picture"),
    "nothing": (b"", "it is empty"),
}


@pytest.fixture(scope="module")
def tone() -> np.ndarray:
    return clips.tones(24_000, 5.4)


@pytest.mark.parametrize("name", OTHERS)
def test_libsndfile_reads_what_rust_does_not_know(toy: ChatterboxTurbo, tone: np.ndarray, name: str, tmp_path: Path) -> None:
    """``auto`` leaves the clip to Python; Rust by name refuses it, and names its codec and the way out."""
    kind, subtype, called = OTHERS[name]
    path = tmp_path / "my clip.bin"
    path.write_bytes(clips.encode(tone, 24_000, kind, subtype))
    samples, rate = read(path)
    assert rate == 24_000 and samples.dtype == np.float32
    np.testing.assert_array_equal(samples, soundfile.SoundFile(path).read(1 << 20, dtype="float32"))
    np.testing.assert_array_equal(python.load(path), samples)
    way_out = r"; convert it: ffmpeg -i '.*my clip.bin' -ar 24000 -ac 1 OUT.wav"
    with pytest.raises(UnsupportedAudioError, match=rf"my clip\.bin: {called}.*, which the Rust side does not read.*{way_out}"):
        toy.voice(path, backends="reference.load=rust")


@pytest.mark.parametrize("name", BOTH)
def test_both_sides_read_it_alike(tone: np.ndarray, name: str) -> None:
    content = clips.encode(tone, 24_000, *BOTH[name][:2])
    found, expected = rust.load(content), python.load(content)
    assert len(found) == len(expected) and np.abs(found - expected).max() < 1e-4
    np.testing.assert_array_equal(read(content)[0], found)


@pytest.mark.parametrize("kind", ["WAV", "WAVEX"])
@pytest.mark.parametrize("channels", [18, 32, 36, 64, 100])
def test_many_channels(toy: ChatterboxTurbo, tone: np.ndarray, channels: int, kind: str) -> None:
    content = clips.encode(np.repeat(tone[:, None], channels, axis=1), 24_000, kind)
    np.testing.assert_allclose(read(content)[0], tone, atol=1e-6)
    assert toy.voice(content).metadata.get("reference.load") in (None, "python")


def test_the_voice_and_the_speech_say_who_read_the_clip(toy: ChatterboxTurbo, tone: np.ndarray, tmp_path: Path) -> None:
    content = clips.encode(tone, 24_000, "AU")
    path = tmp_path / "clip.au"
    path.write_bytes(content)
    for source in (path, content, io.BytesIO(content)):
        voice = toy.voice(source)
        assert voice.metadata["reference.load"] == "python"
        assert voice.same_arrays(toy.voice((tone, 24_000)))
    for given in (voice, path, str(path), voice.save(tmp_path / "voice.safetensors")):
        assert str(toy.generate("Hi.", voice=given, **SHORT).plan) == "rust,reference.load=python"
        [speech] = toy.generate_many(["Hi."], given, seeds=1, max_tokens=2, watermark=None)
        assert str(speech.plan) == "rust,reference.load=python"
    plain = toy.voice((tone, 24_000))
    assert "reference.load" not in plain.metadata and str(toy.generate("Hi.", voice=plain, **SHORT).plan) == "rust"
    named = toy.voice(path, backends="reference.load=python")
    assert "reference.load" not in named.metadata, "this was no fallback"
    with pytest.raises(UnsupportedAudioError, match=r"clip\.au: Sun AU, which the Rust side does not read"):
        toy.generate("Hi.", voice=path, backends="rust", **SHORT)


def test_rust_reads_first(tone: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "decode", lambda clip: pytest.fail("libsndfile was asked"))
    for kind in ("WAV", "FLAC", "AIFF"):
        samples, rate = read(clips.encode(tone, 24_000, kind))
        assert rate == 24_000
        np.testing.assert_array_equal(samples, tone)


def test_a_clip_of_any_length_and_rate_is_read(tmp_path: Path) -> None:
    stereo = np.array([[0.5, 0.0], [-0.5, -0.25]], np.float32)
    soundfile.write(tmp_path / "a.wav", stereo, 8_000, subtype="FLOAT")
    for source in (tmp_path / "a.wav", (stereo, 8_000), (stereo.tolist(), 8_000)):
        if isinstance(source, tuple) and isinstance(source[0], list):
            source = (np.array(source[0]), source[1])
        samples, rate = read(source)
        assert rate == 8_000 and samples.tolist() == [0.25, -0.375]


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_no_reader_knows_is_named(toy: ChatterboxTurbo, name: str, tmp_path: Path) -> None:
    content, says = UNREADABLE[name]
    path = tmp_path / "clip"
    path.write_bytes(content)
    for call in (read, python.load, toy.voice):
        with pytest.raises(UnsupportedAudioError, match=rf"/clip: {says}.*; convert it: ffmpeg -i \S+/clip -ar 24000"):
            call(path)
        with pytest.raises(UnsupportedAudioError, match=rf"^reference clip: {says}.*; convert it: ffmpeg -i IN -ar 24000"):
            call(content)


@pytest.mark.parametrize("name", NO_AUDIO)
def test_what_is_no_audio_is_named(toy: ChatterboxTurbo, name: str, tmp_path: Path) -> None:
    content, says = NO_AUDIO[name]
    path = tmp_path / "clip.wav"
    path.write_bytes(content)
    for call in (read, python.load, rust.load, toy.voice, lambda clip: toy.generate("Hi.", voice=clip)):
        with pytest.raises(AudioError, match=rf"clip\.wav: not an audio file: {says}$") as caught:
            call(path)
        assert not isinstance(caught.value, UnsupportedAudioError)


@pytest.mark.parametrize("subtype", ["OPUS", "VORBIS"])
@pytest.mark.parametrize("seconds", [5.4, 60])
def test_damage_in_an_ogg_file_is_never_skipped(toy: ChatterboxTurbo, subtype: str, seconds: float) -> None:
    content = clips.encode(np.tile(clips.tones(24_000, 1.2), int(seconds / 1.2)), 24_000, "OGG", subtype)
    middle = len(content) // 2
    damaged = content[:middle] + np.random.default_rng(0).bytes(3_000) + content[middle + 3_000 :]
    for call in (read, python.load, toy.voice):
        with pytest.raises(AudioError, match="reference clip: .*damaged"):
            call(damaged)


def test_known_formats_are_told_by_their_first_bytes(tone: np.ndarray) -> None:
    for kind, subtype, called in [
        *OTHERS.values(),
        *BOTH.values(),
        ("WAV", "PCM_16", "WAV"),
        ("FLAC", "PCM_16", "FLAC"),
    ]:
        name = formats.name_of(clips.encode(tone, 24_000, kind, subtype)[: formats.HEAD])
        assert name is not None and name.startswith(called)
    for head in (b"", b"R", b"RIFF", b"RIFF1234AVI LIST", bytes(99), b"hello"):
        assert formats.name_of(head) is None


@pytest.mark.parametrize("name", ["opus", "au", "gsm"])
def test_the_command_reads_the_same_set(
    toy: ChatterboxTurbo, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """``watermark detect`` reads what ``voice prepare`` reads."""
    kind, subtype, _ = {**BOTH, **OTHERS}[name]
    speech = toy.generate("Hello there, this is marked.", seed=3, max_tokens=60)
    path = tmp_path / "clip"
    path.write_bytes(clips.encode(np.tile(speech.samples, 3), 24_000, kind, subtype))
    assert main(["watermark", "detect", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["watermarked"] is True
    assert main(["voice", "prepare", str(path), "--model", TOY, "-o", str(tmp_path / "voice.safetensors")]) == 0
    assert ("'reference.load': 'python'" in capsys.readouterr().out) == (name in OTHERS)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for call in (read, python.load, rust.load):
        with pytest.raises(FileError, match=r"absent.wav: No such file"):
            call(tmp_path / "absent.wav")
        with pytest.raises(FileError, match="[Ii]s a directory"):
            call(tmp_path)
        with pytest.raises(FileError, match="^https://example.com/a.wav: expected a file, got a URL; download it first$"):
            call("https://example.com/a.wav")
