"""Taps of the Rust core: names and shapes at every tap point, values that belong together, and results that do not depend on it."""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chatterbox_turbo_rs import _core
from chatterbox_turbo_rs.checkpoint.resources import Resources
from chatterbox_turbo_rs.checkpoint.tensor_file import TensorFile
from chatterbox_turbo_rs.errors import ArgumentError
from chatterbox_turbo_rs.parity.recording import NETWORKS as KEYS

RNG = np.random.default_rng(5)
STEPS = [7, 4000]


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


MEL40 = np.abs(normal(2300, 40))  # 29 partials, more than go through the network together
PARTIALS = 29
MEL128, FBANK, IDS = normal(42, 128), normal(61, 80), np.array([5, 6000, 77, 4299, 1])
MU, XVECTOR, PROMPT, NOISE = normal(14, 80), normal(192), normal(4, 80), normal(14, 80)
MEL80, PHASES, NORMALS = normal(6, 80), np.zeros(9, np.float32), normal(6 * 480, 9)
SPEAKER, T3_PROMPT, TEXT = normal(32), np.arange(4), np.arange(5)
PREFIX = 2 + len(T3_PROMPT) + len(TEXT)


def _logits(decoder: Any) -> np.ndarray:
    session = decoder.start(SPEAKER, T3_PROMPT, TEXT, len(STEPS))
    return np.stack([session.prefill(), *map(session.step, STEPS)])


CALLS: dict[str, Callable[[Any], np.ndarray]] = {
    "voice_encoder.embedding": lambda stage: stage(MEL40),
    "s3tokenizer.tokens": lambda stage: stage(MEL128),
    "speaker_encoder.xvector": lambda stage: stage(FBANK),
    "t3.decoder": _logits,
    "s3gen.encoder": lambda stage: stage(IDS),
    "s3gen.flow": lambda stage: stage(MU, XVECTOR, PROMPT, NOISE),
    "s3gen.vocoder": lambda stage: stage(MEL80, PHASES, NORMALS),
}


def expected(key: str, config: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Name → shape of every tap of the call of ``CALLS``, in order."""
    c: Any = config[key.split(".")[0]]
    names: dict[str, tuple[int, int]] = {}
    if key == "voice_encoder.embedding":
        names |= {"lstm": (PARTIALS, c["hidden_size"]), "proj": (PARTIALS, c["embedding_size"])}
    elif key == "s3tokenizer.tokens":
        tokens, size = 11, c["hidden_size"]
        names |= {"tokenizer.encoder.conv2.in": (21, size), "tokenizer.encoder.blocks.0.in": (tokens, size)}
        names |= {f"tokenizer.encoder.blocks.{i}": (tokens, size) for i in range(c["layers"])}
        names["tokenizer.quantizer._codebook.project_down"] = (tokens, c["fsq_dims"])
    elif key == "speaker_encoder.xvector":
        half, width = (len(FBANK) + 1) // 2, c["init_channels"]
        names |= {"speaker_encoder.head": (len(FBANK), 10 * c["head_channels"]), "speaker_encoder.xvector.tdnn": (half, width)}
        for i, layers in enumerate(c["layers"], 1):
            width += layers * c["growth"]
            names[f"speaker_encoder.xvector.block{i}"] = (half, width)
            width //= 2
            names[f"speaker_encoder.xvector.transit{i}"] = (half, width)
        names["speaker_encoder.xvector.out_nonlinear"] = (half, width)
        names |= {"speaker_encoder.xvector.stats": (1, 2 * width), "speaker_encoder.xvector.dense": (1, c["embedding_size"])}
    elif key == "t3.decoder":
        size, layers = c["hidden_size"], c["layers"]
        for call in range(1, 2 + len(STEPS)):
            rows = PREFIX if call == 1 else 1
            names[f"tfmr.h.0.in#{call}"] = (rows, size)
            # of the prefill's last block, only the last row is computed
            names |= {f"tfmr.h.{i}#{call}": (rows, size) for i in range(layers if call > 1 else layers - 1)}
            names |= {f"tfmr.ln_f#{call}": (1, size), f"speech_head#{call}": (1, c["speech_vocab"])}
    elif key == "s3gen.encoder":
        e, t = c["encoder"], len(IDS)
        size = e["hidden_size"]
        names |= {"flow.encoder.embed": (t, size), "flow.encoder.pre_lookahead_layer": (t, size)}
        names |= {f"flow.encoder.encoders.{i}": (t, size) for i in range(e["layers"])}
        names |= {"flow.encoder.up_layer": (2 * t, size), "flow.encoder.up_embed": (2 * t, size)}
        names |= {f"flow.encoder.up_encoders.{i}": (2 * t, size) for i in range(e["up_layers"])}
        names |= {"flow.encoder.after_norm": (2 * t, size), "flow.encoder_proj": (2 * t, c["mels"])}
    elif key == "s3gen.flow":
        e, shape = c["estimator"], (len(MU), c["estimator"]["channels"])
        names["flow.spk_embed_affine_layer"] = (1, c["mels"])
        for call in (1, 2):
            at = "flow.decoder.estimator"
            names[f"{at}.time_embed_mixer#{call}"] = (1, 4 * e["channels"])
            for block in ["down_blocks.0", *(f"mid_blocks.{i}" for i in range(e["mid_blocks"])), "up_blocks.0"]:
                names[f"{at}.{block}.0#{call}"] = shape
                names |= {f"{at}.{block}.1.{j}#{call}": shape for j in range(e["blocks"])}
                if not block.startswith("mid"):
                    names[f"{at}.{block}.2#{call}"] = shape
            names |= {f"{at}.final_block#{call}": shape, f"{at}.final_proj#{call}": (len(MU), c["mels"])}
    else:
        v, frames = c["vocoder"], len(MEL80)
        parts, channels, rows = v["istft_size"] + 2, v["base_channels"], frames
        names |= {"mel2wav.f0_predictor": (frames, 1), "mel2wav.m_source": (480 * frames, 1)}
        names["mel2wav.conv_pre"] = (frames, channels)
        for i, rate in enumerate(v["upsample_rates"]):
            rows, channels, last = rows * rate, channels // 2, i + 1 == len(v["upsample_rates"])
            names[f"mel2wav.ups.{i}"] = (rows, channels)
            rows += last
            names |= {f"mel2wav.{name}.{i}": (rows, channels) for name in ("source_downs", "source_resblocks")}
            names |= {f"mel2wav.resblocks.{3 * i + j}": (rows, channels) for j in range(3)}
        names["mel2wav.conv_post"] = (rows, parts)
    return names


def record(work: Callable[[], Any]) -> tuple[Any, list[tuple[str, np.ndarray]]]:
    _core.taps_begin()
    try:
        result = work()
    finally:
        taps = _core.taps_end()
    return result, taps


@pytest.fixture(scope="module")
def resources(tiny_checkpoint: Path) -> Resources:
    return Resources(tiny_checkpoint, json.loads((tiny_checkpoint / "config.json").read_text()))


@pytest.fixture(scope="module")
def stage(resources: Resources) -> Callable[[str], Callable[[], np.ndarray]]:
    """``stage(key)`` is the call of a stage in Rust."""
    made: dict[str, Any] = {}

    def call(key: str) -> Callable[[], np.ndarray]:
        if key not in made:
            made[key] = importlib.import_module(f"chatterbox_turbo_rs.stages.{key}.rust").create(resources)
        return lambda: CALLS[key](made[key])

    return call


@pytest.mark.parametrize("key", KEYS)
def test_every_tap_point_has_its_name_and_shape(stage: Any, resources: Resources, key: str) -> None:
    _, taps = record(stage(key))
    assert {name: values.shape for name, values in taps} == expected(key, dict(resources.config))
    assert len(taps) == len({name for name, _ in taps})
    assert all(values.dtype == np.float32 and np.isfinite(values).all() and values.any() for _, values in taps)


@pytest.mark.parametrize("key", KEYS)
def test_results_are_the_same_to_the_bit(stage: Any, key: str) -> None:
    before, (during, _), after = stage(key)(), record(stage(key)), stage(key)()
    assert before.tobytes() == during.tobytes() == after.tobytes()


@pytest.mark.parametrize("key", KEYS)
def test_two_recordings_are_the_same(stage: Any, key: str) -> None:
    (_, first), (_, second) = record(stage(key)), record(stage(key))
    assert [name for name, _ in first] == [name for name, _ in second]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(first, second))


def test_results_are_the_last_taps(stage: Any) -> None:
    for key, name in [("speaker_encoder.xvector", "speaker_encoder.xvector.dense"), ("s3gen.encoder", "flow.encoder_proj")]:
        result, taps = record(stage(key))
        assert np.array_equal(np.atleast_2d(result), dict(taps)[name])
    result, taps = record(stage("t3.decoder"))
    assert all(np.array_equal(result[i], dict(taps)[f"speech_head#{i + 1}"][0]) for i in range(3))
    tokens, taps = record(stage("s3tokenizer.tokens"))
    levels = np.rint(np.tanh(dict(taps)["tokenizer.quantizer._codebook.project_down"]) * 0.999) + 1
    assert np.array_equal(levels @ 3 ** np.arange(8), tokens)
    result, taps = record(stage("s3gen.flow"))
    velocities = [dict(taps)[f"flow.decoder.estimator.final_proj#{call}"] for call in (1, 2)]
    assert np.allclose((NOISE + 0.5 * sum(velocities))[len(PROMPT) :], result, atol=1e-5)


def test_neighbours_fit_the_tensors_between_them(stage: Any, resources: Resources) -> None:
    """A tap is the value right before or behind its module: the layer applied to one gives the other."""
    taps = {name: values for key in KEYS for name, values in record(stage(key))[1]}
    for file, weight, before, after in [
        ("voice_encoder", "proj", "lstm", "proj"),
        ("s3gen", "tokenizer.quantizer._codebook.project_down", "tokenizer.encoder.blocks.1", ""),
        ("t3", "speech_head", "tfmr.ln_f#2", "speech_head#2"),
        ("s3gen", "flow.encoder_proj", "flow.encoder.after_norm", ""),
        (
            "s3gen",
            "flow.decoder.estimator.final_proj",
            "flow.decoder.estimator.final_block#2",
            "flow.decoder.estimator.final_proj#2",
        ),
    ]:
        tensors = resources.tensors(file)
        w, b = tensors.get(f"{weight}.weight"), tensors.get(f"{weight}.bias")
        found = taps[before] @ w.reshape(len(w), -1).T + b
        assert np.allclose(found, taps[after or weight], rtol=1e-4, atol=1e-4 * np.abs(found).max()), weight
    norm = np.array(_normed(taps["tfmr.h.2#3"], resources.tensors("t3"), "tfmr.ln_f"))
    assert np.allclose(norm, taps["tfmr.ln_f#3"], rtol=1e-4, atol=1e-4)


def _normed(x: np.ndarray, tensors: TensorFile, name: str) -> np.ndarray:
    centred = x - x.mean(axis=1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    return scaled * tensors.get(f"{name}.weight") + tensors.get(f"{name}.bias")


def _folded(tensors: TensorFile, name: str) -> np.ndarray:
    gain, v = (tensors.get(f"{name}.parametrizations.weight.original{i}").astype(np.float64) for i in (0, 1))
    return gain * v / np.sqrt((v**2).sum(axis=(1, 2), keepdims=True))


def _conv(x: np.ndarray, tensors: TensorFile, name: str, dilation: int = 1) -> np.ndarray:
    """A weight-normed convolution that keeps the length, [T, in] -> [T, out]."""
    w = _folded(tensors, name)
    half = dilation * (w.shape[2] // 2)
    padded = np.pad(x, ((half, half), (0, 0)))
    taps = (padded[k * dilation : k * dilation + len(x)] @ w[:, :, k].T for k in range(w.shape[2]))
    return sum(taps) + tensors.get(f"{name}.bias")


def _snake(x: np.ndarray, tensors: TensorFile, name: str) -> np.ndarray:
    alpha = tensors.get(f"{name}.alpha").astype(np.float64)
    return x + np.sin(alpha * x) ** 2 / (alpha + 1e-9)


def test_residual_blocks_of_the_vocoder_are_taken_out_of_their_sums(stage: Any, resources: Resources) -> None:
    """The generator adds to them on the way; what is recorded is a block's own result."""
    taps = {name: values.astype(np.float64) for name, values in record(stage("s3gen.vocoder"))[1]}
    tensors = resources.tensors("s3gen")
    for i in range(3):
        name = f"mel2wav.source_resblocks.{i}"
        x = taps[f"mel2wav.source_downs.{i}"]
        for j, dilation in enumerate((1, 3, 5)):
            y = _conv(_snake(x, tensors, f"{name}.activations1.{j}"), tensors, f"{name}.convs1.{j}", dilation)
            x = x + _conv(_snake(y, tensors, f"{name}.activations2.{j}"), tensors, f"{name}.convs2.{j}")
        assert np.linalg.norm(x - taps[name]) < 1e-5 * np.linalg.norm(x), name
    mean = sum(taps[f"mel2wav.resblocks.{i}"] for i in (6, 7, 8)) / 3
    found = _conv(np.where(mean < 0, 0.01 * mean, mean), tensors, "mel2wav.conv_post")
    assert np.linalg.norm(found - taps["mel2wav.conv_post"]) < 1e-5 * np.linalg.norm(found)


def test_a_recording_is_begun_once_and_ended_once() -> None:
    with pytest.raises(ArgumentError, match="taps: expected a recording begun on this thread, found none"):
        _core.taps_end()
    _core.taps_begin()
    with pytest.raises(ArgumentError, match="taps: expected no recording on this thread, one is under way"):
        _core.taps_begin()
    assert _core.taps_end() == []


def test_what_a_failing_stage_computed_is_kept(resources: Resources) -> None:
    encoder = _core.FlowEncoder(resources.core, "cpu")

    def stop(*report: Any) -> None:
        if report[1] >= 1:
            raise KeyError("enough")

    _core.taps_begin()
    with pytest.raises(KeyError, match="enough"):
        encoder.mu(IDS, stop)
    assert [name for name, _ in _core.taps_end()][:2] == ["flow.encoder.embed", "flow.encoder.pre_lookahead_layer"]


def test_a_thread_records_its_own_work_alone(stage: Any) -> None:
    """T3's work of all threads runs in one pool."""
    alone = record(stage("t3.decoder"))[1]
    found: dict[int, Any] = {}
    call = stage("t3.decoder")

    def silent() -> None:
        for _ in range(60):
            call()

    def recorded(index: int) -> None:
        found[index] = [record(call)[1] for _ in range(20)]

    threads = [threading.Thread(target=silent) for _ in range(2)]
    threads += [threading.Thread(target=recorded, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for index in range(2):
        for taps in found[index]:
            assert [name for name, _ in taps] == [name for name, _ in alone]
            assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(taps, alone))
