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
        "speech": speech.save,
        "voice": voice.save,
        "torch archive": lambda path: torch_archive.save(path, {"a": voice.s3gen_prompt_mel}),
    }[request.param]


def test_a_file_replaces_the_old_one_and_nothing_else_stays(tmp_path: Path, writer: Any) -> None:
    path = tmp_path / "a.wav"
    path.write_text("old")
    writer(path)
    assert os.listdir(tmp_path) == ["a.wav"] and path.read_bytes() != b"old" and path.stat().st_size > 2


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
    path = tmp_path / "a.wav"
    if kind == "a directory":
        path.mkdir()
    elif kind == "no parent":
        path = tmp_path / "absent" / "a.wav"
    elif kind == "a file for a parent":
        (tmp_path / "file").touch()
        path = tmp_path / "file" / "a.wav"
    elif kind == "a pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("this system keeps no pipes in directories")
        os.mkfifo(path)
    elif kind == "a name too long":
        path = tmp_path / ("n" * 300 + ".wav")
    elif kind == "a zero byte":
        path = tmp_path / "a\0b.wav"
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("a directory", "a.wav: expected a file name, found a directory"),
        ("no parent", "a.wav: cannot be written: No such file or directory"),
        ("a file for a parent", "a.wav: cannot be written: Not a directory"),
        ("a pipe", "a.wav: expected a file name, found a device or a pipe"),
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
    path = tmp_path / "a.wav"
    if old is not None:
        path.write_text(old)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2, limits[1]))
    try:
        with pytest.raises(FileError, match=r"a.wav: cannot be written: File too large"):
            writer(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ([] if old is None else [old])


def test_a_full_disk(tmp_path: Path, writer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    path.write_text("old")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match=r"a.wav: cannot be written: No space left on device"):
        writer(path)
    assert os.listdir(tmp_path) == ["a.wav"] and path.read_text() == "old"


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_other_errors_pass_and_leave_nothing(tmp_path: Path, kind: type[BaseException]) -> None:
    with pytest.raises(kind, match="mine"), whole_file(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise kind("mine")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("ending", "distance"), [(".wav", 2e-5), (".flac", 2e-5), (".aiff", 2e-5), (".WAV", 2e-5), (".ogg", 0.05), (".mp3", 0.05)]
)
def test_speech_is_saved_and_read_back(tmp_path: Path, speech: Speech, ending: str, distance: float) -> None:
    path = tmp_path / f"a{ending}"
    speech.save(path)
    samples, rate = read(path)
    assert rate == 24_000 and samples.dtype == np.float32
    assert len(samples) >= len(speech) if ending == ".mp3" else len(samples) == len(speech)
    # MP3 adds silence at both ends: there, the best shift counts.
    shifts = range(0, len(samples) - len(speech) + 1)
    best = min(np.abs(samples[s : s + len(speech)] - speech.samples)[2000:-2000].max() for s in shifts)
    assert best < distance


def test_a_long_sound_as_vorbis(tmp_path: Path, speech: Speech) -> None:
    """In a process of its own: libsndfile's encoder would end it if it got the sound in one piece."""
    code = (
        "import sys, numpy as np\n"
        "from chatterbox_turbo_rs.engine.registry import TABLE, Plan\nfrom chatterbox_turbo_rs.speech import Speech\n"
        "samples = np.random.default_rng(1).uniform(-0.5, 0.5, 24_000 * 300).astype(np.float32)\n"
        "Speech(samples, 24_000, 1, Plan(dict.fromkeys(TABLE, 'rust'))).save(sys.argv[1])"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.ogg")], check=False).returncode == 0
    assert soundfile.info(tmp_path / "a.ogg").frames == 24_000 * 300


def test_loud_samples_are_cut_and_not_wrapped(tmp_path: Path, speech: Speech) -> None:
    loud = Speech(np.array([2, -2, 1, -1, 0], np.float32), 24_000, 1, speech.plan)
    loud.save(tmp_path / "a.wav")
    np.testing.assert_allclose(read(tmp_path / "a.wav")[0], [1, -1, 1, -1, 0], atol=1e-4)


def test_nothing_said_is_a_file_of_nothing(tmp_path: Path, speech: Speech) -> None:
    Speech(np.zeros(0, np.float32), 24_000, 1, speech.plan).save(tmp_path / "a.wav")
    assert len(read(tmp_path / "a.wav")[0]) == 0


def test_endings(tmp_path: Path, speech: Speech, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "a.txt", "a.wav.bak", ".wav"):
        with pytest.raises(ArgumentError, match=r"expected a name ending in .wav, .flac, .ogg, .mp3, .aiff, got"):
            speech.save(tmp_path / name)
    monkeypatch.setattr(soundfile, "_formats", {k: v for k, v in soundfile._formats.items() if k != "MP3"})
    with pytest.raises(ArgumentError, match=r"a.mp3: libsndfile \d.* cannot write MP3"):
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


def test_reading_what_is_no_sound(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("RIFF, but not really")
    with pytest.raises(ValueError, match=r"a.wav: not a sound file that can be read"):
        read(tmp_path / "a.wav")
    with pytest.raises(FileError, match=r"absent.wav: No such file"):
        read(tmp_path / "absent.wav")
    with pytest.raises(FileError, match="Is a directory"):
        read(tmp_path)
