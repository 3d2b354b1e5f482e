"""Every function of the core that takes an array takes it however it lies in memory, with the same result, or refuses it."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_model import TOY

from chatterbox_turbo_rs import _core
from chatterbox_turbo_rs.errors import ArgumentError
from chatterbox_turbo_rs.stages.watermark import rust as watermark


def unaligned(array: np.ndarray) -> np.ndarray:
    """The same numbers, the first of them at an odd address."""
    data = np.frombuffer(b"\0" + array.tobytes(), np.uint8)
    moved = np.ndarray(array.shape, array.dtype, data.data, offset=1 + data.ctypes.data % 2)
    assert not moved.flags.aligned and moved.flags.c_contiguous
    return moved


def strided_and_unaligned(array: np.ndarray) -> np.ndarray:
    """Every second one of twice as many, from an odd address on."""
    twice = np.repeat(array, 2, axis=-1)
    return unaligned(twice)[..., ::2]


def backwards(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array[::-1])[::-1]


def read_only(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


LAYOUTS = [unaligned, strided_and_unaligned, backwards, np.asfortranarray, read_only]
"""What gives an array of the same numbers that lies otherwise."""


@pytest.fixture(scope="module")
def calls() -> dict[str, tuple[Callable[..., Any], list[np.ndarray]]]:
    """Every function that takes arrays, and arguments for it."""
    rng = np.random.default_rng(5)

    def floats(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.1, shape).astype(np.float32)

    def ids(count: int) -> np.ndarray:
        return rng.integers(0, 200, count)

    configuration = (Path(TOY) / "config.json").read_text(encoding="utf-8")
    core, device, sizes = _core.Checkpoint(TOY, configuration), "cpu", json.loads(configuration)
    hidden, mels = sizes["voice_encoder"]["embedding_size"], sizes["s3gen"]["mels"]
    samples, harmonics = floats(24_000), sizes["s3gen"]["vocoder"]["harmonics"] + 1
    decoder, encoder = _core.T3Decoder(core, device), _core.FlowEncoder(core, device)
    vocoder, flow, watermarker = _core.Vocoder(core, device), _core.Flow(core, device), watermark.create(None)._core
    tokenizer, speaker, voice = (
        _core.S3Tokenizer(core, device),
        _core.SpeakerEncoder(core, device),
        _core.VoiceEncoder(core, device),
    )
    chosen = dict(temperature=0.8, top_k=1000, top_p=0.95, repetition_penalty=1.2, max_tokens=4)
    prefix = decoder.prefix(floats(hidden), ids(8))

    def stepped(tokens: np.ndarray) -> Any:
        session = decoder.start_from(prefix, np.arange(5), 4)
        session.prefill()
        return decoder.step_many([session], tokens)

    def many(text: np.ndarray) -> Any:
        found: list[Any] = []
        decoder.generate_many(
            [{"prefix": prefix, "text_ids": text, "seed": 3, **chosen}], lambda i, x, s: found.append(x), rows=2
        )
        return found

    def admitted(text: np.ndarray) -> Any:
        batch, found = decoder.open_batch(), []
        found += batch.admit(7, {"prefix": prefix, "text_ids": text, "seed": 3, **chosen})
        while len(batch):
            found += batch.run(1.0)
        return [(key, tokens) for key, tokens, _ in found]

    mel = floats(20, mels)
    xvector, prompt = floats(sizes["speaker_encoder"]["embedding_size"]), floats(8, mels)
    phases, noise = floats(harmonics), floats(480 * 20, harmonics)
    return {
        "reference_load": (lambda x: _core.reference_load(x, 24_000), [floats(130_000, 2)]),
        "reference_loudness": (_core.reference_loudness, [samples]),
        "reference_loudness_measure": (_core.reference_loudness_measure, [samples]),
        "reference_resample": (_core.reference_resample, [samples]),
        "voice_encoder_mel": (_core.voice_encoder_mel, [samples]),
        "VoiceEncoder.embedding": (voice.embedding, [np.abs(floats(200, 40))]),
        "S3TokenizerMel": (_core.S3TokenizerMel(core), [samples]),
        "S3Tokenizer.tokens": (lambda mel: tokenizer.tokens([mel, mel[::2]]), [floats(40, 128)]),
        "S3Tokenizer.pre_codes": (tokenizer.pre_codes, [floats(40, 128)]),
        "speaker_encoder_fbank": (_core.speaker_encoder_fbank, [samples]),
        "SpeakerEncoder.xvector": (speaker.xvector, [floats(200, 80)]),
        "s3gen_prompt_mel": (_core.s3gen_prompt_mel, [samples]),
        "T3Decoder.start": (lambda a, b, c: decoder.start(a, b, c, 4).prefill(), [floats(hidden), ids(8), ids(5)]),
        "T3Decoder.prefix": (
            lambda a, b: decoder.start_from(decoder.prefix(a, b), np.arange(5), 4).prefill(),
            [floats(hidden), ids(8)],
        ),
        "T3Decoder.start_from": (lambda text: decoder.start_from(prefix, text, 4).prefill(), [ids(5)]),
        "T3Decoder.step_many": (stepped, [ids(1)]),
        "T3Decoder.generate": (
            lambda text, uniforms: decoder.generate(prefix, text, uniforms=uniforms, **chosen),
            [ids(5), rng.random(8)],
        ),
        "T3Decoder.generate_many": (many, [ids(5)]),
        "T3Batch.admit": (admitted, [ids(5)]),
        "T3Decoder.keep_speech": (decoder.keep_speech, [ids(9)]),
        "t3_sampler": (
            lambda a, b: _core.t3_sampler(a, b, 0.8, 1000, 0.95, 1.2, 0.5),
            [floats(sizes["t3"]["speech_vocab"]), ids(9)],
        ),
        "FlowEncoder.mu": (encoder.mu, [ids(12)]),
        "Flow.mel": (flow.mel, [mel, xvector, prompt, floats(20, mels)]),
        "Vocoder.samples": (vocoder.samples, [mel, phases, noise]),
        "Vocoder.f0": (vocoder.f0, [mel]),
        "Vocoder.source": (vocoder.source, [np.abs(floats(20)) * 1000, phases, noise]),
        "Vocoder.samples_from_source": (vocoder.samples_from_source, [mel, floats(480 * 20)]),
        "Watermarker.embed": (watermarker.embed, [samples]),
        "Watermarker.levels": (watermarker.levels, [samples]),
        "Watermarker.detect": (lambda x: watermarker.detect(x, 24_000), [samples]),
    }


def takes_arrays() -> set[str]:
    """The names in the stub of all functions and methods with an array among their arguments."""
    stub = ast.parse((Path(_core.__file__).parent / "_core.pyi").read_text(encoding="utf-8"))
    found = set()
    for outer in stub.body:
        for node in outer.body if isinstance(outer, ast.ClassDef) else [outer]:
            if isinstance(node, ast.FunctionDef):
                annotations = " ".join(ast.unparse(a.annotation) for a in node.args.args + node.args.kwonlyargs if a.annotation)
                if any(kind in annotations for kind in ("_Floats", "_Ids", "NDArray", "_Request")):
                    name = outer.name if node is outer else f"{outer.name}.{node.name}"
                    found.add(name.removesuffix(".__call__"))
    return found


def test_every_function_is_here(calls: dict[str, Any]) -> None:
    assert takes_arrays() == set(calls)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(np.array_equal(a, b))


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_the_layout_changes_nothing(calls: dict[str, Any], layout: Callable[[np.ndarray], np.ndarray]) -> None:
    for name, (call, arguments) in calls.items():
        moved = [layout(argument) for argument in arguments]
        assert all(np.array_equal(a, b) for a, b in zip(moved, arguments))
        assert same(call(*moved), call(*arguments)), name


def test_the_other_byte_order_is_refused(calls: dict[str, Any]) -> None:
    for name, (call, arguments) in calls.items():
        for at, argument in enumerate(arguments):
            swapped = argument.astype(argument.dtype.newbyteorder())
            with pytest.raises(ArgumentError, match=r"expected (float|int)(32|64) .*, got [><][fi][48] array of shape"):
                call(*arguments[:at], swapped, *arguments[at + 1 :])
                pytest.fail(name)
