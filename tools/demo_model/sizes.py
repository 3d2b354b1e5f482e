"""The demo model's configuration: sizes of every network, 729 speech ids of six ternary digits, characters as text ids.

``config(text_vocab, silence_token, t3)`` is the ``config.json`` of the model's directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chatterbox_turbo_rs.checkpoint import config as configuration

DIGITS = 6
IDS = 3**DIGITS

TEXT_VOCAB = 1024
LONGEST = 120
"""Characters that it reads well in one go."""
T3 = {"hidden_size": 24, "layers": 2, "heads": 2, "ffn_size": 96, "positions": 2500}
"""What stands for T3 where its training has chosen no sizes yet."""
S3TOKENIZER = {"hidden_size": 128, "heads": 2, "layers": 3, "fsq_dims": DIGITS}
VOICE_ENCODER = {"hidden_size": 64, "embedding_size": 64}
SPEAKER_ENCODER = {"head_channels": 8, "init_channels": 32, "growth": 8, "bottleneck": 2, "layers": [4, 6, 4]}
ENCODER = {"hidden_size": 160, "heads": 2, "ffn_size": 320, "layers": 3, "up_layers": 1}
ESTIMATOR = {"channels": 96, "heads": 2, "head_size": 48, "blocks": 1, "mid_blocks": 2}
VOCODER = {"base_channels": 128, "resblock_kernels": [3, 7], "source_resblock_kernels": [5, 5, 5], "f0_channels": 96}


def sound() -> dict[str, Any]:
    """Turbo's configuration with the sizes above: the sections that the sound's networks are built with."""
    result = configuration.builtin("turbo") | {"name": "demo", "repository": None, "revision": None}
    result["text"]["vocab_size"] = TEXT_VOCAB
    result["t3"] |= T3
    result["s3tokenizer"] |= S3TOKENIZER
    result["voice_encoder"] |= VOICE_ENCODER
    result["speaker_encoder"] |= SPEAKER_ENCODER
    gen = result["s3gen"]
    gen["vocab"] = IDS
    gen["encoder"] |= ENCODER
    gen["estimator"] |= ESTIMATOR
    gen["vocoder"] |= VOCODER
    return result


def config(text_vocab: int, silence_token: int, t3: Mapping[str, Any]) -> dict[str, Any]:
    """The whole configuration, checked; ``t3`` has the sizes that its training chose."""
    result = sound()
    result["text"] |= {"vocab_size": text_vocab, "longest": LONGEST}
    result["t3"] |= {"speech_vocab": IDS + 2, "start_token": IDS, "stop_token": IDS + 1, **t3}
    result["s3gen"]["silence_token"] = silence_token
    configuration.check(result, "demo model")
    return result
