"""``s3tokenizer.tokens`` in PyTorch; see the contract in ``__init__.py``.

``S3Tokenizer`` turns a log-mel spectrogram ``[B, 128, T]`` into the numbers ``[B, ceil(T / 4), 8]`` that ``ids`` rounds to the
base-3 digits of a token: two convolutions of stride 2, then transformer blocks whose attention carries a depthwise memory (FSMN)
of its values. Source: ``s3tokenizer/model_v2.py`` of s3tokenizer 0.3.0, as ``src/chatterbox/models/s3tokenizer/s3tokenizer.py``
at 5de7a54 uses it (CosyVoice 2, arXiv:2412.10117).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ....checkpoint.resources import Resources
from ....errors import ArgumentError
from ...shared import arrays, torch_network
from ..mel import FFT_SIZE
from . import MAX_FRAMES, SHRINK

STAGE = "s3tokenizer.tokens"
LEVELS = 3


class Context(NamedTuple):
    """What all blocks share: the turn of every position, and which positions of a padded batch hold sound (None: all)."""

    cos: torch.Tensor
    """``[T, 1, head_size / 2]``, as ``sin``."""
    sin: torch.Tensor
    inside: torch.Tensor | None
    """``[B, T]``, 1.0 or 0.0."""

    def turn(self, x: torch.Tensor) -> torch.Tensor:
        """Rotary position embedding (arXiv:2104.09864) of ``[B, T, heads, head_size]``, halves turned against each other."""
        left, right = x.chunk(2, dim=-1)
        return torch.cat((left * self.cos - right * self.sin, right * self.cos + left * self.sin), dim=-1)


class Attention(nn.Module):
    """Self-attention whose output has a memory added: the values, before any rotation, and their depthwise convolution."""

    def __init__(self, size: int, heads: int, kernel: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(size, size)
        self.key = nn.Linear(size, size, bias=False)
        self.value = nn.Linear(size, size)
        self.out = nn.Linear(size, size)
        self.fsmn_block = nn.Conv1d(size, size, kernel, groups=size, bias=False)

    def forward(self, x: torch.Tensor, context: Context) -> torch.Tensor:
        """``[B, T, size]`` → ``[B, T, size]``."""
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)) for part in (self.query, self.key, self.value))
        scale = q.shape[-1] ** -0.25
        q = context.turn(q).permute(0, 2, 1, 3) * scale  # [B, heads, T, head_size]
        k = context.turn(k).permute(0, 2, 3, 1) * scale  # [B, heads, head_size, T]
        scores = q @ k
        if context.inside is not None:
            scores = scores + (1.0 - context.inside[:, None, None]) * -1e10
        attended = scores.softmax(dim=-1) @ v.permute(0, 2, 1, 3)
        attended = attended.permute(0, 2, 1, 3).flatten(2)  # [B, T, size]
        return self.out(attended) + self._memory(v.flatten(2), context)

    def _memory(self, v: torch.Tensor, context: Context) -> torch.Tensor:
        if context.inside is not None:
            v = v * context.inside[..., None]
        kernel = self.fsmn_block.kernel_size[0]
        before = (kernel - 1) // 2
        # Padding here makes the copy that the convolution needs anyway, and is faster than padding inside it.
        padded = F.pad(v.transpose(1, 2), (before, kernel - 1 - before))  # [B, size, T + kernel - 1]
        memory = self.fsmn_block(padded).transpose(1, 2) + v
        return memory if context.inside is None else memory * context.inside[..., None]


class Block(nn.Module):
    """``x + attn(attn_ln(x))``, then ``x + mlp(mlp_ln(x))``."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        size = config["hidden_size"]
        self.attn = Attention(size, config["heads"], config["fsmn_kernel"])
        self.attn_ln = nn.LayerNorm(size, eps=config["attn_norm_eps"])
        self.mlp = nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size))
        self.mlp_ln = nn.LayerNorm(size, eps=config["mlp_norm_eps"])

    def forward(
        self, x: torch.Tensor, context: Context, advance: torch_network.Advance = torch_network.unreported
    ) -> torch.Tensor:
        """``[B, T, size]`` → ``[B, T, size]``; two steps of progress."""
        x = x + self.attn(self.attn_ln(x), context)
        advance()
        x = x + self.mlp(self.mlp_ln(x))
        advance()
        return x


class Encoder(nn.Module):
    """A mel spectrogram ``[B, mels, T]`` → ``[B, ceil(T / 4), size]``."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        size = config["hidden_size"]
        self.rope_theta: float = config["rope_theta"]
        self.conv1 = nn.Conv1d(config["mels"], size, 3, stride=2, padding=1)
        self.conv2 = nn.Conv1d(size, size, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config["layers"]))

    def forward(
        self, x: torch.Tensor, lengths: torch.Tensor | None, advance: torch_network.Advance = torch_network.unreported
    ) -> torch.Tensor:
        """``lengths`` ``[B]`` are the frames of every clip of a padded batch; one step of progress, and two per block."""
        for conv in (self.conv1, self.conv2):
            if lengths is not None:
                x = x * _inside(lengths, x.shape[2])[:, None]
                lengths = (lengths + 1) // 2
            x = F.gelu(conv(x))
        x = x.transpose(1, 2).contiguous()  # [B, size, T] → [B, T, size]
        advance()
        cos, sin = self.turns(x.shape[1], x.device)
        context = Context(cos, sin, None if lengths is None else _inside(lengths, x.shape[1]))
        for block in self.blocks:
            x = block(x, context, advance)
        return x

    def turns(self, positions: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines ``[positions, 1, head_size / 2]``; ``polar`` on the CPU gives upstream's numbers to the bit."""
        attention = self.blocks[0].attn
        size = attention.query.out_features // attention.heads
        frequencies = 1.0 / self.rope_theta ** (torch.arange(0, size, 2).float() / size)
        angles = torch.outer(torch.arange(positions), frequencies)
        turns = torch.polar(torch.ones_like(angles), angles)[:, None].to(device)
        return turns.real.contiguous(), turns.imag.contiguous()


def _inside(lengths: torch.Tensor, size: int) -> torch.Tensor:
    """``[B]`` → float32 ``[B, size]``: 1 before the end, 0 from there on."""
    return (torch.arange(size, device=lengths.device) < lengths[:, None]).float()


class Codebook(nn.Module):
    """Finite scalar quantisation (arXiv:2309.15505) before the rounding: ``[B, T, size]`` → ``[B, T, 8]``."""

    def __init__(self, size: int, dims: int) -> None:
        super().__init__()
        self.project_down = nn.Linear(size, dims)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.project_down(x).tanh() * SHRINK


class Quantizer(nn.Module):
    """Holds the codebook under upstream's name."""

    def __init__(self, size: int, dims: int) -> None:
        super().__init__()
        self._codebook = Codebook(size, dims)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._codebook(x)


class S3Tokenizer(nn.Module):
    """S3Tokenizer v2; ``config`` is the section ``s3tokenizer`` of the configuration.

    The filters and the window belong to ``s3tokenizer.mel``; upstream keeps them in this module.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.quantizer = Quantizer(config["hidden_size"], config["fsq_dims"])
        self.register_buffer("_mel_filters", torch.zeros(config["mels"], FFT_SIZE // 2 + 1))
        self.register_buffer("window", torch.zeros(FFT_SIZE))

    def forward(
        self,
        mel: torch.Tensor,
        lengths: torch.Tensor | None = None,
        advance: torch_network.Advance = torch_network.unreported,
    ) -> torch.Tensor:
        """``[B, mels, T]`` → ``[B, ceil(T / 4), 8]`` in -SHRINK..SHRINK; ``lengths`` ``[B]``: frames of a padded batch's clips."""
        return self.quantizer(self.encoder(mel, lengths, advance))

    @staticmethod
    def ids(levels: torch.Tensor) -> torch.Tensor:
        """``[B, T, 8]`` → int64 ``[B, T]``: every number rounded to -1, 0 or 1, the digits least significant first."""
        digits = levels.round().long() + 1
        return (digits * LEVELS ** torch.arange(levels.shape[-1], device=levels.device)).sum(dim=-1)


class Tokens:
    """The stage over one loaded network."""

    prefix = "tokenizer."

    def __init__(self, module: S3Tokenizer, device: torch.device) -> None:
        self.module = module
        self._device = device

    def __call__(self, mel: np.ndarray, callback: torch_network.Callback | None = None) -> np.ndarray:
        """Token ids ``[ceil(frames / 4)]``."""
        return torch_network.array(self.module.ids(self._levels(mel, callback)))

    def of_all(self, mels: list[np.ndarray], callback: torch_network.Callback | None = None) -> list[np.ndarray]:
        """Those of several clips, one after the other."""
        return [self(mel, callback) for mel in mels]

    def pre_codes(self, mel: np.ndarray, callback: torch_network.Callback | None = None) -> np.ndarray:
        """The numbers before rounding, ``[ceil(frames / 4), 8]``."""
        return torch_network.array(self._levels(mel, callback))

    @torch.inference_mode()
    def _levels(self, mel: np.ndarray, callback: torch_network.Callback | None) -> torch.Tensor:
        encoder = self.module.encoder
        mel = arrays.frames("mel", mel, encoder.conv1.in_channels)
        if len(mel) > MAX_FRAMES:
            raise ArgumentError(f"mel: expected at most {MAX_FRAMES} frames (30 s), got {len(mel)}; crop the clip first")
        advance = torch_network.reporter(STAGE, callback, 2 * len(encoder.blocks) + 1)
        return self.module(torch_network.tensor(mel, self._device).transpose(1, 2), None, advance)

    def hyperparameters(self) -> dict[str, Any]:
        """What the loaded module computes with."""
        encoder, block = self.module.encoder, self.module.encoder.blocks[0]
        return {
            "mels": encoder.conv1.weight.shape[1],
            "hidden_size": encoder.conv1.weight.shape[0],
            "heads": block.attn.heads,
            "layers": len(encoder.blocks),
            "ffn_size": block.mlp[0].weight.shape[0],
            "fsmn_kernel": block.attn.fsmn_block.weight.shape[2],
            "rope_theta": encoder.rope_theta,
            "attn_norm_eps": block.attn_ln.eps,
            "mlp_norm_eps": block.mlp_ln.eps,
            "fsq_dims": self.module.quantizer._codebook.project_down.weight.shape[0],
            "activation": {"none": "gelu", "tanh": "gelu_tanh"}[block.mlp[1].approximate],
            "query_bias": block.attn.query.bias is not None,
            "key_bias": block.attn.key.bias is not None,
            "value_bias": block.attn.value.bias is not None,
        }


def create(resources: Resources) -> Tokens:
    """The stage with the checkpoint's weights, on the device of ``resources``."""
    device = torch_network.device(resources.device)
    module = torch_network.blank(lambda: S3Tokenizer(resources.config["s3tokenizer"]), device)
    return Tokens(torch_network.load(module, resources.tensors("s3gen"), Tokens.prefix), device)
