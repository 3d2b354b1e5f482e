"""Hard input works as upstream does, or is refused by one clear error before anything is computed."""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from toy_model import TOY

from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.engine import registry
from chatterbox_turbo_rs.errors import (
    ArgumentError,
    AudioError,
    BackendError,
    CheckpointError,
    DeviceError,
    FileError,
    TextError,
    TruncationWarning,
    VoiceError,
)

SHORT = {"seed": 1, "max_tokens": 2, "watermark": None}
NAN, INF = math.nan, math.inf


def encoded(samples: np.ndarray, rate: int, kind: str = "WAV", subtype: str | None = None) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=kind, subtype=subtype)
    return out.getvalue()


def tone(rate: int, seconds: float = 5.2, channels: int = 1) -> np.ndarray:
    t = np.arange(int(rate * seconds)) / rate
    mono = (0.3 * np.sin(2 * np.pi * 180 * t) * np.sin(2 * np.pi * 1.1 * t)).astype(np.float32)
    return mono if channels == 1 else np.stack([mono * (1 - 0.1 * c) for c in range(channels)], axis=1)


# texts


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("", "You need to add some text for me to talk."),
        ("[laugh]", "[laugh]."),
        ("   ", "."),
        ("\n\t", "."),
        ("a\0b", "A\0b."),
        ("🙂", "🙂."),
        ("e\u0301\u202eabc", "E\u0301\u202eabc."),
    ],
)
def test_texts_that_upstream_speaks(toy, text, spoken):
    speech = toy.generate(text, **SHORT)
    assert speech.text == spoken
    assert len(speech.samples) and np.isfinite(speech.samples).all()


@pytest.mark.parametrize("text", [None, 3, b"Hello", ["Hello"], Path("x")])
def test_texts_that_are_none(toy, text):
    with pytest.raises(ArgumentError, match=rf"^text: expected str, got {type(text).__name__}$"):
        toy.generate(text, **SHORT)


def test_half_a_surrogate_pair(toy):
    with pytest.raises(TextError, match=r"text: .*U\+D800"):
        toy.generate("a\ud800b", **SHORT)


def test_a_text_of_more_than_1024_tokens_is_cut_and_says_where(toy):
    text = "word " * 1100
    with pytest.warns(TruncationWarning, match=r"at most 1024 tokens, got \d+: only its first \d+ characters") as caught:
        speech = toy.generate(text, **SHORT, split="never")
    kept = int(str(caught[0].message).split("first ")[1].split()[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error", TruncationWarning)
        toy.generate("word " * 100, **SHORT, split="never")
    assert 1024 < kept < len(text)
    # what is cut off does not matter, and only that
    with pytest.warns(TruncationWarning):
        other = toy.generate(text + "and something else", **SHORT, split="never")
        before = toy.generate("Two " + text, **SHORT, split="never")
    assert other.samples.tobytes() == speech.samples.tobytes() != before.samples.tobytes()


# arguments

BAD_ARGUMENTS = {
    "temperature": ["x", None, NAN, INF, -INF, True, [0.8], 10**400, 1j],
    "top_p": [-0.1, "x", None, NAN, True, [0.9], 10**400],
    "top_k": [1.5, 5.0, "5", None, True, NAN],
    "repetition_penalty": [0, 0.0, -1, "x", None, NAN, INF, True, 1e-60, 1e300, 10**400],
    "seed": [-1, 2**64, 1.0, "1", True, NAN, [1]],
    "max_tokens": [0, -1, 1001, 2**70, 1.0, "1", None, True, NAN],
    "loudness": ["x", "BS1770", 3, True, ["rms"], {}, np.zeros(3)],
    "watermark": ["x", "PERTH", 3, True, False, {}, np.zeros(3)],
    "progress": ["x", 3, {}, [print]],
    "cancel": ["x", 3, {}, lambda: False],
    "voice": [3, b"RIFF", {}, np.zeros(3), (np.zeros(3), 24_000)],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD_ARGUMENTS.items() for value in values])
def test_arguments_of_generate_are_refused_by_name(toy, name, value):
    with pytest.raises(ArgumentError, match=rf"^{name}: expected ") as caught:
        toy.generate("Hi.", **{**SHORT, name: value})
    assert "\n" not in str(caught.value) or isinstance(value, np.ndarray)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("fast", "expected auto, python or rust, got 'fast'"),
        ("t4=rust", "unknown stage 't4'; the stages are text.normalize, "),
        ({"t3": "cuda"}, "expected auto, python or rust for t3, got 'cuda'"),
        ({3: "rust"}, "unknown stage 3"),
        (3, "expected a string or a dict, got int"),
        ("t3.decoder=python", "t3.decoder=python: not installed"),
    ],
)
def test_backends_that_do_not_exist(toy, value, message, monkeypatch):
    real = registry.missing
    monkeypatch.setattr(
        registry, "missing", lambda key, name: "not installed" if (key, name) == ("t3.decoder", "python") else real(key, name)
    )
    for call in (
        lambda: toy.generate("Hi.", **SHORT, backends=value),
        lambda: toy.voice("x.wav", backends=value),
        lambda: ChatterboxTurbo.from_pretrained(TOY, backends=value),
    ):
        with pytest.raises(BackendError) as caught:
            call()
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("device", "tpu", DeviceError),
        ("device", "cuda:x", DeviceError),
        ("device", None, DeviceError),
        ("device", 0, DeviceError),
        ("precision", "f17", ArgumentError),
        ("precision", None, ArgumentError),
        ("loudness", "ebu", ArgumentError),
        ("watermark", "other", ArgumentError),
        ("revision", 3, ArgumentError),
        ("tokenizer", 3, ArgumentError),
        ("tokenizer", "nowhere/tokenizer.json", CheckpointError),
        ("model", None, ArgumentError),
        ("model", 3, ArgumentError),
        ("model", b"demo", ArgumentError),
        ("model", "", ArgumentError),
        ("model", "nowhere", CheckpointError),
        ("model", "/nowhere/at/all", CheckpointError),
        ("model", "a\0b", CheckpointError),
        ("model", __file__, CheckpointError),
    ],
)
def test_arguments_of_from_pretrained(name, value, error):
    options = {"model": TOY, name: value}
    with pytest.raises(error) as caught:
        ChatterboxTurbo.from_pretrained(options.pop("model"), **options)
    named = str(value) if error is CheckpointError else name
    assert named in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("rate", ["24000", 0, -1, 1.5, 10**30])
def test_the_rate_of_samples_to_look_at(toy, rate):
    with pytest.raises(ArgumentError, match=r"^sample_rate: expected a whole number from 1000 to 768000"):
        toy.detect_watermark(np.ones(30_000, np.float32), rate)


# reference clips (the stage's own tests have the numbers)


@pytest.mark.parametrize(
    ("kind", "subtype", "rate", "channels"),
    [
        ("WAV", "PCM_U8", 8_000, 1),
        ("WAV", "PCM_24", 192_000, 1),
        ("WAV", "PCM_32", 44_100, 6),
        ("WAV", "FLOAT", 24_000, 2),
        ("FLAC", "PCM_16", 48_000, 2),
        ("OGG", "VORBIS", 44_100, 1),
        ("MP3", "MPEG_LAYER_III", 44_100, 2),
    ],
)
def test_every_kind_of_clip_gives_a_voice(toy, kind, subtype, rate, channels):
    voice = toy.voice(encoded(tone(rate, channels=channels), rate, kind, subtype))
    assert 250 <= 2 * len(voice.s3gen_prompt_tokens) <= len(voice.s3gen_prompt_mel) <= 266
    assert np.isfinite(voice.speaker_embedding).all() and abs(np.linalg.norm(voice.speaker_embedding) - 1) < 1e-3


@pytest.mark.parametrize("value", [0.0, 1e-30, 0.5, 100.0])
def test_a_constant_clip_still_gives_finite_sound(toy, value):
    speech = toy.generate("Hi.", voice=toy.voice((np.full(130_000, value, np.float32), 24_000)), **SHORT)
    assert np.isfinite(speech.samples).all()


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ((np.zeros(120_000, np.float32), 24_000), AudioError, r"must be longer than 5\.0 s, got 5\.000 s"),
        ((np.zeros(1, np.float32), 24_000), AudioError, r"must be longer than 5\.0 s"),
        ((np.full(130_000, np.nan, np.float32), 24_000), AudioError, r"expected finite samples, got (NaN|nan) at 0"),
        (encoded(np.zeros(40_000), 8_000), AudioError, r"must be longer than 5\.0 s"),
        (b"", AudioError, "not an audio file"),
        (b"RIFF\0\0\0\0WAVEfmt ", AudioError, "reference clip: "),
        (__file__, AudioError, "test_hard_input.py: not an audio file"),
        ("nowhere/clip.wav", FileError, "nowhere/clip.wav: No such file"),
        (str(Path(__file__).parent), FileError, "is a directory"),
        ("a\0b.wav", FileError, r"a\x00b\.wav: .*(NUL|null) byte"),
        (3, ArgumentError, "source: expected a path"),
        (None, ArgumentError, "source: expected a path"),
    ],
)
@pytest.mark.parametrize("side", ["rust", "python"])
def test_clips_that_are_refused(toy, source, error, message, side):
    with pytest.raises(error, match=message) as caught:
        toy.voice(source, backends=f"reference.load={side}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "error"),
    [("nowhere.wav", FileError), ("nowhere.safetensors", FileError), ("nowhere.pt", FileError), (__file__, AudioError)],
)
def test_voices_that_are_no_files(toy, path, error):
    with pytest.raises(error, match=Path(path).name):
        toy.generate("Hi.", voice=path, **SHORT)


def test_a_voice_file_of_garbage(toy, tmp_path):
    for name in ("v.safetensors", "v.pt"):
        (tmp_path / name).write_bytes(b"\x10\0\0\0\0\0\0\0garbage")
        with pytest.raises(VoiceError, match=name):
            toy.generate("Hi.", voice=tmp_path / name, **SHORT)


def test_a_model_without_a_voice_says_what_to_do(tiny_checkpoint):
    with pytest.raises(VoiceError, match=r"no built-in voice.*voice=tts\.voice\("):
        ChatterboxTurbo.from_pretrained(tiny_checkpoint).generate("Hi.", **SHORT)
