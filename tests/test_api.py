"""The public API: what a request returns, seeds, the switch, and what stands at import."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

import chatterbox_turbo_rs
from chatterbox_turbo_rs import ChatterboxTurbo, Speech, Voice
from chatterbox_turbo_rs.engine import registry
from chatterbox_turbo_rs.errors import ArgumentError, BackendError, FileError

SHORT = {"max_tokens": 6, "watermark": None}
TWO_SIDED = [key for key, sides in registry.TABLE.items() if len(sides) == 2]
OF_A_VOICE = [key for key in TWO_SIDED if not key.startswith(("text.", "t3.", "watermark"))]
OF_SPEECH = [key for key in TWO_SIDED if key not in OF_A_VOICE]
VOICE_ARRAYS = ("speaker_embedding", "t3_prompt_tokens", "s3gen_prompt_tokens", "s3gen_prompt_mel", "xvector")


@pytest.fixture(scope="module")
def rust_voice(demo, clip):
    return demo.voice(clip, backends="rust")


def test_speech_says_how_it_came_about(demo):
    speech = demo.generate("hello  there", seed=3, max_tokens=6)
    assert isinstance(speech, Speech)
    assert speech.samples.dtype == np.float32 and speech.samples.ndim == 1 and np.isfinite(speech.samples).all()
    assert speech.sample_rate == demo.sample_rate == 24_000
    assert (speech.seed, speech.text, speech.watermarked) == (3, "Hello there.", True)
    # upstream's loop gives one token more than its limit; three silences follow; 960 samples a token
    assert len(speech.tokens) <= 1 + 6 + 3 and (speech.tokens[-3:] == 4299).all()
    assert len(speech.samples) == 960 * len(speech.tokens) == len(speech)
    assert speech.seconds == len(speech.samples) / 24_000
    assert dict(speech.plan) == dict(demo.plan)
    assert {"text.normalize", "text.tokenize", "t3", "s3gen.flow", "watermark"} <= speech.timings.keys()
    assert all(seconds >= 0 for seconds in speech.timings.values())
    np.testing.assert_array_equal(np.asarray(speech), speech.samples)
    assert np.asarray(speech, np.float64).dtype == np.float64
    assert "0." in repr(speech) and "seed=3" in repr(speech)
    assert speech._repr_html_().startswith("<audio controls")
    assert not demo.generate("Hello.", seed=3, **SHORT).watermarked


def test_every_file_format_is_read_back(demo, tmp_path):
    speech = demo.generate("Hello.", seed=3, max_tokens=20, watermark=None)
    for ending, tolerance in {"wav": 1e-4, "WAV": 1e-4, "flac": 1e-4, "aiff": 1e-4, "ogg": 0.3, "mp3": 0.3}.items():
        path = tmp_path / f"sound.{ending}"
        speech.save(path)
        samples, rate = soundfile.read(path, dtype="float32")
        assert rate == 24_000 and samples.ndim == 1
        if tolerance < 0.1:
            assert np.abs(samples - np.clip(speech.samples, -1, 1)).max() < tolerance
        else:  # a lossy format: the energy is there
            assert 0.5 < np.linalg.norm(samples) / np.linalg.norm(speech.samples) < 2
        assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert len(os.listdir(tmp_path)) == 6
    for bad in ("sound", "sound.txt", "wav", 3, None):
        with pytest.raises(ArgumentError, match="expected"):
            speech.save(bad)
    with pytest.raises(FileError, match=r"nowhere/x\.wav"):
        speech.save(tmp_path / "nowhere" / "x.wav")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_same_seed_gives_the_same_bits(demo):
    first, again, other = (demo.generate("Hello there.", seed=seed, **SHORT) for seed in (7, 7, 8))
    assert first.samples.tobytes() == again.samples.tobytes()
    assert first.samples.tobytes() != other.samples.tobytes()
    for seed in (0, 2**64 - 1):
        assert demo.generate("Hello.", seed=seed, **SHORT).seed == seed


def test_a_drawn_seed_is_recorded_and_reproduces(demo):
    first, second = (demo.generate("Hello there.", **SHORT) for _ in range(2))
    assert first.seed != second.seed
    assert demo.generate("Hello there.", seed=first.seed, **SHORT).samples.tobytes() == first.samples.tobytes()


def test_two_processes_with_other_numbers_of_threads_give_the_same_bits(clip):
    program = f"""
import hashlib, sys
from chatterbox_turbo_rs import ChatterboxTurbo
tts = ChatterboxTurbo.from_pretrained("demo")
voice = tts.voice({str(clip)!r})
speech = tts.generate("Hello there.", voice=voice, seed=5, max_tokens=12)
digest = hashlib.sha256(speech.samples.tobytes())
for name in {VOICE_ARRAYS!r}:
    digest.update(getattr(voice, name).tobytes())
print(digest.hexdigest(), "torch" in sys.modules, "scipy" in sys.modules)
"""
    printed = {threads: _python(program, RAYON_NUM_THREADS=threads) for threads in ("1", "2")}
    assert printed["1"] == printed["2"]
    digest, torch, scipy = printed["1"].split()
    assert len(digest) == 64
    assert (torch, scipy) == ("False", "False"), "the Rust plan imports what it does not need"


def _python(program: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_is_light():
    program = "import sys, chatterbox_turbo_rs, chatterbox_turbo_rs.cli.main, chatterbox_turbo_rs.tts_turbo; print(*sys.modules)"
    loaded = set(_python(program).split())
    heavy = {"torch", "librosa", "transformers", "scipy", "soundfile", "soxr", "pyloudnorm", "tokenizers", "huggingface_hub"}
    assert not loaded & heavy


@pytest.mark.parametrize("key", OF_A_VOICE)
def test_a_stage_of_a_voice_in_python(demo, clip, rust_voice, key):
    if reason := registry.missing(key, "python"):
        with pytest.raises(BackendError, match=f"{key}=python: "):
            demo.voice(clip, backends=f"rust,{key}=python")
        pytest.skip(reason)
    voice = demo.voice(clip, backends=f"rust,{key}=python")
    for name in ("t3_prompt_tokens", "s3gen_prompt_tokens"):
        np.testing.assert_array_equal(getattr(voice, name), getattr(rust_voice, name))
    for name in ("speaker_embedding", "xvector", "s3gen_prompt_mel"):
        want, got = getattr(rust_voice, name), getattr(voice, name)
        assert np.linalg.norm(got - want) <= 1e-3 * np.linalg.norm(want), name


@pytest.mark.parametrize("key", OF_SPEECH)
def test_a_stage_of_speech_in_python(demo, key):
    options = {"seed": 11, "max_tokens": 12, "watermark": "perth" if key == "watermark" else None}
    if reason := registry.missing(key, "python"):
        with pytest.raises(BackendError, match=f"{key}=python: "):
            demo.generate("hello [laugh] there", backends=f"rust,{key}=python", **options)
        pytest.skip(reason)
    rust = demo.generate("hello [laugh] there", backends="rust", **options)
    python = demo.generate("hello [laugh] there", backends=f"rust,{key}=python", **options)
    assert python.plan[key] == "python" and rust.plan[key] == "rust"
    assert python.text == rust.text
    np.testing.assert_array_equal(python.tokens, rust.tokens)
    np.testing.assert_allclose(python.samples, rust.samples, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("parameters", [{}, {"temperature": 1.7, "top_p": 1.0}, {"top_k": 40, "repetition_penalty": 2.0}])
def test_the_two_token_loops_agree(demo, seed, parameters):
    one, other = (
        demo.generate("Hello there.", seed=seed, max_tokens=40, watermark=None, backends=f"rust,t3.sampler={side}", **parameters)
        for side in ("rust", "python")
    )
    np.testing.assert_array_equal(one.tokens, other.tokens)
    assert one.samples.tobytes() == other.samples.tobytes()


def test_the_switch_of_a_request_is_stronger_than_the_models(demo, monkeypatch):
    tts = ChatterboxTurbo.from_pretrained("demo", backends="text=python")
    assert tts.plan["text.normalize"] == "python"
    assert tts.generate("Hello.", seed=1, **SHORT).plan["text.tokenize"] == "python"
    assert tts.generate("Hello.", seed=1, backends={"text": "rust"}, **SHORT).plan["text.tokenize"] == "rust"
    monkeypatch.setenv("CHATTERBOX_BACKENDS", "t3.sampler=python")
    assert demo.generate("Hello.", seed=1, **SHORT).plan["t3.sampler"] == "python"


def test_the_plan_and_the_seed_are_logged(demo, caplog):
    with caplog.at_level(logging.INFO, logger="chatterbox_turbo_rs"):
        demo.generate("Hello.", seed=41, **SHORT)
    assert "plan rust" in caplog.text and "seed 41" in caplog.text


def test_every_parameter_reaches_the_sampler(demo):
    base = {"seed": 2, "max_tokens": 30, "watermark": None}
    usual = demo.generate("Hello there.", **base)
    for change in ({"temperature": 3.0}, {"top_p": 0.05}, {"top_k": 1}, {"repetition_penalty": 9.0}):
        assert not np.array_equal(demo.generate("Hello there.", **base, **change).tokens, usual.tokens), change
    greedy = {"temperature": 1.0, "top_k": 1, "repetition_penalty": 1.0}
    one, other = (demo.generate("Hello there.", seed=seed, max_tokens=30, watermark=None, **greedy) for seed in (1, 2))
    np.testing.assert_array_equal(one.tokens, other.tokens)


def test_whole_numbers_are_numbers(demo):
    base = {"seed": 2, "max_tokens": np.int32(6), "watermark": None}
    floats = demo.generate("Hi.", temperature=2.0, top_p=1.0, repetition_penalty=2.0, **base)
    ints = demo.generate("Hi.", temperature=2, top_p=1, repetition_penalty=2, top_k=np.int64(1000), **base)
    assert floats.samples.tobytes() == ints.samples.tobytes()


def test_the_voice_in_every_form(demo, clip, rust_voice, tmp_path):
    rust_voice.save(tmp_path / "v.safetensors")
    forms = [
        rust_voice,
        tmp_path / "v.safetensors",
        str(tmp_path / "v.safetensors"),
        Voice.load(tmp_path / "v.safetensors"),
        clip,
    ]
    results = {demo.generate("Hi.", voice=form, seed=1, **SHORT).samples.tobytes() for form in forms}
    assert len(results) == 1
    assert demo.generate("Hi.", voice=clip.with_name("long.flac"), seed=1, **SHORT).samples.tobytes() not in results
    builtin = demo.generate("Hi.", voice=demo.builtin_voice, seed=1, **SHORT)
    assert demo.generate("Hi.", seed=1, **SHORT).samples.tobytes() == builtin.samples.tobytes()


def test_loudness_of_the_reference(demo, clip):
    samples, rate = soundfile.read(clip, dtype="float32")
    loud, soft = ((samples * gain, rate) for gain in (1.0, 0.25))
    for method in ("bs1770", "rms"):
        one, other = (demo.voice(source, loudness=method).xvector for source in (loud, soft))
        np.testing.assert_allclose(one, other, atol=1e-3 * np.abs(one).max())
    one, other = (demo.voice(source, loudness=None).s3gen_prompt_mel for source in (loud, soft))
    assert np.abs(one - other).max() > 0.5


def test_a_loaded_model_does_not_change(demo):
    assert demo.config == demo.config and demo.config["name"] == "demo"
    demo.config["name"] = "other"
    assert demo.config["name"] == "demo"
    with pytest.raises(ValueError, match="read-only"):
        demo.builtin_voice.xvector[0] = 1


def test_the_watermark_is_there(demo):
    speech = demo.generate("Hello there, this is marked.", seed=1, max_tokens=100)
    bare = demo.generate("Hello there, this is marked.", seed=1, max_tokens=100, watermark=None)
    assert speech.watermarked and not bare.watermarked
    assert demo.detect_watermark(speech.samples) > 0.9
    assert demo.detect_watermark(bare.samples) < 0.5
    assert 0 < np.abs(speech.samples - bare.samples).max() < 0.2


def test_the_names_of_the_package():
    assert sorted(chatterbox_turbo_rs.__all__) == ["ChatterboxError", "ChatterboxTurbo", "Plan", "Speech", "Voice", "available"]
    table = chatterbox_turbo_rs.available()
    assert table.keys() == registry.TABLE.keys()
    assert all(reason is None or reason for sides in table.values() for reason in sides.values())
