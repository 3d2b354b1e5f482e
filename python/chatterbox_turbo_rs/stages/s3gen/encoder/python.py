"""``s3gen.encoder`` in PyTorch: speech tokens [B, T] to their mean mel spectrogram [B, 2T, mels].

``FlowEncoder`` is the network, for training too; ``Encoder`` is the stage of ``__init__.py`` over it: ids int64 [T] to ``mu``
float32 [2T, mels]. C is the width, H the number of heads, D = C / H.

Source: ``CausalMaskedDiffWithXvec`` of ``src/chatterbox/models/s3gen/flow.py`` (``input_embedding``, ``encoder_proj``),
``UpsampleConformerEncoder`` of ``transformer/upsample_encoder.py`` and what it is made of: ``attention.py``, ``embedding.py``,
``encoder_layer.py``, ``positionwise_feed_forward.py`` and ``subsampling.py`` beside it, of resemble-ai/chatterbox at 5de7a54.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....checkpoint.resources import Resources
from ....errors import ArgumentError
from ...shared import arrays, torch_network
from . import EMBEDDING_BASE, FRAMES_PER_TOKEN, LOOKAHEAD_SLOPE

STAGE = "s3gen.encoder"


def create(resources: Resources) -> Encoder:
    return Encoder(resources)


def positions(rows: int, size: int) -> Tensor:
    """Sinusoids of the relative positions T - 1 down to -(T - 1): [1, 2T - 1, C], even columns sine, odd ones cosine.

    Float32 angles on the CPU, as upstream's: at position 1000 their rounding is larger than float32's own.
    """
    position = torch.arange(rows - 1, -rows, -1, dtype=torch.float32)
    frequency = torch.exp(torch.arange(0, size, 2, dtype=torch.float32) * -(math.log(EMBEDDING_BASE) / size))
    angle = position[:, None] * frequency  # [2T - 1, C / 2]
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[None]


def mask(lengths: Tensor | None, rows: int) -> Tensor | None:
    """True where a row holds something: [B, T]. None stands for batches without padding."""
    return None if lengths is None else torch.arange(rows, device=lengths.device) < lengths[:, None]


class Embed(nn.Module):
    """Linear, LayerNorm, times the square root of the width; beside it the table of relative positions."""

    def __init__(self, size: int, eps: float, dropout: float) -> None:
        super().__init__()
        self.out = nn.Sequential(nn.Linear(size, size), nn.LayerNorm(size, eps), nn.Dropout(dropout))
        self.dropout = nn.Dropout(dropout)
        self.scale = math.sqrt(size)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, T, C] → [B, T, C], [1, 2T - 1, C]."""
        table = positions(x.shape[1], x.shape[2]).to(x)
        return self.dropout(self.out(x) * self.scale), self.dropout(table)


class PreLookahead(nn.Module):
    """Adds to every row what two convolutions make of it, the ``lookahead`` rows after it and the two before it."""

    def __init__(self, size: int, lookahead: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(size, size, lookahead + 1)
        self.conv2 = nn.Conv1d(size, size, 3)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, C] → [B, T, C]."""
        y = F.pad(x.transpose(1, 2), (0, self.conv1.kernel_size[0] - 1))  # [B, C, T + lookahead]
        y = F.leaky_relu(self.conv1(y), LOOKAHEAD_SLOPE)
        y = self.conv2(F.pad(y, (2, 0)))
        return y.transpose(1, 2) + x


class Upsample(nn.Module):
    """Every row twice, then a causal convolution."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(size, size, 2 * FRAMES_PER_TOKEN + 1)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, T] → [B, C, 2T]."""
        x = x.repeat_interleave(FRAMES_PER_TOKEN, dim=2)
        return self.conv(F.pad(x, (self.conv.kernel_size[0] - 1, 0)))


class RelativeAttention(nn.Module):
    """Self-attention whose score of row i for row j is ((q_i + u) · k_j + (q_i + v) · p_{i-j}) / √D (arXiv:1901.02860)."""

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q, self.linear_k, self.linear_v = (nn.Linear(size, size) for _ in range(3))
        self.linear_out, self.linear_pos = nn.Linear(size, size), nn.Linear(size, size, bias=False)
        biases = (nn.Parameter(torch.empty(heads, size // heads)) for _ in range(2))
        self.pos_bias_u, self.pos_bias_v = (nn.init.xavier_uniform_(bias) for bias in biases)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, table: Tensor, seen: Tensor | None) -> Tensor:
        """x [B, T, C], position table [1, 2T - 1, C], rows that may be seen [B, T] or None → [B, T, C]."""
        b, t, c = x.shape
        q, k, v = (linear(x).view(b, t, self.heads, -1) for linear in (self.linear_q, self.linear_k, self.linear_v))
        p = self.linear_pos(table).view(1, 2 * t - 1, self.heads, -1).permute(0, 2, 3, 1)  # [1, H, D, 2T - 1]
        content = (q + self.pos_bias_u).transpose(1, 2) @ k.permute(0, 2, 3, 1)  # [B, H, T, T]
        position = relative_shift((q + self.pos_bias_v).transpose(1, 2) @ p)  # [B, H, T, T]
        scores = (content + position) / math.sqrt(c // self.heads)
        if seen is not None:
            scores = scores.masked_fill(~seen[:, None, None], -torch.inf)
        y = self.dropout(scores.softmax(dim=-1)) @ v.transpose(1, 2)  # [B, H, T, D]
        return self.linear_out(y.transpose(1, 2).reshape(b, t, c))


def relative_shift(x: Tensor) -> Tensor:
    """[B, H, T, 2T - 1] by relative position T - 1 … -(T - 1) → [B, H, T, T] by row: column j of row i is the old T - 1 - i + j.

    With one column more in front, and T to a row in place of 2T, row i begins i columns earlier than the row before it.
    """
    b, h, t, columns = x.shape
    return F.pad(x, (1, 0)).view(b, h, columns + 1, t)[:, :, 1:].view(b, h, t, columns)[..., :t]


class FeedForward(nn.Module):
    def __init__(self, size: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.w_1, self.w_2 = nn.Linear(size, inner), nn.Linear(inner, size)
        self.activation = nn.SiLU()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.w_2(self.dropout(self.activation(self.w_1(x))))


class Layer(nn.Module):
    """A conformer block without convolution: attention and feed-forward layer, each on normalised input."""

    def __init__(self, size: int, heads: int, inner: int, eps: float, dropout: float) -> None:
        super().__init__()
        self.norm_mha, self.self_attn = nn.LayerNorm(size, eps), RelativeAttention(size, heads, dropout)
        self.norm_ff, self.feed_forward = nn.LayerNorm(size, eps), FeedForward(size, inner, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, table: Tensor, seen: Tensor | None) -> Tensor:
        x = x + self.dropout(self.self_attn(self.norm_mha(x), table, seen))
        return x + self.dropout(self.feed_forward(self.norm_ff(x)))


class UpsampleConformer(nn.Module):
    """Blocks at 25 Hz, doubling of the rate, blocks at 50 Hz."""

    def __init__(self, c: Mapping[str, Any], dropout: float) -> None:
        super().__init__()
        size, eps = c["hidden_size"], c["norm_eps"]
        layer = (size, c["heads"], c["ffn_size"], c["layer_norm_eps"], dropout)
        self.embed = Embed(size, eps, dropout)
        self.pre_lookahead_layer = PreLookahead(size, c["lookahead"])
        self.encoders = nn.ModuleList(Layer(*layer) for _ in range(c["layers"]))
        self.up_layer = Upsample(size)
        self.up_embed = Embed(size, eps, dropout)
        self.up_encoders = nn.ModuleList(Layer(*layer) for _ in range(c["up_layers"]))
        self.after_norm = nn.LayerNorm(size, eps)

    def forward(self, x: Tensor, lengths: Tensor | None, report: Callable[[], Any]) -> Tensor:
        """x [B, T, C] → [B, 2T, C]; ``report()`` after every block."""
        x, table = self.embed(x)
        x = self.pre_lookahead_layer(x)
        seen = mask(lengths, x.shape[1])
        for layer in self.encoders:
            x = layer(x, table, seen)
            report()
        x = self.up_layer(x.transpose(1, 2)).transpose(1, 2).contiguous()  # a linear layer rounds otherwise over strides
        x, table = self.up_embed(x)
        seen = None if lengths is None else mask(FRAMES_PER_TOKEN * lengths, x.shape[1])
        for layer in self.up_encoders:
            x = layer(x, table, seen)
            report()
        return self.after_norm(x)


class FlowEncoder(nn.Module):
    """The network at the sizes of section ``s3gen`` of a configuration; ``dropout`` is upstream's, for training."""

    def __init__(self, config: Mapping[str, Any], dropout: float = 0.1) -> None:
        super().__init__()
        size = config["encoder"]["hidden_size"]
        self.input_embedding = nn.Embedding(config["vocab"], size)
        self.encoder = UpsampleConformer(config["encoder"], dropout)
        self.encoder_proj = nn.Linear(size, config["mels"])

    def forward(self, ids: Tensor, lengths: Tensor | None = None, report: Callable[[], Any] = lambda: None) -> Tensor:
        """ids [B, T] → mu [B, 2T, mels]. With ``lengths`` [B], ids behind them are padding, which may hold any id of the table."""
        x = self.input_embedding(ids)  # [B, T, C]
        seen = mask(lengths, ids.shape[1])
        if seen is not None:
            x = x * seen[..., None]
        return self.encoder_proj(self.encoder(x, lengths, report))


class Encoder:
    """The stage: ``encoder(ids, callback=None)``."""

    prefix = "flow."

    def __init__(self, resources: Resources) -> None:
        self.device = torch_network.device(resources.device)
        with torch.device("meta"):  # no time spent on random weights
            module = FlowEncoder(resources.config["s3gen"])
        within = [f"{self.prefix}{name}." for name, _ in module.named_children()]
        module = module.to_empty(device=self.device)
        self.module = torch_network.load(module, resources.tensors("s3gen"), self.prefix, within=within)

    @torch.inference_mode()
    def __call__(self, ids: np.ndarray, callback: torch_network.Callback | None = None) -> np.ndarray:
        ids, vocab = arrays.ids("ids", ids), self.module.input_embedding.num_embeddings
        if not len(ids):
            raise ArgumentError(f"{STAGE}: ids: expected at least one token, got none")
        bad = np.flatnonzero((ids < 0) | (ids >= vocab))
        if len(bad):
            raise ArgumentError(f"{STAGE}: ids: id {ids[bad[0]]} at position {bad[0]}, expected 0 to {vocab - 1}")
        blocks = len(self.module.encoder.encoders) + len(self.module.encoder.up_encoders)
        report = torch_network.reporter(STAGE, callback, blocks)
        return torch_network.array(self.module(torch_network.tensor(ids, self.device), report=report))

    def hyperparameters(self) -> dict[str, Any]:
        """What the network is built and run with, as the loaded module has it."""
        encoder, layer = self.module.encoder, self.module.encoder.encoders[0]
        return {
            "vocab": self.module.input_embedding.num_embeddings,
            "mels": self.module.encoder_proj.out_features,
            "hidden_size": self.module.input_embedding.embedding_dim,
            "heads": layer.self_attn.heads,
            "ffn_size": layer.feed_forward.w_1.out_features,
            "layers": len(encoder.encoders),
            "up_layers": len(encoder.up_encoders),
            "lookahead": encoder.pre_lookahead_layer.conv1.kernel_size[0] - 1,
            "layer_norm_eps": layer.norm_mha.eps,
            "norm_eps": encoder.after_norm.eps,
            "activation": type(layer.feed_forward.activation).__name__.lower(),
            "key_bias": layer.self_attn.linear_k.bias is not None,
            "embedding_scale": encoder.embed.scale,
        }
