"""``chatterbox_turbo_rs.tts_turbo`` in place of ``chatterbox.tts_turbo``: names, arguments, defaults, errors, files."""

from __future__ import annotations

import inspect
import io
import logging
import math
import os
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile

from chatterbox_turbo_rs import tts_turbo
from chatterbox_turbo_rs.errors import ArgumentError, ChatterboxError, CheckpointError, WatermarkError
from chatterbox_turbo_rs.tts_turbo import ChatterboxTurboTTS, Conditionals, T3Cond

# src/chatterbox/tts_turbo.py of resemble-ai/chatterbox at commit 5de7a54: argument -> default (... is none)
UPSTREAM = {
    "punc_norm": {"text": ...},
    "Conditionals": {"t3": ..., "gen": ...},
    "Conditionals.to": {"self": ..., "device": ...},
    "Conditionals.save": {"self": ..., "fpath": ...},
    "Conditionals.load": {"fpath": ..., "map_location": "cpu"},
    "T3Cond": {
        "speaker_emb": ...,
        "clap_emb": None,
        "cond_prompt_speech_tokens": None,
        "cond_prompt_speech_emb": None,
        "emotion_adv": 0.5,
    },
    "T3Cond.to": {"self": ..., "device": None, "dtype": None},
    "T3Cond.save": {"self": ..., "fpath": ...},
    "T3Cond.load": {"fpath": ..., "map_location": "cpu"},
    "ChatterboxTurboTTS.from_local": {"ckpt_dir": ..., "device": ..., "nano": False},
    "ChatterboxTurboTTS.from_pretrained": {"device": ..., "nano": False},
    "ChatterboxTurboTTS.norm_loudness": {"self": ..., "wav": ..., "sr": ..., "target_lufs": -27},
    "ChatterboxTurboTTS.prepare_conditionals": {"self": ..., "wav_fpath": ..., "exaggeration": 0.5, "norm_loudness": True},
    "ChatterboxTurboTTS.generate": {
        "self": ...,
        "text": ...,
        "repetition_penalty": 1.2,
        "min_p": 0.0,
        "top_p": 0.95,
        "audio_prompt_path": None,
        "exaggeration": 0.0,
        "cfg_weight": 0.0,
        "temperature": 0.8,
        "top_k": 1000,
        "norm_loudness": True,
    },
}
CONSTANTS = {"REPO_ID": "ResembleAI/chatterbox-turbo", "NANO_REPO_ID": "ResembleAI/chatterbox-nano"}
T3_KEYS = ["speaker_emb", "clap_emb", "cond_prompt_speech_tokens", "cond_prompt_speech_emb", "emotion_adv"]
GEN_KEYS = ["prompt_token", "prompt_token_len", "prompt_feat", "prompt_feat_len", "embedding"]


@pytest.fixture(scope="module")
def directory(toy) -> Path:
    return Path(toy._pipeline.resources.directory)


@pytest.fixture
def model(directory, monkeypatch):
    """The drop-in over the toy, whose loop is cut short: upstream has no argument for that."""
    model = ChatterboxTurboTTS.from_local(directory, "cpu")
    usual = model.engine.generate
    monkeypatch.setattr(model.engine, "generate", lambda text, **options: usual(text, **options, max_tokens=8))
    return model


@pytest.fixture(scope="module")
def prepared(directory, clip):
    model = ChatterboxTurboTTS.from_local(directory, "cpu")
    model.prepare_conditionals(clip)
    return model.conds


@pytest.mark.parametrize("name", UPSTREAM)
def test_signatures_are_upstreams(name):
    found = tts_turbo
    for part in name.split("."):
        found = getattr(found, part)
    parameters = inspect.signature(found).parameters.values()
    assert {p.name: ... if p.default is p.empty else p.default for p in parameters} == UPSTREAM[name]
    assert [p.name for p in parameters] == list(UPSTREAM[name])
    keyword_only = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert keyword_only == ({"device", "dtype"} if name == "T3Cond.to" else set())


def test_constants_are_upstreams():
    assert {name: getattr(tts_turbo, name) for name in CONSTANTS} == CONSTANTS
    assert (ChatterboxTurboTTS.ENC_COND_LEN, ChatterboxTurboTTS.DEC_COND_LEN) == (240_000, 240_000)
    assert tts_turbo.punc_norm("hello") == "Hello." and tts_turbo.punc_norm("").startswith("You need")


def test_a_model_has_upstreams_attributes(model):
    assert (model.sr, model.device, model.model_label) == (24_000, "cpu", "Turbo")
    assert isinstance(model.conds, Conditionals) and isinstance(model.conds.t3, T3Cond)
    assert list(vars(model.conds.t3)) == T3_KEYS and list(model.conds.gen) == GEN_KEYS


def test_a_voice_is_kept_until_its_conditionals_change(model, monkeypatch):
    seen = []
    usual = model.engine.generate
    monkeypatch.setattr(
        model.engine, "generate", lambda text, voice, **options: seen.append(voice) or usual(text, voice=voice, **options)
    )
    model.generate("One.")
    model.generate("Two.")
    model.conds.t3.speaker_emb = np.asarray(model.conds.t3.speaker_emb) * np.float32(0.5)
    model.generate("Three.")
    assert seen[0] is seen[1] and seen[2] is not seen[1]
    assert (seen[2].speaker_embedding == seen[1].speaker_embedding * np.float32(0.5)).all()


def torch_is(monkeypatch, module: types.ModuleType | None) -> None:
    """Makes the drop-in see torch as installed and imported, or as neither."""
    util = types.SimpleNamespace(find_spec=lambda name: module)
    monkeypatch.setattr(tts_turbo, "importlib", types.SimpleNamespace(util=util))
    if module is None:
        monkeypatch.delitem(sys.modules, "torch", raising=False)
    else:
        monkeypatch.setitem(sys.modules, "torch", module)


def test_the_result_is_one_row_of_samples(model, monkeypatch):
    torch_is(monkeypatch, None)
    wav = model.generate("Hello there.")
    assert type(wav) is np.ndarray and wav.dtype == np.float32 and wav.shape == (1, wav.size) and wav.flags.c_contiguous
    assert wav.size % 960 == 0 and np.isfinite(wav).all() and wav.any()


class Tensor:
    """As much of a torch tensor as the drop-in touches."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def detach(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return self

    def numpy(self) -> np.ndarray:
        return self.array

    def item(self) -> int:
        return int(self.array)


def test_with_torch_the_result_is_a_tensor_and_its_seed_counts(model, monkeypatch):
    drawn = iter([5, 5, 6])
    torch = types.ModuleType("torch")
    torch.from_numpy = Tensor
    torch.randint = lambda low, high, size: Tensor(np.array(next(drawn)))
    torch_is(monkeypatch, torch)
    one, same, other = (model.generate("Hello.") for _ in range(3))
    assert isinstance(one, Tensor) and one.array.shape[0] == 1
    assert one.array.tobytes() == same.array.tobytes() != other.array.tobytes()
    # conditionals may hold tensors
    model.conds.t3.speaker_emb = Tensor(model.conds.t3.speaker_emb)
    model.conds.gen["prompt_feat"] = Tensor(model.conds.gen["prompt_feat"])
    torch.randint = lambda low, high, size: Tensor(np.array(5))
    assert model.generate("Hello.").array.tobytes() == one.array.tobytes()


def test_without_conditionals(model):
    model.conds = None
    with pytest.raises(AssertionError, match=r"^Please `prepare_conditionals` first or specify `audio_prompt_path`$"):
        model.generate("Hello.")


def test_a_clip_of_five_seconds_is_too_short(model):
    for samples in (120_000, 1_000):
        file = io.BytesIO()
        soundfile.write(file, np.zeros(samples), 24_000, format="WAV")
        with pytest.raises(AssertionError, match=r"^Audio prompt must be longer than 5 seconds!$"):
            model.prepare_conditionals(io.BytesIO(file.getvalue()))
        with pytest.raises(AssertionError):
            model.generate("Hello.", audio_prompt_path=io.BytesIO(file.getvalue()))


def test_a_clip_that_is_not_there(model, tmp_path):
    for path in ("nowhere.wav", Path("nowhere.wav"), str(tmp_path / "5 seconds.wav")):
        with pytest.raises(FileNotFoundError) as caught:
            model.generate("Hello.", audio_prompt_path=path)
        assert caught.value.errno == 2 and caught.value.filename == str(path)


def test_a_clip_that_is_none_is_not_called_too_short(model, tmp_path):
    path = tmp_path / "longer than 5.0 seconds.wav"
    path.write_bytes(b"no sound" * 100)
    with pytest.raises(ChatterboxError, match="not an audio file"):
        model.prepare_conditionals(path)


def test_prepared_conditionals(model, prepared, clip, toy):
    voice = toy.voice(clip)
    np.testing.assert_array_equal(prepared.t3.speaker_emb, voice.speaker_embedding[None])
    np.testing.assert_array_equal(prepared.gen["prompt_feat"], voice.s3gen_prompt_mel[None])
    assert prepared.t3.cond_prompt_speech_tokens.shape == (1, len(voice.t3_prompt_tokens))
    assert prepared.t3.emotion_adv.shape == (1, 1, 1) and prepared.t3.emotion_adv.item() == 0.5
    model.prepare_conditionals(clip, 0.7, False)
    assert math.isclose(model.conds.t3.emotion_adv.item(), 0.7, rel_tol=1e-6)
    assert np.abs(model.conds.gen["prompt_feat"] - prepared.gen["prompt_feat"]).max() > 0.01


def test_the_prompt_stays_for_the_next_text(model, clip, prepared):
    model.conds = None
    model.generate("Hello.", audio_prompt_path=clip)
    np.testing.assert_array_equal(model.conds.gen["embedding"], prepared.gen["embedding"])
    assert model.generate("And again.").shape[0] == 1


def test_conditionals_are_saved_and_loaded(prepared, tmp_path, model):
    prepared.save(tmp_path / "conds.pt")
    loaded = Conditionals.load(tmp_path / "conds.pt").to("cpu")
    for mine, other in ((vars(prepared.t3), vars(loaded.t3)), (prepared.gen, loaded.gen)):
        assert list(mine) == list(other)
        for name, value in mine.items():
            if value is None:
                assert other[name] is None
            else:
                np.testing.assert_array_equal(other[name], value)
                assert np.asarray(other[name]).dtype == np.asarray(value).dtype
    model.conds = loaded
    assert model.generate("Hello.").shape[0] == 1
    prepared.t3.save(tmp_path / "t3.pt")
    np.testing.assert_array_equal(T3Cond.load(tmp_path / "t3.pt", "cpu").speaker_emb, prepared.t3.speaker_emb)


@pytest.mark.parametrize("option", [{"cfg_weight": 0.5}, {"exaggeration": 0.1}, {"min_p": 0.05}])
def test_what_upstream_ignores_is_ignored_with_its_warning(model, caplog, option):
    with caplog.at_level(logging.WARNING):
        model.generate("Hello.", **option)
    text = "CFG, min_p and exaggeration are not supported by the Turbo version and will be ignored."
    assert [record.getMessage() for record in caplog.records] == [text]


def test_the_defaults_do_not_warn(model, caplog):
    with caplog.at_level(logging.WARNING):
        model.generate("Hello.")
    assert not caplog.records


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"temperature": 2}, r"`temperature` \(=2\) has to be a strictly positive float"),
        ({"repetition_penalty": 2}, "`penalty` has to be a strictly positive float, but is 2"),
        ({"repetition_penalty": 0.0}, r"`penalty` has to be a strictly positive float, but is 0\.0"),
        ({"repetition_penalty": -1.5}, "`penalty` has to be a strictly positive float"),
        ({"top_k": 5.0}, r"`top_k` has to be a strictly positive integer, but is 5\.0"),
        ({"top_p": -0.1}, "`top_p` has to be a float > 0 and < 1, but is -0.1"),
        ({"temperature": math.inf}, "temperature"),
        ({"top_p": math.nan}, "top_p"),
        ({"repetition_penalty": math.nan}, "penalty"),
    ],
)
def test_values_that_upstream_refuses(model, option, message):
    with pytest.raises(ValueError, match=message):
        model.generate("Hello.", **option)


@pytest.mark.parametrize(
    "option",
    [
        {"temperature": 1},
        {"temperature": 0},
        {"temperature": -2},
        {"repetition_penalty": 1},
        {"top_k": 0},
        {"top_k": -3},
        {"top_p": 1},
        {"top_p": 7},
        {"top_p": 0},
    ],
)
def test_values_that_upstream_accepts(model, option):
    assert model.generate("Hello.", **option).shape[0] == 1


@pytest.mark.parametrize("option", [{"temperature": "x"}, {"temperature": None}, {"top_k": None}, {"top_p": "x"}])
def test_types_that_upstream_refuses(model, option):
    with pytest.raises(TypeError):
        model.generate("Hello.", **option)


def test_text_that_upstream_speaks(model):
    assert model.generate("").shape[0] == 1
    assert model.generate("[laugh]").shape[0] == 1
    with pytest.raises((TypeError, ValueError), match="text"):
        model.generate(None)


def test_norm_loudness(model):
    t = np.arange(48_000) / 24_000
    wav = (0.1 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    import pyloudnorm

    assert abs(pyloudnorm.Meter(24_000).integrated_loudness(model.norm_loudness(wav, 24_000)) + 27) < 0.01
    assert abs(pyloudnorm.Meter(24_000).integrated_loudness(model.norm_loudness(wav, 24_000, -20)) + 20) < 0.01
    silent, short = np.zeros(48_000, np.float32), np.ones(10, np.float32)
    np.testing.assert_array_equal(model.norm_loudness(silent, 24_000), silent)
    np.testing.assert_array_equal(model.norm_loudness(short, 24_000), short)


def test_nano_and_turbo_in_one_directory(directory, tmp_path, monkeypatch):
    """Upstream opens the T3 file that ``nano`` names, whatever else is there."""
    (tmp_path / "s3gen_meanflow.safetensors").touch()
    for name in ("ve.safetensors", "vocab.json", "merges.txt", "added_tokens.json", "t3_turbo_v1.safetensors"):
        (tmp_path / name).touch()
    opened = []

    def stop(locate, device):
        opened.append(locate()[1]["name"])
        raise RuntimeError("far enough")

    monkeypatch.setattr(tts_turbo.ChatterboxTurbo, "_open", stop)
    with pytest.raises(CheckpointError, match=r"missing t3_nano_v1\.safetensors"):
        ChatterboxTurboTTS.from_local(tmp_path, "cpu", nano=True)
    (tmp_path / "t3_nano_v1.safetensors").touch()
    for nano in (False, True):
        with pytest.raises(RuntimeError, match="far enough"):
            ChatterboxTurboTTS.from_local(tmp_path, "cpu", nano)
    (tmp_path / "t3_turbo_v1.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"missing t3_turbo_v1\.safetensors"):
        ChatterboxTurboTTS.from_local(tmp_path, "cpu")
    assert opened == ["turbo", "nano"]


def test_a_directory_without_conds(directory, tmp_path):
    for file in directory.iterdir():
        if file.name != "conds.pt":
            shutil.copy(file, tmp_path / file.name)
    model = ChatterboxTurboTTS.from_local(os.fspath(tmp_path), "cpu", nano=True)
    assert model.conds is None and model.model_label == "Nano"


@pytest.mark.parametrize("device", ["cuda", "tpu", "mps"])
def test_devices_that_are_not_here(directory, device):
    if {"mps": "metal"}.get(device, device) in tts_turbo._core.build_info()["features"]:
        pytest.skip(f"this build knows {device}")
    with pytest.raises(ChatterboxError, match="device"):
        ChatterboxTurboTTS.from_local(directory, device)


class Loud:
    """Somebody's own watermarker."""

    def __init__(self):
        self.seen = []

    def apply_watermark(self, wav, sample_rate):
        self.seen.append((wav.dtype, wav.shape, sample_rate))
        return wav * 2


def spoken(model, monkeypatch):
    """The same sentence with the same draws."""
    monkeypatch.setattr(tts_turbo, "_seed", lambda: 5)
    return np.asarray(model.generate("Hello there."))


def test_ones_own_watermarker_is_called_in_place_of_ours(model, toy, monkeypatch):
    marked = spoken(model, monkeypatch)
    model.watermarker = own = Loud()
    twice = spoken(model, monkeypatch)
    assert own.seen == [(np.float32, (twice.size,), 24_000)] and model.watermarker is own
    model.watermarker = None
    bare = spoken(model, monkeypatch)
    np.testing.assert_array_equal(twice, 2 * bare)
    assert 0 < np.abs(marked - bare).max() < 0.2
    for wrong in (3, "perth", object(), lambda wav: wav):
        with pytest.raises(ArgumentError, match=r"^watermarker: expected an object with apply_watermark\(wav, sample_rate\)"):
            model.watermarker = wrong


def test_a_function_put_into_our_watermarker_is_called(model, monkeypatch):
    """How most programs switch the mark off, or time it."""
    usual, calls = model.watermarker.apply_watermark, []
    marked = spoken(model, monkeypatch)
    model.watermarker.apply_watermark = lambda *arguments, **options: calls.append(options) or usual(*arguments, **options)
    np.testing.assert_array_equal(spoken(model, monkeypatch), marked)
    assert calls == [{"sample_rate": 24_000}]
    model.watermarker.apply_watermark = lambda wav, sample_rate=None: wav
    assert not np.array_equal(spoken(model, monkeypatch), marked)


def test_our_watermarker_marks_and_finds(model, monkeypatch, toy):
    speech = toy.generate("Hello there, this is marked.", seed=1, max_tokens=100, watermark=None)
    marked = model.watermarker.apply_watermark(speech.samples, sample_rate=model.sr)
    assert marked.dtype == np.float32 and marked.shape == speech.samples.shape
    assert model.watermarker.get_watermark(marked, sample_rate=model.sr) == 1.0
    assert model.watermarker.get_watermark(marked[None], model.sr) == 1.0
    assert model.watermarker.get_watermark(speech.samples, sample_rate=model.sr) == 0.0
    assert 0.9 < model.watermarker.get_watermark(marked, sample_rate=model.sr, round=False) <= 1.0
    with pytest.raises(ArgumentError, match="sample_rate: expected 24000 Hz, the model's own, got 16000"):
        model.watermarker.apply_watermark(marked, sample_rate=16_000)


def test_without_its_weights_the_watermark_is_refused_before_the_work(model, monkeypatch):
    def stage(key, implementation):
        raise WatermarkError("the weights are not installed")

    monkeypatch.setattr(model.engine._pipeline, "stage", stage)
    monkeypatch.setattr(model.engine, "generate", lambda *_, **__: pytest.fail("it began to work"))
    with pytest.raises(WatermarkError, match="not installed"):
        model.generate("Hello.")


@pytest.mark.parametrize("name", ["t3", "s3gen", "ve"])
def test_upstreams_torch_modules_are_an_attribute_error_that_names_the_way(model, name):
    assert not hasattr(model, name) and getattr(model, name, "none") == "none"
    with pytest.raises(AttributeError, match=rf"^{name}: this model runs without PyTorch .*precision=…") as caught:
        getattr(model, name)
    assert isinstance(caught.value, ChatterboxError)
    with pytest.raises(AttributeError, match=f"^{name}: "):
        setattr(model, name, lambda module: module)  # what torch.compile would have given


def test_the_tokenizer_encodes_and_names_the_whole_one(model, toy):
    ids = model.tokenizer.encode("Hello [laugh] there.")
    assert isinstance(ids, list) and ids == toy._pipeline.stage("text.tokenize", "rust")("Hello [laugh] there.").tolist()
    for use in (lambda: model.tokenizer.decode(ids), lambda: model.tokenizer("Hello.")):
        with pytest.raises(AttributeError, match=r"transformers\.AutoTokenizer\.from_pretrained\('.*toy'\)"):
            use()
    with pytest.raises(AttributeError, match="tokenizer=PATH"):
        model.tokenizer = object()


@pytest.mark.parametrize("place", ["cpu", "cpu:0"])
def test_a_device_of_torch(directory, place):
    kind, _, index = place.partition(":")
    device = types.SimpleNamespace(type=kind, index=int(index) if index else None)
    assert ChatterboxTurboTTS.from_local(directory, device).engine._pipeline.resources.device == place
