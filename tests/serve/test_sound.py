"""A sound that is sent is read up to what a server takes, whatever it says of its length."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from chatterbox_turbo_rs.audio.growing import Growing
from chatterbox_turbo_rs.audio.read import read
from chatterbox_turbo_rs.serve.errors import ApiError
from chatterbox_turbo_rs.serve.sound import sound


def noise(seconds: float, rate: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(1).standard_normal(round(seconds * rate))).astype(np.float32)


def grown(samples: np.ndarray, rate: int, name: str) -> bytes:
    out = Growing(rate, name)
    return out.feed(samples) + out.finish()


def written(samples: np.ndarray, rate: int, name: str, **more: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=name, **more)
    return buffer.getvalue()


def mp4(samples: np.ndarray, rate: int, **options: str) -> bytes:
    av = pytest.importorskip("av")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options=options) as file:
        stream = file.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], "fltp", "mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)
    return buffer.getvalue()


def lying(samples: np.ndarray, rate: int) -> bytes:
    """A FLAC whose header says 6 s."""
    data = bytearray(written(samples, rate, "FLAC"))
    data[22:26] = (6 * rate).to_bytes(4, "big")
    return bytes(data)


KINDS = {
    "FLAC": lambda x: written(x, 24_000, "FLAC"),
    "FLAC that lies": lambda x: lying(x, 24_000),
    "FLAC of unknown length": lambda x: grown(x, 24_000, "flac"),
    "WAV of unknown length": lambda x: grown(x, 24_000, "wav"),
    "MP3": lambda x: grown(x, 24_000, "mp3"),
    "Opus": lambda x: grown(x, 24_000, "opus"),
    "AAC": lambda x: grown(x, 24_000, "aac"),
    "MP4": lambda x: mp4(x, 24_000),
    "MP4 in fragments": lambda x: mp4(x, 24_000, movflags="frag_keyframe+empty_moov"),
    "AU, which libsndfile reads": lambda x: written(x, 24_000, "AU"),
    "W64 in ADPCM": lambda x: written(x, 24_000, "W64", subtype="IMA_ADPCM"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_of_file_is_read_beyond_the_limit(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "AAC" in kind or "MP4" in kind:
        pytest.importorskip("av")
    data, found = KINDS[kind](noise(40, 24_000)), []

    def seen(*arguments: object) -> tuple[np.ndarray, int]:
        found.append(read(*arguments))
        return found[-1]

    monkeypatch.setattr("chatterbox_turbo_rs.serve.sound.read", seen)
    with pytest.raises(ApiError, match=r"^file: expected at most 10 s of sound and 480000 samples, got more$") as error:
        sound(data, 10, "file")
    assert (error.value.status, error.value.code) == (400, "sound_too_long")
    [(samples, _)] = found
    assert 240_000 < len(samples) <= 600_000


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "lies" not in kind])
def test_what_is_short_enough_is_read_whole(kind: str) -> None:
    if "AAC" in kind or "MP4" in kind:
        pytest.importorskip("av")
    samples, rate = sound(KINDS[kind](noise(7.3, 24_000)), 10, "file")
    assert rate in (24_000, 48_000) and 7.3 <= len(samples) / rate < 7.5


def test_the_limit_is_of_seconds_and_of_samples() -> None:
    for seconds, rate in ((10.1, 8_000), (5.1, 96_000)):
        with pytest.raises(ApiError, match="expected at most 10 s of sound and 480000 samples"):
            sound(written(noise(seconds, rate), rate, "FLAC"), 10, "file")
    assert sound(written(noise(10, 8_000), 8_000, "FLAC"), 10, "file")[1] == 8_000
    assert sound(written(noise(5, 96_000), 96_000, "FLAC"), 10, "file")[1] == 96_000


def test_a_flac_of_unknown_length_is_read_to_its_end() -> None:
    """By this project and by FFmpeg; libsndfile takes it for endless (docs/server.md)."""
    av = pytest.importorskip("av")
    samples = noise(7.3, 24_000)
    data = grown(samples, 24_000, "flac")
    assert len(read(data)[0]) == len(samples)
    with av.open(io.BytesIO(data)) as file:
        assert sum(frame.samples for frame in file.decode(audio=0)) == len(samples)
