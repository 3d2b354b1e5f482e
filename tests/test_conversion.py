"""Voice conversion: upstream's order on one piece, cuts and joins on many, hard sources, seeds, threads, no T3."""

from __future__ import annotations

import inspect
import io
import math
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from toy_model import TOY

from chatterbox_turbo_rs import ChatterboxTurbo, Speech, Voice
from chatterbox_turbo_rs.checkpoint import config
from chatterbox_turbo_rs.checkpoint.resources import Resources
from chatterbox_turbo_rs.engine import conversion, draws, registry
from chatterbox_turbo_rs.engine.pipeline import READ_BY_TEXT, Run
from chatterbox_turbo_rs.errors import (
    ArgumentError,
    AudioError,
    BackendError,
    CancelledError,
    CheckpointError,
    FileError,
    UnsupportedAudioError,
)
from chatterbox_turbo_rs.parity.metrics import compare, log_spectra
from chatterbox_turbo_rs.parity.recording import OF_A_SOURCE, Recorder
from chatterbox_turbo_rs.parity.tolerances import judge, limits

RATE, TOKEN, VOCODED = 16_000, 640, 960
STAGES = [key for key in registry.TABLE if key.startswith(("reference.load", "s3tokenizer", "s3gen")) and "prompt" not in key]
PLAIN = {"seed": 1, "watermark": None}


def talk(rate: int = RATE, seconds: float = 1.0, channels: int = 1, seed: int = 5) -> np.ndarray:
    """Something that is voiced and unvoiced in turn, float32 ``[n]`` or ``[n, channels]``."""
    t = np.arange(round(rate * seconds)) / rate
    voiced = sum(np.sin(2 * np.pi * 140 * k * t + 0.3 * np.sin(9 * t)) / k for k in range(1, 9))
    noise = np.random.default_rng(seed).standard_normal(len(t))
    mono = np.where(np.sin(2 * np.pi * 2.3 * t) > -0.3, 0.1 * voiced, 0.03 * noise) * (0.6 + 0.4 * np.sin(2 * np.pi * 0.7 * t))
    return mono.astype(np.float32) if channels == 1 else np.stack([mono] * channels, axis=1).astype(np.float32)


def paused(seconds: float, pauses: list[float], rate: int = RATE) -> np.ndarray:
    """``talk`` that is almost silent for 0.4 s around each of ``pauses``."""
    samples = talk(rate, seconds)
    t = np.arange(len(samples)) / rate
    for at in pauses:
        samples[np.abs(t - at) < 0.2] *= 0.001
    return samples


def encoded(samples: np.ndarray, rate: int, kind: str = "WAV", subtype: str | None = None) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=kind, subtype=subtype)
    return out.getvalue()


@pytest.fixture(scope="module")
def voice(toy, clip) -> Voice:
    return toy.voice(clip)


@pytest.fixture(scope="module")
def odd(voice) -> Voice:
    """A voice whose prompt has an odd number of frames: S3Gen's output is then one frame shorter."""
    mel = voice.s3gen_prompt_mel
    tokens, frames = len(voice.s3gen_prompt_tokens) - 1, len(mel) - 1 + len(mel) % 2
    return Voice(voice.speaker_embedding, voice.t3_prompt_tokens, voice.s3gen_prompt_tokens[:tokens], mel[:frames], voice.xvector)


@pytest.fixture(scope="module")
def long() -> np.ndarray:
    """60 s with pauses to cut at."""
    return paused(60.0, [13.0, 18.0, 29.5, 44.0, 52.0])


@pytest.fixture(scope="module")
def converted(toy, voice, long) -> Speech:
    return toy.convert((long, RATE), voice=voice, **PLAIN)


# one piece


def test_one_piece_is_what_upstream_computes(toy, voice):
    """Tokens of the whole source, S3Gen, watermark; no silence is put behind it, and no loudness changed."""
    samples = talk(seconds=1.01)
    speech = toy.convert((samples, RATE), voice=voice, seed=9)
    stage = lambda key: toy._pipeline.stage(key, "rust")  # noqa: E731
    tokens = stage("s3tokenizer.tokens")(stage("s3tokenizer.mel")(samples))
    assert np.array_equal(speech.tokens, tokens) and len(tokens) == 26
    mu = stage("s3gen.encoder")(np.concatenate([voice.s3gen_prompt_tokens, tokens]))
    mel = stage("s3gen.flow")(mu, voice.xvector, voice.s3gen_prompt_mel, draws.normals(9, draws.FLOW, 0, len(mu), 80))
    noise = draws.normals(9, draws.NOISE, 0, 480 * len(mel), 9)
    sound = stage("watermark")(stage("s3gen.vocoder")(mel, draws.phases(9, 9), noise))
    assert speech.samples.tobytes() == sound.tobytes() and len(sound) == VOCODED * 26


@pytest.mark.parametrize("side", ["rust", "python"])
@pytest.mark.parametrize("case", ["even", "odd"])
def test_equals_the_official_conversion(tiny_checkpoint, goldens, data, side, case):
    """``tools/goldens/conversion.py``: upstream's ``ChatterboxVC`` over the same S3Gen, with the draws of seed 77."""
    if reason := registry.missing("s3gen.flow", side) or registry.missing("watermark", side):
        pytest.skip(reason)
    with np.load(goldens / "conversion.npz") as stored:
        want = {name.partition(".")[2]: stored[name] for name in stored.files if name.startswith(f"{case}.")}
    settings = config.read(tiny_checkpoint / "config.json")
    recorder = Recorder(Resources(tiny_checkpoint, settings, precision="f32"), registry.resolve(side))
    recorder.uses = OF_A_SOURCE
    samples, rate = soundfile.read(data / "clips" / "short.flac", dtype="float32")
    run = Run(recorder, recorder.plan, None)
    source = conversion.load(run, (samples[30_000:54_000], rate))
    speaker, prompt = np.zeros(settings["voice_encoder"]["embedding_size"], np.float32), np.zeros(0, np.int64)
    voice = Voice(speaker, prompt, want["prompt_tokens"], want["prompt_mel"], want["xvector"])
    speech = conversion.convert(run, source, voice, 77, watermark=True)
    np.testing.assert_array_equal(speech.tokens, want["tokens"])
    mel = compare(want["mel"], recorder.take.arrays["s3gen.flow/out.mel"])
    assert not judge(mel, limits("s3gen.flow", "chained")), mel
    sound = compare(*log_spectra(want["samples"], speech.samples))
    assert not judge(sound, limits("end_to_end@spectrum", "chained")), sound
    assert len(set(want["tokens"].tolist())) > 10 and np.abs(want["samples"][2_000:]).max() > 0.01, "a dead signal"


def test_the_result_says_how_it_came_about(toy, voice):
    speech = toy.convert((talk(), RATE), voice=voice, seed=3)
    assert isinstance(speech, Speech) and speech.samples.dtype == np.float32 and speech.samples.ndim == 1
    assert (speech.sample_rate, speech.seed, speech.watermarked, speech.text, speech.finish_reason) == (
        24_000,
        3,
        True,
        "",
        "stop",
    )
    assert dict(speech.plan) == dict(toy.plan)
    assert set(speech.timings) == {*STAGES, "draws", "watermark"} and all(value >= 0 for value in speech.timings.values())
    assert np.isfinite(speech.samples).all() and np.abs(speech.samples[2_000:]).max() > 0.001


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_sources_of_every_rate_are_as_long_afterwards(toy, voice, odd, rate, channels):
    seconds = 1.37
    for own, tolerance in ((voice, VOCODED), (odd, VOCODED)):
        speech = toy.convert((talk(rate, seconds, channels), rate), voice=own, **PLAIN)
        assert abs(len(speech.samples) - 24_000 * seconds) < tolerance
        assert np.isfinite(speech.samples).all() and speech.samples.any()


def test_the_forms_of_a_source_are_one(toy, voice, tmp_path):
    ints = np.round(talk() * 32_768).astype(np.int16)
    expected = toy.convert((ints, RATE), voice=voice, **PLAIN).samples.tobytes()
    content = encoded(ints, RATE)
    path = tmp_path / "somebody.wav"
    path.write_bytes(content)
    floats, stereo = ints / np.float32(32_768), np.stack([ints, ints], axis=1)
    for source in (path, str(path), content, bytearray(content), io.BytesIO(content), (floats, RATE), (stereo, RATE)):
        assert toy.convert(source, voice=voice, **PLAIN).samples.tobytes() == expected
    flac = encoded(ints, RATE, "FLAC")
    assert toy.convert(flac, voice=voice, **PLAIN).samples.tobytes() == expected
    for kind, subtype in (("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None), ("AIFF", None)):
        speech = toy.convert(encoded(talk(24_000), 24_000, kind, subtype), voice=voice, **PLAIN)
        assert abs(speech.seconds - 1.0) < 0.1, kind


def test_the_voice_in_every_form(toy, voice, clip, tmp_path):
    voice.save(tmp_path / "v.safetensors")
    source = (talk(), RATE)
    expected = toy.convert(source, voice=voice, **PLAIN).samples.tobytes()
    for form in (tmp_path / "v.safetensors", str(clip), clip):
        assert toy.convert(source, voice=form, **PLAIN).samples.tobytes() == expected
    builtin = toy.convert(source, **PLAIN).samples.tobytes()
    assert builtin == toy.convert(source, voice=toy.builtin_voice, **PLAIN).samples.tobytes() != expected
    assert toy.convert(source, voice=clip, loudness=None, **PLAIN).samples.tobytes() != expected


def test_what_rust_does_not_read_python_does(toy, voice):
    source = encoded(talk(), RATE, "AU", "PCM_16")
    speech = toy.convert(source, voice=voice, **PLAIN)
    assert speech.plan["reference.load"] == "python" and speech.plan["s3gen.flow"] == "rust"
    with pytest.raises(UnsupportedAudioError, match=r"^source: "):
        toy.convert(source, voice=voice, backends="reference.load=rust", **PLAIN)


# many pieces


def test_a_long_source_is_cut_in_its_pauses(long):
    starts = conversion.cuts(long)
    assert starts[0] == 0 and starts == sorted(starts)
    seconds = [start / 25 for start in starts[1:]]
    assert all(min(abs(at - pause) for pause in (13.0, 18.0, 29.5, 44.0, 52.0)) < 0.2 for at in seconds), seconds


def test_pieces_are_neither_long_nor_tiny():
    noise = np.random.default_rng(1).standard_normal(200 * RATE).astype(np.float32)
    for total in (500, 501, 502, 600, 625, 626, 747, 748, 998, 999, 1_000, 1_250, 2_000, 4_999):
        for spare in (-639, -160, 0, 159):
            samples = noise[: total * TOKEN + spare]
            tokens = conversion.token_count(samples)
            assert tokens == total if spare >= -480 else tokens in (total - 1, total)
            starts = conversion.cuts(samples)
            ends = [*starts[1:], tokens]
            lengths = [end - start + (2 if start else 0) for start, end in zip(starts, ends)]
            assert max(lengths) <= 500 and (len(lengths) == 1 or min(lengths) >= 125), (total, lengths)
            assert (len(lengths) == 1) == (tokens <= 500)


@pytest.mark.parametrize("level", [0.0, 0.1, 1e20])
def test_a_steady_source_is_cut_into_long_pieces(level):
    """Of equally quiet places the last one is taken: few pieces."""
    starts = conversion.cuts(np.full(100 * RATE, level, np.float32))
    assert np.diff([*starts, 2_500]).tolist() == [500, 498, 498, 498, 381, 125]


def test_the_joined_sound_is_as_long_as_the_source(toy, converted, long, odd):
    assert len(converted.samples) == VOCODED * len(converted.tokens) == 60 * 24_000
    assert len(toy.convert((long, RATE), voice=odd, **PLAIN).samples) == 60 * 24_000 - 480
    assert np.isfinite(converted.samples).all()


@pytest.mark.parametrize("own", ["voice", "odd"])
def test_every_piece_stands_where_it_was_said(toy, long, own, request):
    """Each is its part of the source, converted alone with its own seed, two tokens early; the rest of the sound is the fade."""
    voice = request.getfixturevalue(own)
    short = 480 if own == "odd" else 0
    speech = toy.convert((long, RATE), voice=voice, **PLAIN)
    starts = conversion.cuts(long)
    assert len(starts) >= 3
    before = None
    for index, (start, end) in enumerate(zip(starts, [*starts[1:], 1_500])):
        early = start - (2 if index else 0)
        alone = toy.convert((long[early * TOKEN : end * TOKEN], RATE), voice=voice, seed=draws.derived(1, index), watermark=None)
        assert np.array_equal(speech.tokens[start:end], alone.tokens[start - early :])
        stands = slice(start * VOCODED - (short if index else 0), end * VOCODED - short - (480 if end < 1_500 else 0))
        there = speech.samples[stands]
        assert np.array_equal(
            there, alone.samples[: len(there)] if index == 0 else alone.samples[-(end - start) * VOCODED :][: len(there)]
        )
        if before is not None:
            rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(480) + 0.5) / 480)
            head = alone.samples[-(end - start) * VOCODED - 480 :][:480]
            faded = before * (1 - rise) + head * rise
            at = start * VOCODED - short
            np.testing.assert_allclose(speech.samples[at - 480 : at], faded, atol=1e-6)
        before = alone.samples[-480:].astype(np.float64)


def test_a_silence_inside_a_long_source_is_no_silence(toy, voice):
    """Of a source with 25 s of digital silence in it, what is there is converted."""
    samples = np.concatenate([talk(seconds=3), np.zeros(25 * RATE, np.float32), talk(seconds=3)])
    speech = toy.convert((samples, RATE), voice=voice, **PLAIN)
    assert len(speech.samples) == 31 * 24_000 and np.isfinite(speech.samples).all()


# hard sources


def test_noise_and_music_are_converted(toy, voice):
    noise = np.random.default_rng(2).uniform(-1, 1, RATE).astype(np.float32)
    t = np.arange(2 * 44_100) / 44_100
    chord = 0.2 * sum(np.sin(2 * np.pi * f * t) for f in (220, 277.18, 329.63, 440)).astype(np.float32)
    for source in ((noise, RATE), (chord, 44_100), (np.full(RATE, 0.5, np.float32), RATE), (1e-6 * talk(), RATE)):
        speech = toy.convert(source, voice=voice, **PLAIN)
        assert np.isfinite(speech.samples).all() and np.abs(speech.samples).max() <= 1.0


def test_the_shortest_source(toy, voice, odd):
    for own, length in ((voice, 2_880), (odd, 2_400)):
        assert len(toy.convert((talk()[:1_601], RATE), voice=own, **PLAIN).samples) == length
    with pytest.raises(AudioError, match=r"^source: must be longer than 0\.1 s, got 0\.100 s \(1600 samples at 16000 Hz\)$"):
        toy.convert((talk()[:1_600], RATE), voice=voice)


SILENCE = np.zeros(RATE, np.float32)


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ((SILENCE, RATE), AudioError, r"^source: expected sound, got silence \(1\.00 s in which every sample is 0\)$"),
        ((np.zeros((RATE, 2), np.int16), RATE), AudioError, "^source: expected sound, got silence"),
        ((talk(seconds=0.05), RATE), AudioError, r"^source: must be longer than 0\.1 s, got 0\.050 s"),
        ((talk()[:0], RATE), AudioError, r"^source: must be longer than 0\.1 s, got 0\.000 s"),
        ((np.full(RATE, math.nan, np.float32), RATE), AudioError, "^source: expected finite samples, got (nan|NaN) at 0$"),
        ((np.array([0.1] * 9_999 + [math.inf]), RATE), AudioError, "^source: expected finite samples, got inf at 9999$"),
        ((np.full(RATE, 1e300), RATE), AudioError, "^source: expected finite samples, got inf at 0$"),
        (b"", AudioError, "^source: not an audio file: it is empty"),
        (b"just text\n" * 500, AudioError, "^source: not an audio file"),
        ("nowhere.wav", FileError, "^nowhere.wav: No such file"),
        (".", FileError, r"^\.: is a directory"),
        ("https://example.com/a.wav", FileError, "^https://example.com/a.wav: expected a file, got a URL"),
        ((talk(), 10), AudioError, "^source: expected a sample rate of 1000 to 768000 Hz, got 10 Hz"),
        ((talk(channels=2).T, RATE), AudioError, r"^source: expected \[n, channels\] .* the time axis comes first"),
        ((RATE, talk()), ArgumentError, r"^source: expected \(array, rate\), got the rate first"),
        ((talk().astype(complex), RATE), AudioError, "^source: expected float, .* got complex128"),
        (None, ArgumentError, "^source: expected a path, bytes, a binary file object or .*, got NoneType"),
        (3, ArgumentError, "^source: expected a path, .* got int"),
        (talk(), ArgumentError, "^source: expected a path, .* got ndarray"),
        (io.StringIO("x"), ArgumentError, "^source: expected a file object opened in binary mode"),
    ],
    ids=lambda found: None if isinstance(found, (tuple, np.ndarray, io.IOBase)) else str(found)[:30],
)
def test_sources_that_are_refused(toy, voice, source, kind, message):
    with pytest.raises(kind, match=message) as caught:
        toy.convert(source, voice=voice)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_a_file_that_cannot_be_used_is_named(toy, voice, tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    for content, says in (
        (encoded(SILENCE, RATE, ending.upper()), "expected sound, got silence"),
        (encoded(talk(seconds=0.05), RATE, ending.upper()), "must be longer than 0.1 s"),
        (b"RIFF....", "a."),
    ):
        path.write_bytes(content)
        with pytest.raises(AudioError) as caught:
            toy.convert(path, voice=voice)
        assert str(caught.value).startswith(f"{path}: ") and says in str(caught.value)


def test_a_sound_beyond_every_scale_is_one_error_or_a_sound(toy, voice):
    for level in (1e4, 1e20, 3e38):
        try:
            speech = toy.convert(((level * talk()).astype(np.float32), RATE), voice=voice, **PLAIN)
        except AudioError as error:
            assert re.match(r"source: expected samples with a full scale of 1, got \d", str(error)) and level > 1e4
        else:
            assert np.isfinite(speech.samples).all()


BAD_ARGUMENTS = {
    "seed": [-1, 2**64, 1.0, "1", True],
    "loudness": ["x", 3, True],
    "watermark": ["x", 3, True, False],
    "progress": ["x", 3],
    "cancel": ["x", 3],
    "voice": [3, b"RIFF", (np.zeros(3), 24_000)],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD_ARGUMENTS.items() for value in values])
def test_arguments_are_refused_by_name(toy, name, value):
    with pytest.raises(ArgumentError, match=rf"^{name}: expected "):
        toy.convert((talk(), RATE), **{**PLAIN, name: value})


def test_every_argument_is_described():
    names = [name for name in inspect.signature(ChatterboxTurbo.convert).parameters if name != "self"]
    assert [name for name in names if f"``{name}``" not in (ChatterboxTurbo.convert.__doc__ or "")] == []


# seeds, threads, progress


def test_the_same_seed_gives_the_same_bits(toy, voice, long, converted):
    assert toy.convert((long, RATE), voice=voice, **PLAIN).samples.tobytes() == converted.samples.tobytes()
    other = toy.convert((long, RATE), voice=voice, seed=2, watermark=None)
    assert np.array_equal(other.tokens, converted.tokens) and other.samples.tobytes() != converted.samples.tobytes()
    drawn = toy.convert((talk(), RATE), voice=voice, watermark=None)
    again = toy.convert((talk(), RATE), voice=voice, watermark=None, seed=drawn.seed)
    assert drawn.samples.tobytes() == again.samples.tobytes()


def test_processes_with_other_numbers_of_threads_give_the_same_bits(clip):
    program = (
        "import hashlib, sys, numpy as np\n"
        "from chatterbox_turbo_rs import ChatterboxTurbo\n"
        f"tts = ChatterboxTurbo.from_pretrained({str(TOY)!r}, t3=False)\n"
        "noise = np.random.default_rng(3).uniform(-0.3, 0.3, 22 * 16_000).astype(np.float32)\n"
        f"speech = tts.convert((noise, 16_000), voice={str(clip)!r}, seed=5)\n"
        "print(len(speech.samples), hashlib.sha256(speech.samples.tobytes()).hexdigest(), 'torch' in sys.modules)\n"
    )
    found = set()
    for threads in ("1", "2", "3"):
        environment = os.environ | {"RAYON_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=300
        )
        found.add(done.stdout)
    assert len(found) == 1
    length, _, torch = found.pop().split()
    assert (length, torch) == (str(22 * 24_000), "False")


def test_threads_that_share_a_model_get_what_one_thread_gets(toy, voice):
    sources = [talk(seconds=1 + index, seed=index) for index in range(2)]

    def convert(index: int) -> bytes:
        return toy.convert((sources[index], RATE), voice=voice, seed=index).samples.tobytes()

    expected = [convert(index) for index in range(2)]
    found: dict[int, bytes] = {}
    threads = [threading.Thread(target=lambda index=index: found.update({index: convert(index)})) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [found.get(index) for index in range(2)] == expected


def test_progress_counts_stages_and_pieces(toy, voice, long):
    seen: list[tuple[str, int, int]] = []
    toy.convert((long, RATE), voice=voice, **PLAIN, progress=lambda *found: seen.append(found))
    assert {stage for stage, _, _ in seen} == {*STAGES, "pieces"}
    pieces = [(done, total) for stage, done, total in seen if stage == "pieces"]
    total = len(conversion.cuts(long))
    assert pieces == [(index + 1, total) for index in range(total)]


@pytest.mark.parametrize(
    "stage", ["reference.load", "s3tokenizer.tokens", "s3gen.encoder", "s3gen.flow", "s3gen.vocoder", "watermark"]
)
def test_it_can_be_cancelled_in_the_middle(toy, voice, long, stage):
    """Of the second piece, where there is one."""
    event, seen = threading.Event(), []

    def look(at: str, done: int, total: int) -> None:
        seen.append((at, done, total))
        if at == stage and (stage == "reference.load" or ("pieces", 1) in [found[:2] for found in seen]):
            event.set()

    with pytest.raises(CancelledError, match=rf"^cancelled during {stage}"):
        toy.convert((long, RATE), voice=voice, seed=1, progress=look, cancel=event)
    assert stage == "reference.load" or seen[-1][0] == stage and ("pieces", 2) not in [found[:2] for found in seen]
    with pytest.raises(CancelledError):
        toy.convert((long, RATE), voice=voice, seed=1, progress=lambda *_: False)


def test_the_watermark_is_there_on_every_piece(toy, voice):
    """Of noise, which is loud enough for the mark everywhere."""
    samples = np.random.default_rng(7).uniform(-0.3, 0.3, 24 * RATE).astype(np.float32)
    marked = toy.convert((samples, RATE), voice=voice, seed=1)
    bare = toy.convert((samples, RATE), voice=voice, **PLAIN)
    assert marked.watermarked and not bare.watermarked and len(marked.samples) == len(bare.samples)
    middle = conversion.cuts(samples)[1] * VOCODED
    for part in (slice(None), slice(0, middle), slice(middle, None)):
        assert toy.detect_watermark(marked.samples[part]) > 0.9 and toy.detect_watermark(bare.samples[part]) < 0.5


# the switch


@pytest.mark.parametrize("key", [*STAGES, "watermark"])
def test_every_stage_on_either_side(toy, voice, key):
    options = {"voice": voice, "seed": 11, "watermark": "perth" if key == "watermark" else None}
    source = (talk(24_000, 1.2), 24_000)
    if reason := registry.missing(key, "python"):
        with pytest.raises(BackendError, match=f"{key}=python: "):
            toy.convert(source, backends=f"rust,{key}=python", **options)
        pytest.skip(reason)
    rust, python = (toy.convert(source, backends=plan, **options) for plan in ("rust", f"rust,{key}=python"))
    assert python.plan[key] == "python" and rust.plan[key] == "rust"
    np.testing.assert_array_equal(python.tokens, rust.tokens)
    figures = compare(*log_spectra(rust.samples, python.samples))
    assert not judge(figures, limits("end_to_end@spectrum", "chained")), figures


@pytest.mark.skipif(registry.missing("s3gen.flow", "python") is not None, reason=str(registry.missing("s3gen.flow", "python")))
def test_a_source_of_two_pieces_on_both_sides(tiny_checkpoint, clip):
    tts = ChatterboxTurbo.from_pretrained(tiny_checkpoint, precision="f32", t3=False)
    source = (paused(23.0, [14.0]), RATE)
    rust, python = (tts.convert(source, voice=clip, seed=4, backends=side) for side in ("rust", "python"))
    assert set(python.plan.values()) == {"python"} and len(rust.tokens) == 575
    np.testing.assert_array_equal(python.tokens, rust.tokens)
    assert not judge(compare(*log_spectra(rust.samples, python.samples)), limits("end_to_end@spectrum", "chained"))
    assert not any(key in READ_BY_TEXT for key, _ in tts._pipeline._stages)


# no T3


def test_t3_is_not_loaded(toy, tiny_checkpoint, clip, voice):
    tts = ChatterboxTurbo.from_pretrained(TOY, precision="f32", t3=False)
    source = (talk(), RATE)
    speech = tts.convert(source, voice=clip, seed=1)
    built = {key for key, _ in tts._pipeline._stages}
    assert not built & {*READ_BY_TEXT, "t3.sampler"} and "s3gen.vocoder" in built
    assert speech.samples.tobytes() == toy.convert(source, voice=voice, seed=1).samples.tobytes()
    # it is there when it is needed
    spoken = tts.generate("Hello.", voice=voice, seed=1, max_tokens=4)
    assert spoken.samples.tobytes() == toy.generate("Hello.", voice=voice, seed=1, max_tokens=4).samples.tobytes()
    assert "t3.decoder" in {key for key, _ in tts._pipeline._stages}
    for bad in (None, 1, "no"):
        with pytest.raises(ArgumentError, match="^t3: expected True or False, got "):
            ChatterboxTurbo.from_pretrained(TOY, t3=bad)


def test_a_damaged_t3_does_not_matter(tiny_checkpoint, clip, tmp_path):
    """Its tensors are not read: one of them has a NaN in it."""
    for path in Path(tiny_checkpoint).iterdir():
        shutil.copy(path, tmp_path)
    t3 = tmp_path / "t3_turbo_v1.safetensors"
    content = bytearray(t3.read_bytes())
    middle = len(content) // 2 // 4 * 4
    content[middle - 200_000 : middle + 200_000] = b"\xff" * 400_000  # NaN as float32
    t3.write_bytes(content)
    with pytest.raises(CheckpointError):
        ChatterboxTurbo.from_pretrained(tmp_path)
    tts = ChatterboxTurbo.from_pretrained(tmp_path, t3=False)
    assert len(tts.convert((talk(), RATE), voice=clip, seed=1).samples) == 24_000
    with pytest.raises(CheckpointError):
        tts.generate("Hello.", voice=clip, max_tokens=2)
