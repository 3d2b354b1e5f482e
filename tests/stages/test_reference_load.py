"""`reference.load`: the same clips, the same refusals, whichever implementation reads them."""

from __future__ import annotations

import codecs
import importlib
import io
import math
import os
import signal
import struct
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import reference_clips as clips
import soundfile
import soxr

from chatterbox_turbo_rs import _core
from chatterbox_turbo_rs.errors import ArgumentError, AudioError, FileError, UnsupportedAudioError

GOLDEN = np.load(Path(__file__).parents[1] / "goldens" / "reference_load.npz")
# Where libsoxr is one filter the two sides agree to rounding; elsewhere to 1e-4 relative, and less in the first and last ms.
ONE_STAGE = {8_000, 16_000, 24_000, 32_000, 48_000}


@pytest.fixture(params=["python", "rust"])
def impl(request):
    return importlib.import_module(f"chatterbox_turbo_rs.stages.reference.load.{request.param}").create(None)


@pytest.fixture(scope="module")
def tone():
    return clips.tones(24_000, 5.4)


def check(got: np.ndarray, name: str, one_stage: bool) -> None:
    assert got.dtype == np.float32 and got.ndim == 1 and got.flags.c_contiguous
    assert len(got) == GOLDEN[f"{name}.length"]
    got, want = clips.probe(got).astype(np.float64), GOLDEN[name].astype(np.float64)
    assert np.isfinite(got).all()
    if one_stage:
        assert np.abs(got - want).max() < 1e-6
    else:
        inner = slice(clips.EDGE, -clips.EDGE)
        assert np.linalg.norm((got - want)[inner]) < 1e-4 * np.linalg.norm(want[inner])
        assert np.abs(got - want).max() < 2e-3


@pytest.mark.parametrize("name", clips.FILES)
def test_equals_official(impl, name):
    _, _, rate, channels = clips.FILES[name]
    assert clips.digest(clips.tones(rate, 5.4, channels)) == GOLDEN[f"{name}.digest"], "the clip is not the golden's"
    check(impl(clips.file(name)), name, rate in ONE_STAGE)


@pytest.mark.parametrize("kind", ["mp3", "ogg"])
def test_lossy_files_align_with_official(impl, kind):
    """Encoder delay and padding are removed alike; the decoders themselves differ by less than 1e-6."""
    check(impl(GOLDEN[f"{kind}.file"].tobytes()), kind, True)


def test_every_kind_of_source(impl, tone, tmp_path):
    content = clips.encode(tone, 24_000)
    path = tmp_path / "clip ünï.wav"
    path.write_bytes(content)
    with path.open("rb") as file:
        from_file = impl(file)
    with path.open("rb", buffering=0) as file:
        from_raw_file = impl(file)
    for got in (impl(path), impl(str(path)), impl(PathLike(path)), from_file, from_raw_file):
        np.testing.assert_array_equal(got, tone)
    for got in (
        content,
        bytearray(content),
        memoryview(content),
        io.BytesIO(content),
        Stream(content),
        Stream(bytearray(content)),
    ):
        np.testing.assert_array_equal(impl(got), tone)
    for rate in (24_000, np.int64(24_000), 24_000.0):
        np.testing.assert_array_equal(impl((tone, rate)), tone)


class PathLike:
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return str(self.path)


class Stream:
    """A stream that can only be read to its end, as a response from a server can."""

    def __init__(self, content):
        self.content = content

    def read(self):
        return self.content


def test_a_pipe_is_read_to_its_end(impl, tone):
    reads, writes = os.pipe()
    content = clips.encode(tone, 24_000)

    def fill():
        with open(writes, "wb") as begin:
            begin.write(content)

    thread = threading.Thread(target=fill)
    thread.start()
    with open(reads, "rb", buffering=0) as end:
        np.testing.assert_array_equal(impl(end), tone)
    thread.join()


def test_file_objects_that_cannot_be_read(impl, tone, tmp_path):
    path = tmp_path / "clip.wav"
    path.write_bytes(clips.encode(tone, 24_000))
    for encoding in ("utf-8", "latin-1"):
        with (
            open(path, encoding=encoding) as text,
            pytest.raises(ArgumentError, match=r'\(open\(path, "rb"\)\), got one .* text'),
        ):
            impl(text)
    with codecs.open(str(path), "r", "utf-8") as text, pytest.raises(ArgumentError, match="binary mode .* decodes text"):
        impl(text)
    with open(tmp_path / "out", "wb") as output, pytest.raises(FileError, match="out: .*read"):
        impl(output)
    closed = open(path, "rb")
    closed.close()
    with pytest.raises(ArgumentError, match="source: .*closed"):
        impl(closed)
    with open(path, "rb") as file:
        file.read()
        with pytest.raises(AudioError, match="reference clip: not an audio file: it is empty"):
            impl(file)
    for read in (None, "text", 5):
        with pytest.raises(ArgumentError, match=f"binary mode .* its read\\(\\) gave {type(read).__name__}"):
            impl(Stream(read))


@pytest.mark.parametrize(
    "url", ["https://example.com/a.wav", "http://localhost:8000//a.wav?x=1", "s3://bucket/a.wav", "file:///tmp/a.wav"]
)
def test_a_url_is_repeated_as_it_was_given(impl, url):
    for given in (url, Path(url)) if url in ("https://example.com/a.wav", "s3://bucket/a.wav") else (url,):
        with pytest.raises(FileError) as caught:
            impl(given)
        assert str(caught.value) == f"{url}: expected a file, got a URL; download it first"


def test_arrays_of_every_type(impl, tone):
    ints = np.round(tone * 32_768).astype(np.int16)
    np.testing.assert_array_equal(impl((ints, 24_000)), tone)
    np.testing.assert_array_equal(impl((ints.astype(np.int32) << 16, 24_000)), tone)
    np.testing.assert_array_equal(impl(((ints >> 8).astype(np.int8), 24_000)), (ints >> 8) / np.float32(128))
    np.testing.assert_array_equal(impl((((ints >> 8) + 128).astype(np.uint8), 24_000)), (ints >> 8) / np.float32(128))
    np.testing.assert_array_equal(impl((tone.astype(np.float64), 24_000)), tone)
    np.testing.assert_array_equal(impl((tone[:, None], 24_000)), tone)
    stereo = np.stack([tone, np.full_like(tone, 0.5)], axis=1)
    np.testing.assert_array_equal(impl((stereo, 24_000)), stereo.mean(axis=1))
    np.testing.assert_array_equal(impl((np.asfortranarray(stereo), 24_000)), stereo.mean(axis=1))
    np.testing.assert_array_equal(impl((tone[::-1], 24_000)), tone[::-1])
    for dtype in (">i2", "<i2", ">i4", ">f4", ">f8"):
        whole = ints.astype(np.int32) << 16 if dtype == ">i4" else ints if "i" in dtype else tone
        np.testing.assert_array_equal(impl((whole.astype(dtype), 24_000)), tone)
    np.testing.assert_array_equal(impl((tone.tolist(), 24_000)), tone)
    unaligned = np.frombuffer(b"x" + tone.tobytes(), np.uint8)[1:].view(np.float32)
    np.testing.assert_array_equal(impl((unaligned, 24_000)), tone)


def test_the_result_is_a_new_array(impl, tone):
    got = impl((tone, 24_000))
    got[:] = 0
    assert tone.any()


def test_five_seconds_are_too_short_and_one_sample_more_is_enough(impl):
    with pytest.raises(AudioError, match=r"must be longer than 5\.0 s, got 5\.000 s \(120000 samples at 24000 Hz\)"):
        impl((np.zeros(120_000, np.float32), 24_000))
    assert len(impl((np.zeros(120_001, np.float32), 24_000))) == 120_001
    with pytest.raises(AudioError, match="must be longer"):
        impl(clips.encode(np.zeros(40_000), 8_000))


@pytest.mark.parametrize("rate", [8_000, 12_000, 16_000, 24_000, 32_000, 48_000, 22_050, 44_100])
def test_another_rate_and_length_are_to_be_had(impl, rate):
    """What a conversion asks for, and librosa's ``load(…, sr=16000)`` gives: one resampling, not one over 24 kHz."""
    clip = clips.tones(rate, 0.6)
    got = impl((clip, rate), 16_000, 0.1)
    assert got.dtype == np.float32 and len(got) == math.ceil(len(clip) * (16_000 / rate))
    want = (soxr.resample(clip, rate, 16_000, quality="HQ") if rate != 16_000 else clip)[: len(got)]
    difference = got[: len(want)] - want
    assert np.linalg.norm(difference) < (1e-4 if rate % 1_000 else 1e-6) * np.linalg.norm(want)
    for samples, enough in ((1_600, False), (1_601, True)):
        source = (np.zeros(samples, np.float32), 16_000)
        if enough:
            assert len(impl(source, 16_000, 0.1)) == samples
        else:
            with pytest.raises(AudioError, match=r"longer than 0\.1 s, got 0\.100 s \(1600 samples at 16000 Hz\)"):
                impl(source, 16_000, 0.1)


def test_a_silent_clip_is_accepted_and_loud_samples_are_not_clipped(impl):
    assert not impl((np.zeros(130_000, np.int16), 24_000)).any()
    loud = np.full(130_000, 3.5, np.float32)
    np.testing.assert_array_equal(impl((loud, 24_000)), loud)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("encoded", [False, True])
def test_non_finite_samples(impl, tone, bad, encoded):
    holed = tone.copy()
    holed[77] = bad
    source = clips.encode(holed, 24_000, "WAV", "FLOAT") if encoded else (holed, 24_000)
    with pytest.raises(AudioError, match=r"reference clip: expected finite samples, got -?(?i:nan|inf) at 77"):
        impl(source)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(0, np.float32), "must be longer"),
        (np.zeros(1, np.float32), "must be longer"),
        (np.float32(0.5), r"shape \(\)"),
        (np.zeros((2, 3, 4), np.float32), r"shape \(2, 3, 4\)"),
        (np.zeros((0, 2), np.float32), "must be longer"),
        (np.zeros((2, 130_000), np.float32), r"time axis comes first \(array.T\)"),
        (np.zeros((1, 130_000), np.int16), r"got shape \(1, 130000\); the time axis comes first"),
        ([[0.0, 0.0], [0.0]], r"expected an array \[n\] or \[n, channels\]: "),
        ([0] * 9, "got int64"),
        (np.zeros(130_000, np.complex64), "got complex64"),
        (np.zeros(130_000, np.int64), "got int64"),
        (np.zeros(130_000, np.uint16), "got uint16"),
        (np.zeros(130_000, bool), "got bool"),
        (np.array(["a"] * 9), "got str"),
        (np.full(130_000, 1e300), "expected finite samples"),
        (None, "got object"),
    ],
)
def test_unusable_arrays(impl, array, message):
    with pytest.raises(AudioError, match=message):
        impl((array, 24_000))


@pytest.mark.parametrize("rate", [0, -24_000, 999, 768_001, 2**40, 44_100.5, float("nan"), float("inf"), "24000", None, True])
def test_unusable_rates(impl, tone, rate):
    with pytest.raises(AudioError, match="expected a sample rate of 1000 to 768000 Hz, got"):
        impl((tone, rate))


@pytest.mark.parametrize("rate", [0, 1, 4_000_000_000])
def test_unusable_rates_in_a_file(impl, tone, rate):
    content = bytearray(clips.encode(tone, 24_000))
    struct.pack_into("<I", content, 24, rate)
    with pytest.raises(AudioError, match="reference clip: "):
        impl(bytes(content))


@pytest.mark.parametrize(
    "content",
    [b"", b"R", b"RIFF", b"not audio " * 20_000, bytes(200_000), b"\xff" * 200_000, b"\x89PNG\r\n\x1a\n" * 9_000],
    ids=["empty", "one byte", "marker", "text", "zeros", "ones", "png"],
)
def test_not_audio(impl, content, tmp_path):
    with pytest.raises(AudioError, match="reference clip: not an audio file"):
        impl(content)
    path = tmp_path / "clip.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=r"clip\.wav: not an audio file"):
        impl(path)


def test_files_that_cannot_be_read(impl, tmp_path, tone):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").write_bytes(b"x")
    for path in ("missing.wav", "loop", "file/inside.wav", "x" * 5_000, "nul\0.wav"):
        with pytest.raises(FileError):
            impl(tmp_path / path)
    with pytest.raises(FileError, match="is a directory"):
        impl(tmp_path)
    locked = tmp_path / "locked.wav"
    locked.write_bytes(clips.encode(tone, 24_000))
    locked.chmod(0)
    if os.access(locked, os.R_OK):  # root reads everything
        np.testing.assert_array_equal(impl(locked), tone)
    else:
        with pytest.raises(FileError, match=r"locked\.wav: "):
            impl(locked)


@pytest.mark.parametrize("source", [(24_000, np.zeros(130_000, np.int16)), (np.int64(24_000), [0.0] * 130_000)])
def test_the_rate_comes_last(impl, source):
    with pytest.raises(ArgumentError, match=r"source: expected \(array, rate\), got the rate first"):
        impl(source)


@pytest.mark.parametrize("source", [None, 5, ["a"], (1, 2, 3), io.StringIO("text")])
def test_unusable_sources(impl, source):
    with pytest.raises(ArgumentError, match="source: expected"):
        impl(source)


def test_a_truncated_wav_is_read_up_to_its_end(impl, tone):
    content = clips.encode(tone, 24_000)
    np.testing.assert_array_equal(impl(content[: 44 + 2 * 125_000 + 1]), tone[:125_000])
    with pytest.raises(AudioError, match="must be longer"):
        impl(content[: 44 + 2 * 9_000])


def test_a_wav_written_to_a_pipe_has_no_lengths(impl, tone):
    content = bytearray(clips.encode(tone, 24_000))
    content[4:8] = content[40:44] = b"\xff" * 4
    np.testing.assert_array_equal(impl(bytes(content)), tone)


def test_a_truncated_mp3_is_read_up_to_its_end(impl):
    content = GOLDEN["mp3.file"].tobytes()
    whole, got = impl(content), impl(content[: len(content) * 97 // 100])
    assert 120_000 < len(got) < len(whole)
    np.testing.assert_array_equal(got, whole[: len(got)])


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("damage", ["overwritten", "removed"])
def test_damage_in_the_middle_is_never_skipped(impl, tone, kind, damage):
    content = clips.encode(tone, 24_000, "FLAC") if kind == "FLAC" else GOLDEN[f"{kind.lower()}.file"].tobytes()
    middle = len(content) // 2
    filler = b"" if damage == "removed" else np.random.default_rng(0).bytes(5_000)
    with pytest.raises(AudioError, match="reference clip: "):
        impl(content[:middle] + filler + content[middle + 5_000 :])


def test_a_truncated_flac_is_refused(impl, tone):
    content = clips.encode(tone, 24_000, "FLAC")
    with pytest.raises(AudioError, match="reference clip: .*damaged"):
        impl(content[: len(content) * 97 // 100])


RUST = importlib.import_module("chatterbox_turbo_rs.stages.reference.load.rust").load
PYTHON = importlib.import_module("chatterbox_turbo_rs.stages.reference.load.python").load


def opus(samples: np.ndarray, rate: int, level: float = 0.5) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format="OGG", subtype="OPUS", compression_level=level)
    return out.getvalue()


def with_head(content: bytes, at: int, value: bytes) -> bytes:
    """An Ogg file with other bytes in its first packet, and that page's checksum."""
    page = bytearray(content)
    page[28 + at : 28 + at + len(value)] = value
    end = 27 + page[26] + sum(page[27 : 27 + page[26]])
    page[22:26] = bytes(4)
    sum_ = 0
    for byte in page[:end]:
        sum_ ^= byte << 24
        for _ in range(8):
            sum_ = (sum_ << 1 ^ (0x04C11DB7 if sum_ & 1 << 31 else 0)) & 0xFFFFFFFF
    page[22:26] = struct.pack("<I", sum_)
    return bytes(page)


@pytest.mark.parametrize("rate", [8_000, 12_000, 16_000, 24_000, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0], ids=["music", "middle", "speech"])
def test_opus_is_read_as_libopus_reads_it(rate, channels, level):
    """Every mode (CELT, hybrid, SILK) at every rate; delay and padding are left out to the sample."""
    content = opus(clips.tones(rate, 5.4, channels), rate, level)
    got, want = RUST(content), PYTHON(content)
    assert len(got) == len(want) == round(5.4 * 24_000)
    assert np.abs(got - want).max() < 1e-4 and np.linalg.norm(got - want) < 1e-4 * np.linalg.norm(want)


@pytest.mark.parametrize("channels", [3, 6, 8])
def test_opus_of_many_channels(channels):
    content = opus(clips.tones(48_000, 5.4, channels), 48_000)
    got, want = RUST(content), PYTHON(content)
    assert len(got) == len(want) and np.linalg.norm(got - want) < 1e-4 * np.linalg.norm(want)


@pytest.mark.parametrize("gain", [-6.0, 0.5, 12.0])
def test_opus_of_another_gain(gain):
    plain = opus(clips.tones(24_000, 5.4), 24_000)
    louder = with_head(plain, 16, struct.pack("<h", round(gain * 256)))
    np.testing.assert_allclose(RUST(louder), RUST(plain) * 10 ** (gain / 20), rtol=2e-3, atol=1e-6)
    got, want = RUST(louder), PYTHON(louder)
    assert np.linalg.norm(got - want) < 1e-3 * np.linalg.norm(want)


def test_damaged_opus_is_refused():
    content = opus(clips.tones(24_000, 5.4), 24_000)
    middle = len(content) // 2
    for damaged in (content[:middle] + content[middle + 3_000 :], content[:middle] + bytes(3_000) + content[middle + 3_000 :]):
        with pytest.raises(AudioError, match="reference clip: ") as caught:
            RUST(damaged)
        assert not isinstance(caught.value, UnsupportedAudioError)
    for at, value in ((9, b"\0"), (9, b"\x09"), (18, b"\x01")):
        with pytest.raises(AudioError):
            RUST(with_head(content, at, value))


@pytest.mark.parametrize(
    ("form", "subtype", "name"),
    [
        ("RF64", "PCM_16", "RF64"),
        ("W64", "PCM_16", "Wave64"),
        ("AU", "PCM_16", "Sun AU"),
        ("WAV", "G721_32", "WAV"),
        ("VOC", "PCM_16", "VOC"),
        ("WAV", "IMA_ADPCM", "WAV IMA ADPCM"),
        ("WAV", "MS_ADPCM", "WAV Microsoft ADPCM"),
    ],
)
def test_what_rust_does_not_know_has_an_error_of_its_own(tone, tmp_path, form, subtype, name):
    """So that another reader can be asked, which reads it."""
    content = clips.encode(tone, 24_000, form, subtype)
    path = tmp_path / "clip.wav"
    path.write_bytes(content)
    for source, where in ((content, "reference clip: "), (path, f"{path}: ")):
        with pytest.raises(UnsupportedAudioError) as caught:
            RUST(source)
        message = str(caught.value)
        assert message.startswith(where) and name in message and "-ar 24000 -ac 1 OUT.wav" in message
        assert 0 <= len(PYTHON(source)) - len(tone) <= 2_048, "the last block of ADPCM is padded"


@pytest.mark.parametrize("channels", [5, 8, 16, 32, 64])
def test_many_channels_are_averaged_or_left_to_the_other_reader(channels):
    samples = np.stack([clips.tones(24_000, 5.4)] * channels, axis=1) * np.linspace(1, 0.5, channels, dtype=np.float32)
    content = clips.encode(samples, 24_000, "WAV", "FLOAT")
    want = PYTHON(content)
    try:
        got = RUST(content)
    except UnsupportedAudioError:
        assert channels > 8
    else:
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_decoding_stops_where_the_callback_says():
    """In the middle, not behind the end: what was done is counted."""
    content = clips.encode(np.tile(clips.tones(48_000, 60.0), 20), 48_000, "FLAC")
    seen = []

    def stop(stage: str, done: int, total: int) -> None:
        seen.append((stage, done, total))
        if done > 0:
            raise InterruptedError("enough")

    with pytest.raises(InterruptedError, match="enough"):
        RUST(content, callback=stop)
    stage, done, total = seen[-1]
    assert stage == "reference.load" and 0 < done < total


@pytest.mark.skipif(sys.platform == "win32", reason="no signal can be sent to oneself there")
@pytest.mark.parametrize("work", ["load", "resample", "loudness"])
def test_interrupt_ends_the_work_before_its_result(work):
    """Ctrl-C from another thread, sent as soon as the work has begun."""
    long = np.tile(clips.tones(24_000, 60.0), 40)
    call = {
        "load": lambda callback: RUST((np.repeat(long, 2), 48_000), callback=callback),
        "resample": lambda callback: _core.reference_resample(long, callback=callback),
        "loudness": lambda callback: _core.reference_loudness(long, callback=callback),
    }[work]
    sent = []

    def interrupt(stage: str, done: int, total: int) -> None:
        if not sent:
            sent.append(done)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        call(interrupt)
    assert sent
