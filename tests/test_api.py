"""The public API: what a request returns, seeds, the switch, and what stands at import."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
import logging
import multiprocessing
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from toy_model import TOY

import chatterbox_turbo_rs
from chatterbox_turbo_rs import ChatterboxTurbo, Speech, Voice
from chatterbox_turbo_rs.engine import registry
from chatterbox_turbo_rs.errors import ArgumentError, BackendError, CheckpointError, FileError
from chatterbox_turbo_rs.options import GenerationOptions
from chatterbox_turbo_rs.stages.t3.sampler import SamplerParameters
from chatterbox_turbo_rs.tts_turbo import ChatterboxTurboTTS

SHORT = {"max_tokens": 6, "watermark": None}
TWO_SIDED = [key for key, sides in registry.TABLE.items() if len(sides) == 2]
OF_A_VOICE = [key for key in TWO_SIDED if not key.startswith(("text.", "t3.", "watermark"))]
OF_SPEECH = [key for key in TWO_SIDED if key not in OF_A_VOICE]
VOICE_ARRAYS = ("speaker_embedding", "t3_prompt_tokens", "s3gen_prompt_tokens", "s3gen_prompt_mel", "xvector")


@pytest.fixture(scope="module")
def rust_voice(toy, clip):
    return toy.voice(clip, backends="rust")


def test_speech_says_how_it_came_about(toy):
    speech = toy.generate("hello  there", seed=3, max_tokens=6)
    assert isinstance(speech, Speech)
    assert speech.samples.dtype == np.float32 and speech.samples.ndim == 1 and np.isfinite(speech.samples).all()
    assert speech.sample_rate == toy.sample_rate == 24_000
    assert (speech.seed, speech.text, speech.watermarked) == (3, "Hello there.", True)
    # upstream's loop gives one token more than its limit; three silences follow; 960 samples a token
    assert len(speech.tokens) <= 1 + 6 + 3 and (speech.tokens[-3:] == 4299).all()
    assert len(speech.samples) == 960 * len(speech.tokens) == len(speech)
    assert speech.seconds == len(speech.samples) / 24_000
    assert dict(speech.plan) == dict(toy.plan)
    assert {"text.normalize", "text.tokenize", "t3", "s3gen.flow", "watermark"} <= speech.timings.keys()
    assert all(seconds >= 0 for seconds in speech.timings.values())
    np.testing.assert_array_equal(np.asarray(speech), speech.samples)
    assert np.asarray(speech, np.float64).dtype == np.float64
    assert "0." in repr(speech) and "seed=3" in repr(speech)
    assert speech._repr_html_().startswith("<audio controls")
    assert not toy.generate("Hello.", seed=3, **SHORT).watermarked


def test_every_file_format_is_read_back(toy, tmp_path):
    speech = toy.generate("Hello.", seed=3, max_tokens=20, watermark=None)
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


def test_the_same_seed_gives_the_same_bits(toy):
    first, again, other = (toy.generate("Hello there.", seed=seed, **SHORT) for seed in (7, 7, 8))
    assert first.samples.tobytes() == again.samples.tobytes()
    assert first.samples.tobytes() != other.samples.tobytes()
    for seed in (0, 2**64 - 1):
        assert toy.generate("Hello.", seed=seed, **SHORT).seed == seed


def test_a_drawn_seed_is_recorded_and_reproduces(toy):
    first, second = (toy.generate("Hello there.", **SHORT) for _ in range(2))
    assert first.seed != second.seed
    assert toy.generate("Hello there.", seed=first.seed, **SHORT).samples.tobytes() == first.samples.tobytes()


def test_two_processes_with_other_numbers_of_threads_give_the_same_bits(clip):
    program = f"""
import hashlib, sys
from chatterbox_turbo_rs import ChatterboxTurbo
tts = ChatterboxTurbo.from_pretrained({TOY!r})
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
def test_a_stage_of_a_voice_in_python(toy, clip, rust_voice, key):
    if reason := registry.missing(key, "python"):
        with pytest.raises(BackendError, match=f"{key}=python: "):
            toy.voice(clip, backends=f"rust,{key}=python")
        pytest.skip(reason)
    voice = toy.voice(clip, backends=f"rust,{key}=python")
    for name in ("t3_prompt_tokens", "s3gen_prompt_tokens"):
        np.testing.assert_array_equal(getattr(voice, name), getattr(rust_voice, name))
    for name in ("speaker_embedding", "xvector", "s3gen_prompt_mel"):
        want, got = getattr(rust_voice, name), getattr(voice, name)
        assert np.linalg.norm(got - want) <= 1e-3 * np.linalg.norm(want), name


@pytest.mark.parametrize("key", OF_SPEECH)
def test_a_stage_of_speech_in_python(toy, key):
    options = {"seed": 11, "max_tokens": 12, "watermark": "perth" if key == "watermark" else None}
    if reason := registry.missing(key, "python"):
        with pytest.raises(BackendError, match=f"{key}=python: "):
            toy.generate("hello [laugh] there", backends=f"rust,{key}=python", **options)
        pytest.skip(reason)
    rust = toy.generate("hello [laugh] there", backends="rust", **options)
    python = toy.generate("hello [laugh] there", backends=f"rust,{key}=python", **options)
    assert python.plan[key] == "python" and rust.plan[key] == "rust"
    assert python.text == rust.text
    np.testing.assert_array_equal(python.tokens, rust.tokens)
    np.testing.assert_allclose(python.samples, rust.samples, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("parameters", [{}, {"temperature": 1.7, "top_p": 1.0}, {"top_k": 40, "repetition_penalty": 2.0}])
def test_the_two_token_loops_agree(toy, seed, parameters):
    one, other = (
        toy.generate("Hello there.", seed=seed, max_tokens=40, watermark=None, backends=f"rust,t3.sampler={side}", **parameters)
        for side in ("rust", "python")
    )
    np.testing.assert_array_equal(one.tokens, other.tokens)
    assert one.samples.tobytes() == other.samples.tobytes()


def test_the_switch_of_a_request_is_stronger_than_the_models(toy, monkeypatch):
    tts = ChatterboxTurbo.from_pretrained(TOY, backends="text=python")
    assert tts.plan["text.normalize"] == "python"
    assert tts.generate("Hello.", seed=1, **SHORT).plan["text.tokenize"] == "python"
    assert tts.generate("Hello.", seed=1, backends={"text": "rust"}, **SHORT).plan["text.tokenize"] == "rust"
    monkeypatch.setenv("CHATTERBOX_BACKENDS", "t3.sampler=python")
    assert toy.generate("Hello.", seed=1, **SHORT).plan["t3.sampler"] == "python"


def test_the_plan_and_the_seed_are_logged(toy, caplog):
    with caplog.at_level(logging.INFO, logger="chatterbox_turbo_rs"):
        toy.generate("Hello.", seed=41, **SHORT)
    assert "plan rust" in caplog.text and "seed 41" in caplog.text


def test_every_parameter_reaches_the_sampler(toy):
    base = {"seed": 2, "max_tokens": 30, "watermark": None}
    usual = toy.generate("Hello there.", **base)
    for change in ({"temperature": 3.0}, {"top_p": 0.05}, {"top_k": 1}, {"repetition_penalty": 9.0}):
        assert not np.array_equal(toy.generate("Hello there.", **base, **change).tokens, usual.tokens), change
    greedy = {"temperature": 1.0, "top_k": 1, "repetition_penalty": 1.0}
    one, other = (toy.generate("Hello there.", seed=seed, max_tokens=30, watermark=None, **greedy) for seed in (1, 2))
    np.testing.assert_array_equal(one.tokens, other.tokens)


def test_whole_numbers_are_numbers(toy):
    base = {"seed": 2, "max_tokens": np.int32(6), "watermark": None}
    floats = toy.generate("Hi.", temperature=2.0, top_p=1.0, repetition_penalty=2.0, **base)
    ints = toy.generate("Hi.", temperature=2, top_p=1, repetition_penalty=2, top_k=np.int64(1000), **base)
    assert floats.samples.tobytes() == ints.samples.tobytes()


@pytest.mark.parametrize("side", ["rust", ("rust",), ("rust", "f32", 1), None, {"rust": "f32"}])
def test_a_side_to_compare_is_a_switch_and_a_precision(toy, side):
    for sides, name in (((side, ("rust", "f32")), "a"), ((("rust", "f32"), side), "b")):
        with pytest.raises(ArgumentError, match=f"{name}: expected a switch and a precision"):
            toy.compare("Hi.", *sides)
    for name in ("split", "latency", "backends"):
        with pytest.raises(TypeError, match=rf"compare\(\) got an unexpected keyword argument '{name}'"):
            toy.compare("Hi.", ("rust", "f32"), ("rust", "f32"), **{name: "auto"})


def test_the_voice_in_every_form(toy, clip, rust_voice, tmp_path):
    rust_voice.save(tmp_path / "v.safetensors")
    forms = [
        rust_voice,
        tmp_path / "v.safetensors",
        str(tmp_path / "v.safetensors"),
        Voice.load(tmp_path / "v.safetensors"),
        clip,
    ]
    results = {toy.generate("Hi.", voice=form, seed=1, **SHORT).samples.tobytes() for form in forms}
    assert len(results) == 1
    assert toy.generate("Hi.", voice=clip.with_name("long.flac"), seed=1, **SHORT).samples.tobytes() not in results
    builtin = toy.generate("Hi.", voice=toy.builtin_voice, seed=1, **SHORT)
    assert toy.generate("Hi.", seed=1, **SHORT).samples.tobytes() == builtin.samples.tobytes()


def test_loudness_of_the_reference(toy, clip):
    samples, rate = soundfile.read(clip, dtype="float32")
    loud, soft = ((samples * gain, rate) for gain in (1.0, 0.25))
    for method in ("bs1770", "rms"):
        one, other = (toy.voice(source, loudness=method).xvector for source in (loud, soft))
        np.testing.assert_allclose(one, other, atol=1e-3 * np.abs(one).max())
    one, other = (toy.voice(source, loudness=None).s3gen_prompt_mel for source in (loud, soft))
    assert np.abs(one - other).max() > 0.5


def test_a_loaded_model_does_not_change(toy):
    assert toy.config == toy.config and toy.config["name"] == "toy"
    toy.config["name"] = "other"
    assert toy.config["name"] == "toy"
    with pytest.raises(ValueError, match="read-only"):
        toy.builtin_voice.xvector[0] = 1


def test_the_watermark_is_there(toy):
    speech = toy.generate("Hello there, this is marked.", seed=1, max_tokens=100)
    bare = toy.generate("Hello there, this is marked.", seed=1, max_tokens=100, watermark=None)
    assert speech.watermarked and not bare.watermarked
    assert toy.detect_watermark(speech.samples) > 0.9
    assert toy.detect_watermark(bare.samples) < 0.5
    assert 0 < np.abs(speech.samples - bare.samples).max() < 0.2


def test_what_is_looked_at_for_a_watermark(toy):
    """A speech with its own rate, and its samples in any form."""
    speech = toy.generate("Hello there, this is marked.", seed=1, max_tokens=100)
    expected = toy.detect_watermark(speech.samples)
    scaled = np.round(speech.samples * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16)
    forms = (speech, speech.samples.astype(np.float64), speech.samples.tolist(), speech.samples[None], speech.samples[:, None])
    assert [toy.detect_watermark(form) for form in forms] == [expected] * len(forms)
    assert abs(toy.detect_watermark(scaled) - expected) < 0.02 and expected > 0.9
    other = dataclasses.replace(speech, sample_rate=48_000)
    assert toy.detect_watermark(other) == toy.detect_watermark(speech.samples, 48_000) != expected
    for wrong in ("x", None, ["a"], [[1.0], [1.0, 2.0]], np.zeros((2, 30_000)), np.zeros(30_000, complex)):
        with pytest.raises(ArgumentError, match=r"^samples: expected numbers \[n\], got ") as caught:
            toy.detect_watermark(wrong)
        assert "\n" not in str(caught.value)


def test_a_model_says_what_it_is(toy, monkeypatch):
    assert repr(toy).startswith("ChatterboxTurbo('")
    for part in ("data", "model='toy'", "device='cpu'", "precision='f32'", "plan='rust'"):
        assert part in repr(toy)
    monkeypatch.setenv("CHATTERBOX_BACKENDS", "t4=rust")
    assert "unknown stage 't4'" in repr(toy)


def test_the_version_is_that_of_the_distribution():
    assert chatterbox_turbo_rs.__version__ == importlib.metadata.version("chatterbox-turbo-rs")
    with pytest.raises(AttributeError, match="no attribute 'version'"):
        chatterbox_turbo_rs.version  # noqa: B018


def in_another_process(model, results):
    results.put(model.generate("Hello there.", seed=7, **SHORT).samples.tobytes())


def test_a_model_goes_to_another_process_by_what_it_was_loaded_with(tmp_path):
    """Spawned, as servers on every system may do it."""
    options = {"precision": "int8", "backends": {"text": "python"}, "loudness": None, "watermark": None}
    model = ChatterboxTurbo.from_pretrained(TOY, **options)
    again = pickle.loads(pickle.dumps(model))
    assert (repr(again), again._loudness, again._watermark) == (repr(model), None, None)
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    worker = context.Process(target=in_another_process, args=(model, results))
    worker.start()
    worker.join(120)
    assert worker.exitcode == 0
    assert results.get() == model.generate("Hello there.", seed=7, **SHORT).samples.tobytes()
    drop_in = pickle.loads(pickle.dumps(ChatterboxTurboTTS.from_local(TOY, "cpu")))
    assert drop_in.sr == 24_000 and drop_in.conds is not None


class Somewhere(os.PathLike):
    """A path that is no ``Path``."""

    def __init__(self, path):
        self.path = os.fspath(path)

    def __fspath__(self):
        return self.path


def test_a_path_is_whatever_has_one(clip, tmp_path):
    tts = ChatterboxTurbo.from_pretrained(Somewhere(TOY))
    tts.voice(Somewhere(clip)).save(tmp_path / "v.safetensors")
    expected = tts.generate("Hi.", voice=Somewhere(clip), seed=1, **SHORT).samples.tobytes()
    for path in (clip, Somewhere(tmp_path / "v.safetensors")):
        assert tts.generate("Hi.", voice=path, seed=1, **SHORT).samples.tobytes() == expected
        assert tts.generate_many(["Hi."], path, 1, **SHORT)[0].samples.tobytes() == expected
    tokenizer = Somewhere("nowhere/tokenizer.json")
    with pytest.raises(CheckpointError, match=r"nowhere/tokenizer\.json"):
        ChatterboxTurbo.from_pretrained(TOY, tokenizer=tokenizer)
    with pytest.raises(ArgumentError, match="^tokenizer: expected a path, got "):
        ChatterboxTurbo.from_pretrained(TOY, tokenizer=Somewhere(b"x"))


def test_a_temperature_of_zero_is_one(toy):
    base = {"seed": 2, "max_tokens": 30, "watermark": None}
    one, zero, below = (toy.generate("Hello there.", temperature=t, **base).tokens.tolist() for t in (1.0, 0, -3.0))
    assert one == zero == below != toy.generate("Hello there.", temperature=0.01, **base).tokens.tolist()


def test_every_argument_of_generate_is_described():
    text = ChatterboxTurbo.generate.__doc__
    names = [name for name in inspect.signature(ChatterboxTurbo.generate).parameters if name != "self"]
    assert [name for name in names if f"``{name}``" not in text] == []
    assert "0 and below mean 1, as upstream has it" in text


def test_the_arguments_have_the_same_defaults_everywhere():
    defaults = {field.name: field.default for field in dataclasses.fields(GenerationOptions)}
    signature = inspect.signature(ChatterboxTurbo.generate).parameters
    own = {"seed", "loudness", "watermark"}
    assert signature["split"].default == "auto" and defaults.pop("split") is dataclasses.MISSING
    assert signature["pronounce"].default is None and defaults.pop("pronounce") is dataclasses.MISSING
    assert {name: signature[name].default for name in defaults.keys() - own} == {n: defaults[n] for n in defaults.keys() - own}
    loading = inspect.signature(ChatterboxTurbo.from_pretrained).parameters
    assert {name: loading[name].default for name in own - {"seed"}} == {name: defaults[name] for name in own - {"seed"}}
    assert dataclasses.asdict(SamplerParameters()).items() <= defaults.items()


def test_the_names_of_the_package():
    assert sorted(chatterbox_turbo_rs.__all__) == [
        "ChatterboxError",
        "ChatterboxTurbo",
        "Chunk",
        "Plan",
        "Speech",
        "Split",
        "Voice",
        "__version__",
        "available",
    ]
    table = chatterbox_turbo_rs.available()
    assert table.keys() == registry.TABLE.keys()
    assert all(reason is None or reason for sides in table.values() for reason in sides.values())
