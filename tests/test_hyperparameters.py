"""Hyper-parameters as the loaded networks tell them, against the configuration that they were loaded with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import implementations
import pytest
from toy_model import TOY

from chatterbox_turbo_rs.checkpoint.resources import Resources
from chatterbox_turbo_rs.engine import registry
from chatterbox_turbo_rs.parity.recording import NETWORKS as KEYS


def expected(key: str, config: dict[str, Any]) -> dict[str, Any]:
    c = dict(config[key.split(".")[0]])
    if key == "voice_encoder.embedding":
        return c | {"final_activation": "relu"}
    if key == "s3tokenizer.tokens":
        biases = {"query_bias": True, "key_bias": False, "value_bias": True}
        return c | {"ffn_size": 4 * c["hidden_size"], "activation": "gelu"} | biases
    if key == "speaker_encoder.xvector":
        return c
    if key == "t3.decoder":
        del c["prompt_tokens"]
        scale = (c["hidden_size"] // c["heads"]) ** -0.5
        own = {"activation": "gelu_tanh", "text_vocab": config["text"]["vocab_size"], "head_bias": True}
        return c | own | {"attention_scale": pytest.approx(scale, rel=1e-12)}
    if key == "s3gen.encoder":
        scale = pytest.approx(c["encoder"]["hidden_size"] ** 0.5, rel=1e-12)
        own = {"vocab": c["vocab"], "mels": c["mels"], "activation": "silu", "key_bias": True, "embedding_scale": scale}
        return c["encoder"] | own
    if key == "s3gen.flow":
        e = dict(c["estimator"])
        steps = e.pop("steps")
        own = {"mels": c["mels"], "xvector_size": config["speaker_encoder"]["embedding_size"]}
        own |= {"activation": "gelu", "resnet_activation": "mish", "time_grid": [i / steps for i in range(steps + 1)]}
        sizes = {"ffn_size": 4 * e["channels"], "time_size": 4 * e["channels"], "residual_convs": e["mid_blocks"] + 2}
        return e | own | sizes
    return c["vocoder"] | {"mels": c["mels"], "last_leaky_slope": 0.01, "hop": 480, "fade": 480}


def both() -> list[Any]:
    """Key and implementation; a side that cannot run is skipped with its reason."""
    params = []
    for key in KEYS:
        for param in implementations.of(key):
            params.append(pytest.param(key, *param.values, marks=param.marks, id=f"{key}-{param.values[0]}"))
    return params


def told(key: str, implementation: str, directory: Path, config: dict[str, Any]) -> dict[str, Any]:
    return registry.load(key, implementation, Resources(directory, config)).hyperparameters()


@pytest.mark.parametrize(("key", "implementation"), both())
@pytest.mark.parametrize("size", ["tiny", "toy"])
def test_are_those_of_the_configuration(tiny_checkpoint: Path, key: str, implementation: str, size: str) -> None:
    directory = tiny_checkpoint if size == "tiny" else Path(TOY)
    config = json.loads((directory / "config.json").read_text())
    assert told(key, implementation, directory, config) == expected(key, config)


@pytest.mark.parametrize(("key", "implementation"), both())
def test_numbers_without_a_tensor_are_those_that_are_used(tiny_checkpoint: Path, key: str, implementation: str) -> None:
    """Nothing is known by heart: other numbers in the configuration are other numbers in the network."""
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    config["voice_encoder"] |= {"partials_per_second": 1.7, "min_coverage": 0.6, "partial_frames": 140}
    config["s3tokenizer"] |= {"rope_theta": 5000.0, "attn_norm_eps": 2e-5, "mlp_norm_eps": 3e-5}
    config["speaker_encoder"] |= {"dilations": [2, 1, 3], "segment": 90, "norm_eps": 4e-5}
    config["t3"] |= {"heads": 8, "norm_eps": 5e-5, "start_token": 6560, "stop_token": 6561}
    config["s3gen"]["encoder"] |= {"layer_norm_eps": 1e-11, "norm_eps": 6e-5}
    config["s3gen"]["estimator"] |= {"heads": 8, "head_size": 8, "norm_eps": 7e-5, "steps": 4}
    config["s3gen"]["vocoder"] |= {
        "resblock_dilations": [1, 2, 4],
        "sine_amplitude": 0.2,
        "noise_std": 0.004,
        "voiced_threshold": 12.5,
        "leaky_slope": 0.15,
        "magnitude_limit": 90.0,
        "audio_limit": 0.9,
    }
    assert told(key, implementation, tiny_checkpoint, config) == expected(key, config)


@pytest.mark.parametrize(("key", "implementation"), both())
def test_are_plain_values(tiny_checkpoint: Path, key: str, implementation: str) -> None:
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    found = told(key, implementation, tiny_checkpoint, config)
    assert json.loads(json.dumps(found)) == found
    assert all(isinstance(value, (bool, int, float, str, list)) for value in found.values())
