"""Files are written whole or not at all, whatever the system refuses; a result is saved in each format and read back."""

from __future__ import annotations

import base64
import errno
import io
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from chatterbox_turbo_rs.audio.encode import FORMATS
from chatterbox_turbo_rs.audio.files import whole_file
from chatterbox_turbo_rs.audio.read import read
from chatterbox_turbo_rs.checkpoint import torch_archive
from chatterbox_turbo_rs.engine.registry import TABLE
from chatterbox_turbo_rs.errors import ArgumentError, FileError
from chatterbox_turbo_rs.plan import Plan
from chatterbox_turbo_rs.speech import Speech
from chatterbox_turbo_rs.voice import Voice

RUST = Plan(dict.fromkeys(TABLE, "rust"))


@pytest.fixture
def speech() -> Speech:
    time = np.arange(36_000) / 24_000
    samples = (0.4 * np.sin(2 * np.pi * 220 * time) * np.minimum(1, 20 * time)).astype(np.float32)
    return Speech(samples, 24_000, 7, RUST, {"t3": 0.5}, np.arange(3), True, "Hello.")


@pytest.fixture
def voice() -> Voice:
    rng = np.random.default_rng(1)
    mel = rng.standard_normal((200, 80)).astype(np.float32)
    return Voice(mel[0, :32], np.arange(9), np.arange(100), mel, mel[:3].ravel()[:192])


def text(content: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with whole_file(path) as temporary:
            temporary.write_text(content)

    return write


@pytest.fixture(params=["text", "speech", "voice", "torch archive"])
def writer(request: Any, speech: Speech, voice: Voice) -> Callable[[Path], None]:
    return {
        "text": text("new"),
        "speech": lambda path: speech.save(path, format="wav"),
        "voice": voice.save,
        "torch archive": lambda path: torch_archive.save(path, {"a": voice.s3gen_prompt_mel}),
    }[request.param]


def test_a_file_replaces_the_old_one_and_nothing_else_stays(tmp_path: Path, writer: Any) -> None:
    path = tmp_path / "a.safetensors"
    path.write_text("old")
    writer(path)
    assert os.listdir(tmp_path) == ["a.safetensors"] and path.read_bytes() != b"old" and path.stat().st_size > 2


def test_mode_is_what_the_system_would_give(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        text("new")(tmp_path / "a")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_links_stay_links(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "link").symlink_to("place/target")
    text("new")(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "place" / "target").read_text() == "new"
    assert os.listdir(tmp_path / "place") == ["target"]


def test_names_may_be_as_long_as_the_system_allows(tmp_path: Path) -> None:
    name = "n" * os.pathconf(tmp_path, "PC_NAME_MAX")
    text("new")(tmp_path / name)
    assert os.listdir(tmp_path) == [name]


def wrong_place(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "a.safetensors"
    if kind == "a directory":
        path.mkdir()
    elif kind == "no parent":
        path = tmp_path / "absent" / "a.safetensors"
    elif kind == "a file for a parent":
        (tmp_path / "file").touch()
        path = tmp_path / "file" / "a.safetensors"
    elif kind == "a pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("this system keeps no pipes in directories")
        os.mkfifo(path)
    elif kind == "a name too long":
        path = tmp_path / ("n" * 300 + ".safetensors")
    elif kind == "a zero byte":
        path = tmp_path / "a\0b.safetensors"
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("a directory", "a.safetensors: expected a file name, found a directory"),
        ("no parent", "a.safetensors: cannot be written: No such file or directory"),
        ("a file for a parent", "a.safetensors: cannot be written: Not a directory"),
        ("a pipe", "a.safetensors: expected a file name, found a device or a pipe"),
        ("a name too long", "File name too long"),
        ("a zero byte", "cannot be written: .*null"),
    ],
)
def test_places_that_cannot_be_written(tmp_path: Path, writer: Any, kind: str, says: str) -> None:
    path = wrong_place(tmp_path, kind)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FileError, match=says):
        writer(path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def foreign() -> Iterator[Path]:
    """A directory with one file, neither of which this process may change."""
    if not hasattr(os, "geteuid"):
        pytest.skip("directories of this system can be written to whatever their mode")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "a.wav").write_text("old")
        directory.chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield directory
        finally:
            if root:
                os.seteuid(0)
            directory.chmod(0o755)


@pytest.mark.parametrize("name", ["a.wav", "b.wav"])
def test_no_permission(foreign: Path, speech: Speech, name: str) -> None:
    with pytest.raises(FileError, match=f"{name}: cannot be written: Permission denied"):
        speech.save(foreign / name)
    assert os.listdir(foreign) == ["a.wav"] and (foreign / "a.wav").read_text() == "old"


@pytest.mark.parametrize("old", [None, "old"])
def test_a_limit_of_the_file_size_in_the_middle(tmp_path: Path, writer: Any, old: str | None) -> None:
    """The system itself stops the writing half way (as a full disk does)."""
    resource = pytest.importorskip("resource", reason="this system limits no file's size")
    path = tmp_path / "a.safetensors"
    if old is not None:
        path.write_text(old)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2, limits[1]))
    try:
        with pytest.raises(FileError, match=r"a.safetensors: cannot be written: File too large"):
            writer(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ([] if old is None else [old])


def test_a_full_disk(tmp_path: Path, writer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    path.write_text("old")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match=r"a.safetensors: cannot be written: No space left on device"):
        writer(path)
    assert os.listdir(tmp_path) == ["a.safetensors"] and path.read_text() == "old"


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_other_errors_pass_and_leave_nothing(tmp_path: Path, kind: type[BaseException]) -> None:
    with pytest.raises(kind, match="mine"), whole_file(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise kind("mine")
    assert not os.listdir(tmp_path)


DISTANCES = {"wav": 2e-5, "flac": 2e-5, "aiff": 2e-5, "pcm": 2e-5, "ogg": 0.05, "opus": 0.05, "mp3": 0.05}


def sound(content: bytes, name: str) -> np.ndarray:
    """What a file of format ``name`` holds."""
    if name == "pcm":
        return np.frombuffer(content, "<i2") / np.float32(32768)
    samples, rate = read(content)
    assert rate == 24_000 and samples.dtype == np.float32
    return samples


def distance(samples: np.ndarray, expected: np.ndarray) -> float:
    """Of samples at the best shift, for MP3 adds silence at both ends."""
    shifts = range(0, len(samples) - len(expected) + 1)
    return min(np.abs(samples[s : s + len(expected)] - expected)[2000:-2000].max() for s in shifts)


@pytest.mark.parametrize("name", FORMATS)
def test_speech_is_saved_and_read_back(tmp_path: Path, speech: Speech, name: str) -> None:
    """By the file's ending, by a format that is named, and into a file object: the same samples, as many as there are."""
    path = tmp_path / f"a.{name}"
    assert speech.save(path) == path and speech.save(str(tmp_path / f"b.{name.upper()}")).read_bytes()
    speech.save(tmp_path / "named", format=name)
    memory = io.BytesIO()
    assert speech.save(memory, format=name.upper()) is None  # type: ignore[func-returns-value]
    for content in (path.read_bytes(), (tmp_path / "named").read_bytes(), memory.getvalue()):
        found = sound(content, name)
        assert len(found) >= len(speech) if name == "mp3" else len(found) == len(speech)
        assert distance(found, speech.samples) < DISTANCES[name]


def test_what_is_written_is_of_the_kind_that_was_asked_for(tmp_path: Path, speech: Speech) -> None:
    kinds = {"wav": ("WAV", "PCM_16"), "flac": ("FLAC", "PCM_16"), "aiff": ("AIFF", "PCM_16"), "ogg": ("OGG", "VORBIS")}
    kinds |= {"opus": ("OGG", "OPUS"), "mp3": ("MP3", "MPEG_LAYER_III")}
    assert kinds.keys() | {"pcm"} == FORMATS.keys()
    for name, kind in kinds.items():
        info = soundfile.info(speech.save(tmp_path / f"a.{name}"))
        assert (info.format, info.subtype, info.samplerate, info.channels) == (*kind, 24_000, 1)
    assert speech.save(tmp_path / "a.pcm").stat().st_size == 2 * len(speech)
    assert speech.wav_bytes() == (tmp_path / "a.wav").read_bytes()


class Slow(io.RawIOBase):
    """Takes 1,000 bytes at a time, as a pipe may; ``none`` says at the third time that it is full."""

    def __init__(self, none: Any = 1000) -> None:
        self.none, self.taken = none, [b""]

    def write(self, data: Any) -> Any:
        taken = 1000 if len(self.taken) < 3 else self.none
        self.taken.append(bytes(data[:taken]))
        return None if taken is None else len(self.taken[-1])


def test_file_objects(tmp_path: Path, speech: Speech) -> None:
    slow = Slow()
    speech.save(slow, format="wav")

    class Backwards:
        def write(self, data: Any) -> int:
            return -1

    with pytest.raises(FileError, match="takes nothing more"):
        speech.save(Backwards(), format="wav")  # type: ignore[arg-type]
    assert b"".join(slow.taken) == speech.wav_bytes()
    for none in (None, 0):
        with pytest.raises(FileError, match="takes nothing more"):
            speech.save(Slow(none), format="wav")
    reads, writes = os.pipe()
    with open(reads, "rb") as end:
        with open(writes, "wb") as begin:
            Speech(speech.samples[:9000], 24_000, 1, speech.plan).save(begin, format="pcm")
        assert len(end.read()) == 18_000
    with (
        open(tmp_path / "a", "w") as text,
        pytest.raises(ArgumentError, match=r'binary mode \(open\(path, "wb"\)\), got .* text'),
    ):
        speech.save(text, format="wav")  # type: ignore[call-overload]
    with open(tmp_path / "a", "rb") as unwritable, pytest.raises(OSError, match="write"):
        speech.save(unwritable, format="wav")
    for wrong in (None, "ogg2", ".wav", 5):
        with pytest.raises(ArgumentError, match="format: expected wav, flac, ogg, opus, mp3, aiff, pcm, got"):
            speech.save(io.BytesIO(), format=wrong)  # type: ignore[call-overload]
        if wrong is not None:
            with pytest.raises(ArgumentError, match="a.wav: format: expected wav"):
                speech.save(tmp_path / "a.wav", format=wrong)  # type: ignore[call-overload]
    assert (tmp_path / "a").read_bytes() == b"" and len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize("name", ["ogg", "opus", "mp3"])
def test_a_long_sound(tmp_path: Path, name: str) -> None:
    """In a process of its own: libsndfile's Vorbis encoder would end it if it got the sound in one piece."""
    code = (
        "import sys, numpy as np\n"
        "from chatterbox_turbo_rs.engine.registry import TABLE, Plan\nfrom chatterbox_turbo_rs.speech import Speech\n"
        "samples = np.random.default_rng(1).uniform(-0.5, 0.5, 24_000 * 300).astype(np.float32)\n"
        "Speech(samples, 24_000, 1, Plan(dict.fromkeys(TABLE, 'rust'))).save(sys.argv[1])"
    )
    path = tmp_path / f"a.{name}"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0
    assert abs(soundfile.info(path).frames - 24_000 * 300) <= (2 * 1152 if name == "mp3" else 0)


def test_loud_samples_are_cut_and_not_wrapped(tmp_path: Path, speech: Speech) -> None:
    loud = Speech(np.array([2, -2, 1, -1, 0], np.float32), 24_000, 1, speech.plan)
    loud.save(tmp_path / "a.wav")
    np.testing.assert_allclose(read(tmp_path / "a.wav")[0], [1, -1, 1, -1, 0], atol=1e-4)


def test_nothing_said_is_a_file_of_nothing(tmp_path: Path, speech: Speech) -> None:
    nothing = Speech(np.zeros(0, np.float32), 24_000, 1, speech.plan)
    assert soundfile.info(nothing.save(tmp_path / "a.wav")).frames == 0
    assert nothing.save(tmp_path / "a.pcm").stat().st_size == 0


def test_endings(tmp_path: Path, speech: Speech, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "a.txt", "a.wav.bak", ".wav"):
        with pytest.raises(ArgumentError, match=r"expected a name ending in .wav, .flac, .ogg, .opus, .mp3, .aiff, .pcm, got"):
            speech.save(tmp_path / name)
    monkeypatch.setattr(soundfile, "_formats", {k: v for k, v in soundfile._formats.items() if k != "MP3"})
    with pytest.raises(ArgumentError, match=r"a.mp3: libsndfile \d.* cannot write mp3"):
        speech.save(tmp_path / "a.mp3")
    assert not os.listdir(tmp_path)


def test_speech_is_an_array(speech: Speech) -> None:
    assert np.asarray(speech).dtype == np.float32 and np.array_equal(np.asarray(speech), speech.samples)
    assert np.asarray(speech, dtype=np.float64).dtype == np.float64
    copied = np.array(speech)
    copied[:] = 0
    assert speech.samples.any() and len(speech) == len(speech.samples) and speech.seconds == 1.5
    assert np.abs(np.multiply(speech, 2) - 2 * speech.samples).max() == 0


def test_speech_plays_in_a_notebook(speech: Speech) -> None:
    shown = speech._repr_html_()
    found = re.search(r'<audio controls src="data:audio/wav;base64,([A-Za-z0-9+/=]+)">', shown)
    assert found is not None
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(found[1])), dtype="float32")
    assert rate == 24_000 and np.abs(samples - speech.samples).max() < 2e-5
    assert "1.50 s at 24000 Hz, seed=7" in shown and "&#x27;rust" in shown
