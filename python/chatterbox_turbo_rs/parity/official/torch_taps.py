"""Named intermediates of a stage's PyTorch modules: forward hooks on upstream's module paths.

``POINTS`` names them once for every side: the official package and the PyTorch side of this one have the same paths and the same
layouts; the Rust core records under the same names (``tap.rs``). Arrays are float32 [time, channels], the batch axis dropped.
A module that is called several times in one call of the stage gets ``#1``, ``#2``, … behind its name.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

ESTIMATOR = r"flow\.decoder\.estimator\."


def _time(value: torch.Tensor) -> torch.Tensor:
    """[1, T, C], [1, C] or [1, T] → [T, C], [1, C] or [T, 1]."""
    return value[0]


def _channels(value: torch.Tensor) -> torch.Tensor:
    """[1, C, T] → [T, C]."""
    return value[0].T


def _rows(value: torch.Tensor) -> torch.Tensor:
    """[rows, C] as it is: the rows are a batch of pieces."""
    return value


def _last(value: torch.Tensor) -> torch.Tensor:
    """[1, T, C] → the last of T."""
    return value[0, -1:]


Layout = Callable[[torch.Tensor], torch.Tensor]
POINTS: dict[str, tuple[tuple[str, Layout], ...]] = {
    "voice_encoder.embedding": ((r"lstm", _rows), (r"proj", _rows)),
    "s3tokenizer.tokens": (
        (r"tokenizer\.encoder\.conv2\.in", _channels),
        (r"tokenizer\.encoder\.blocks\.0\.in", _time),
        (r"tokenizer\.encoder\.blocks\.\d+", _time),
        (r"tokenizer\.quantizer\._codebook\.project_down", _time),
    ),
    "speaker_encoder.xvector": (
        (r"speaker_encoder\.head", _channels),
        (r"speaker_encoder\.xvector\.(tdnn|block\d+|transit\d+|out_nonlinear)", _channels),
        (r"speaker_encoder\.xvector\.(stats|dense)", _rows),
    ),
    "t3.decoder": (
        (r"tfmr\.h\.0\.in", _time),
        (r"tfmr\.h\.\d+", _time),
        (r"tfmr\.ln_f", _last),
        (r"speech_head", _last),
    ),
    "s3gen.encoder": (
        (r"flow\.encoder\.(embed|pre_lookahead_layer|encoders\.\d+|up_embed|up_encoders\.\d+|after_norm)", _time),
        (r"flow\.encoder\.up_layer", _channels),
        (r"flow\.encoder_proj", _time),
    ),
    "s3gen.flow": (
        (r"flow\.spk_embed_affine_layer", _rows),
        (ESTIMATOR + r"time_embed_mixer", _rows),
        (ESTIMATOR + r"(down_blocks|mid_blocks|up_blocks)\.\d+\.0", _channels),
        (ESTIMATOR + r"(down_blocks|mid_blocks|up_blocks)\.\d+\.1\.\d+", _time),
        (ESTIMATOR + r"(down_blocks|up_blocks)\.\d+\.2", _channels),
        (ESTIMATOR + r"(final_block|final_proj)", _channels),
    ),
    "s3gen.vocoder": (
        (r"mel2wav\.f0_predictor", _time),
        (r"mel2wav\.m_source", _time),
        (r"mel2wav\.(conv_pre|ups\.\d+|source_downs\.\d+|source_resblocks\.\d+|resblocks\.\d+|conv_post)", _channels),
    ),
}


def layout(stage: str, name: str) -> Layout | None:
    """How the output of module ``name`` (the input of the module for ``….in``) lies; None when it is no tap of the stage."""
    return next((found for pattern, found in POINTS[stage] if re.fullmatch(pattern, name)), None)


@contextlib.contextmanager
def recording(root: nn.Module, prefix: str, stage: str, into: list[tuple[str, np.ndarray]]) -> Iterator[None]:
    """Appends (name, array) of every tap of ``stage`` that the modules below ``root`` compute inside the context, in order.

    ``prefix`` stands before the names of ``root``'s modules (``"flow."``). Not for use by several threads at a time.
    """
    taken: list[tuple[str, np.ndarray]] = []
    with contextlib.ExitStack() as stack:
        for path, module in root.named_modules():
            name = prefix + path
            if found := layout(stage, name):
                stack.callback(module.register_forward_hook(_after(name, found, taken)).remove)
            if found := layout(stage, f"{name}.in"):
                stack.callback(module.register_forward_pre_hook(_before(f"{name}.in", found, taken)).remove)
        yield
    names = [name for name, _ in taken]
    seen: dict[str, int] = {}
    for name, value in taken:
        seen[name] = seen.get(name, 0) + 1
        into.append((f"{name}#{seen[name]}" if names.count(name) > 1 else name, value))


def _after(name: str, place: Layout, taken: list[tuple[str, np.ndarray]]) -> Callable[..., None]:
    def hook(module: nn.Module, arguments: Any, output: Any) -> None:
        if isinstance(module, nn.LSTM):
            output = output[1][0][-1]  # the last layer's final hidden state
        taken.append((name, _array(place, output)))

    return hook


def _before(name: str, place: Layout, taken: list[tuple[str, np.ndarray]]) -> Callable[..., None]:
    def hook(module: nn.Module, arguments: Any) -> None:
        taken.append((name, _array(place, arguments)))

    return hook


def _array(place: Layout, value: Any) -> np.ndarray:
    tensor = place((value[0] if isinstance(value, (tuple, list)) else value).detach())
    array = np.array(tensor.float().cpu().numpy(), np.float32, order="C")
    return array.reshape(len(array), -1)
