"""How long a sound is, told without decoding it: by its header, or by its frames where the header does not know."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile

from chatterbox_turbo_rs.audio.growing import Growing
from chatterbox_turbo_rs.audio.read import read
from chatterbox_turbo_rs.serve.errors import ApiError
from chatterbox_turbo_rs.serve.sound import UNTOLD, check_length, told

RATES = [8_000, 24_000, 44_100]


def noise(seconds: float, rate: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(1).standard_normal(round(seconds * rate))).astype(np.float32)


def grown(samples: np.ndarray, rate: int, name: str) -> bytes:
    out = Growing(rate, name)
    return out.feed(samples) + out.finish()


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


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("seconds", [0.01, 7.3, 700])
def test_a_flac_of_unknown_length_tells_it_by_its_last_frame(rate: int, seconds: float) -> None:
    data = grown(noise(seconds, rate), rate, "flac")
    assert int.from_bytes(data[21:26], "big") & 0xFFFFFFFFF == 0, "its header does not know"
    found = told(data)
    assert found is not None and seconds - 4_096 / rate <= found <= seconds
    assert told(data[:-1_000]) is None or seconds < 1 or seconds - 3 * 4_096 / rate <= (told(data[:-1_000]) or 0) <= seconds


def test_a_flac_that_lies_is_as_long_as_its_frames() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, noise(700, 8_000), 8_000, format="FLAC")
    data = bytearray(buffer.getvalue())
    data[22:26] = (48_000).to_bytes(4, "big")
    assert soundfile.info(io.BytesIO(data)).duration == 6 and (told(bytes(data)) or 0) > 699


def test_a_flac_of_unknown_length_is_read_to_its_end() -> None:
    """By this project and by FFmpeg; libsndfile takes it for endless (docs/server.md)."""
    av = pytest.importorskip("av")
    samples = noise(7.3, 24_000)
    data = grown(samples, 24_000, "flac")
    assert len(read(data)[0]) == len(samples)
    with av.open(io.BytesIO(data)) as file:
        assert sum(frame.samples for frame in file.decode(audio=0)) == len(samples)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("seconds", [0.5, 7.3])
def test_aac_tells_it_by_its_frames_and_mp4_by_its_header(rate: int, seconds: float) -> None:
    samples = noise(seconds, rate)
    for data in (mp4(samples, rate), grown(samples, rate, "aac")):
        found = told(data)
        assert found is not None and 0 <= found - seconds < 3 * 1_024 / rate


def test_what_does_not_tell_has_no_length() -> None:
    aac = grown(noise(3, 24_000), 24_000, "aac") if pytest.importorskip("av") else b""
    fragments = mp4(noise(3, 24_000), 24_000, movflags="frag_keyframe+empty_moov")
    flac = grown(noise(3, 24_000), 24_000, "flac")
    for data in (
        b"",
        b"fLaC",
        flac[:42],
        b"\xff\xf1",
        aac[:3] + b"\xff" * 4 + b"\0" * 20_000,
        aac + b"\0" * 9_000,
        fragments,
        b"\0\0\0\0ftypmvhd",
    ):
        assert told(data) is None, data[:40]
    for size in range(200):
        for data in (flac, aac, fragments):
            told(data[:size])


def test_a_wav_from_a_pipe_is_as_long_as_what_came() -> None:
    data = grown(noise(7, 24_000), 24_000, "wav")
    assert struct.unpack("<I", data[40:44]) == (0xFFFFFFFF,) and told(data) == 7
    assert len(soundfile.read(io.BytesIO(data))[0]) == 7 * 24_000


def test_what_is_too_long_is_told_in_one_line() -> None:
    long = grown(np.zeros(15 * 8_000, np.float32), 8_000, "flac")
    check_length(long, 15, "file")
    with pytest.raises(ApiError, match=r"^file: expected at most 10 s of sound, got 1[45] s$"):
        check_length(long, 10, "file")
    with pytest.raises(ApiError, match=f"^file: expected at most {UNTOLD} bytes of a sound that does not say how long it is"):
        check_length(b"\0" * (UNTOLD + 1), 10, "file")
