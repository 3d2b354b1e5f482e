"""``s3gen.flow`` in PyTorch; see the contract in ``__init__.py``.

``MeanFlow`` starts from noise ``[B, mels, T]`` and follows the mean velocity that its estimator gives for each interval of a
linear time grid. The estimator sees noise, mean mel, speaker and prompt side by side as channels: a U-Net of one level that
never changes the number of frames. Convolutions take ``[B, C, T]``, transformer blocks ``[B, T, C]``, as upstream's do.
Source: ``flow.py``, ``flow_matching.py``, ``decoder.py``, ``matcha/decoder.py``, ``matcha/transformer.py`` and
``utils/intmeanflow.py`` in ``src/chatterbox/models/s3gen`` at 5de7a54; attention and GELU are those of diffusers 0.29.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....checkpoint.resources import Resources
from ....errors import ArgumentError
from ...shared import arrays, torch_network
from . import TIME_BASE, TIME_SCALE

STAGE = "s3gen.flow"
KERNEL = 3
"""Frames that a convolution over time sees."""
EXPANSION = 4
"""Size of the time embedding and of the feed-forward layers, in units of the channels."""

Mask: TypeAlias = Tensor | None
"""``[B, 1, T]``, 1 where a frame is real and 0 where it fills up the batch; None: all are real."""


def masked(x: Tensor, mask: Mask) -> Tensor:
    """``x`` ``[B, C, T]`` with zeros for the frames that are not real."""
    return x if mask is None else x * mask


def sinusoids(time: Tensor, size: int) -> Tensor:
    """Times ``[B]`` from 0 to 1 → sines and cosines ``[B, size]``."""
    half = size // 2
    rates = torch.exp(torch.arange(half, device=time.device).float() * -(math.log(TIME_BASE) / (half - 1)))
    angles = TIME_SCALE * time.unsqueeze(1) * rates.unsqueeze(0)
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


class CausalConv1d(nn.Conv1d):
    """Convolution in which a frame sees itself and those before it, ``[B, inputs, T]`` → ``[B, outputs, T]``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, KERNEL)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (KERNEL - 1, 0)))


class Transpose(nn.Module):
    """``[B, C, T]`` ↔ ``[B, T, C]``."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class CausalBlock1D(nn.Module):
    """Causal convolution, LayerNorm over the channels, Mish; ``[B, inputs, T]`` → ``[B, outputs, T]``."""

    def __init__(self, inputs: int, outputs: int, eps: float) -> None:
        super().__init__()
        convolution, norm = CausalConv1d(inputs, outputs), nn.LayerNorm(outputs, eps)
        self.block = nn.Sequential(convolution, Transpose(), norm, Transpose(), nn.Mish())

    def forward(self, x: Tensor, mask: Mask = None) -> Tensor:
        return masked(self.block(masked(x, mask)), mask)


class CausalResnetBlock1D(nn.Module):
    """Two blocks with the time embedding ``[B, time]`` between them, beside a 1 × 1 convolution.

    ``[B, inputs, T]`` → ``[B, outputs, T]``.
    """

    def __init__(self, inputs: int, outputs: int, time: int, eps: float) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Mish(), nn.Linear(time, outputs))
        self.block1 = CausalBlock1D(inputs, outputs, eps)
        self.block2 = CausalBlock1D(outputs, outputs, eps)
        self.res_conv = nn.Conv1d(inputs, outputs, 1)

    def forward(self, x: Tensor, time: Tensor, mask: Mask = None) -> Tensor:
        h = self.block1(x, mask) + self.mlp(time).unsqueeze(-1)  # [B, outputs, 1]
        return self.block2(h, mask) + self.res_conv(masked(x, mask))


class Attention(nn.Module):
    """Every frame attends to all real ones, ``[B, T, channels]`` in and out."""

    def __init__(self, channels: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, heads * head_size, bias=False)
        self.to_k = nn.Linear(channels, heads * head_size, bias=False)
        self.to_v = nn.Linear(channels, heads * head_size, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(heads * head_size, channels)])

    def forward(self, x: Tensor, mask: Mask = None) -> Tensor:
        query, key, value = (
            linear(x).unflatten(2, (self.heads, -1)).transpose(1, 2)  # [B, heads, T, head_size]
            for linear in (self.to_q, self.to_k, self.to_v)
        )
        visible = None if mask is None else mask.bool().unsqueeze(1)  # [B, 1, 1, T]
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        return self.to_out[0](y.transpose(1, 2).flatten(2))


class GELU(nn.Module):
    """Linear layer and the exact GELU (the error function), ``[B, T, inputs]`` → ``[B, T, outputs]``."""

    approximate = "none"

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x), approximate=self.approximate)


class FeedForward(nn.Module):
    """``[B, T, channels]`` in and out."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        # the dropout between them has rate 0 upstream
        self.net = nn.Sequential(GELU(channels, inner), nn.Identity(), nn.Linear(inner, channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class BasicTransformerBlock(nn.Module):
    """Attention and a feed-forward layer, each on normalised input and added to it; ``[B, T, channels]`` in and out."""

    def __init__(self, channels: int, heads: int, head_size: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps)
        self.attn1 = Attention(channels, heads, head_size)
        self.norm3 = nn.LayerNorm(channels, eps)
        self.ff = FeedForward(channels, EXPANSION * channels)

    def forward(self, x: Tensor, mask: Mask = None) -> Tensor:
        x = self.attn1(self.norm1(x), mask) + x
        return self.ff(self.norm3(x)) + x


class TimestepEmbedding(nn.Module):
    """``[B, inputs]`` → ``[B, outputs]``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, outputs)
        self.linear_2 = nn.Linear(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))


class ConditionalDecoder(nn.Module):
    """The estimator: mean velocity ``[B, mels, T]`` at ``x`` from time ``t`` to time ``r``.

    ``x``, mean mel ``mu`` and prompt ``cond`` are ``[B, mels, T]``, the projected speaker ``spks`` is ``[B, mels]``, times are
    ``[B]`` or ``[1]``. ``advance`` is called after every transformer block.
    """

    def __init__(
        self, mels: int, channels: int, heads: int, head_size: int, blocks: int, mid_blocks: int, norm_eps: float
    ) -> None:
        super().__init__()
        inputs, time = 4 * mels, EXPANSION * channels

        def block(inputs: int, *last: nn.Module) -> nn.ModuleList:
            transformers = nn.ModuleList(BasicTransformerBlock(channels, heads, head_size, norm_eps) for _ in range(blocks))
            return nn.ModuleList([CausalResnetBlock1D(inputs, channels, time, norm_eps), transformers, *last])

        self.time_mlp = TimestepEmbedding(inputs, time)
        self.time_embed_mixer = nn.Linear(2 * time, time, bias=False)
        self.down_blocks = nn.ModuleList([block(inputs, CausalConv1d(channels, channels))])
        self.mid_blocks = nn.ModuleList(block(channels) for _ in range(mid_blocks))
        self.up_blocks = nn.ModuleList([block(2 * channels, CausalConv1d(channels, channels))])
        self.final_block = CausalBlock1D(channels, channels, norm_eps)
        self.final_proj = nn.Conv1d(channels, mels, 1)

    def forward(
        self,
        x: Tensor,
        mu: Tensor,
        t: Tensor,
        r: Tensor,
        spks: Tensor,
        cond: Tensor,
        mask: Mask = None,
        advance: torch_network.Advance = torch_network.unreported,
    ) -> Tensor:
        time = self.time_embed_mixer(torch.cat([self.embed(t), self.embed(r)], dim=1))  # [B, time]
        x = torch.cat([x, mu, spks.unsqueeze(-1).expand_as(mu), cond], dim=1)  # [B, 4 mels, T]

        def run(resnet: nn.Module, transformers: nn.ModuleList, x: Tensor) -> Tensor:
            x = resnet(x, time, mask).transpose(1, 2).contiguous()  # [B, T, channels]
            for transformer in transformers:
                x = transformer(x, mask)
                advance()
            return x.transpose(1, 2).contiguous()  # [B, channels, T]

        [(resnet, transformers, convolution)] = self.down_blocks
        skip = run(resnet, transformers, x)
        x = convolution(masked(skip, mask))
        for resnet, transformers in self.mid_blocks:
            x = run(resnet, transformers, x)
        [(resnet, transformers, convolution)] = self.up_blocks
        x = convolution(masked(run(resnet, transformers, torch.cat([x, skip], dim=1)), mask))
        return masked(self.final_proj(self.final_block(x, mask)), mask)

    def embed(self, time: Tensor) -> Tensor:
        """Times ``[B]`` → ``[B, 4 channels]``."""
        return self.time_mlp(sinusoids(time, self.time_mlp.linear_1.in_features))


class MeanFlow(nn.Module):
    """Follows the estimator from ``noise`` at time 0 to a mel ``[B, mels, T]`` at time 1 in ``steps`` Euler steps.

    ``mu``, ``cond`` (the prompt's mel, then zeros) and ``noise`` are ``[B, mels, T]``, ``xvector`` is ``[B, size]``. A training
    loss takes ``decoder.estimator`` at its own times.
    """

    def __init__(self, mels: int, xvector: int, steps: int, **estimator: Any) -> None:
        super().__init__()
        self.steps = steps
        self.spk_embed_affine_layer = nn.Linear(xvector, mels)
        self.decoder = nn.ModuleDict({"estimator": ConditionalDecoder(mels, **estimator)})

    def time_grid(self) -> Tensor:
        """Where the steps begin and end, ``[steps + 1]``."""
        return torch.linspace(0, 1, self.steps + 1)

    def forward(
        self,
        mu: Tensor,
        xvector: Tensor,
        cond: Tensor,
        noise: Tensor,
        mask: Mask = None,
        advance: torch_network.Advance = torch_network.unreported,
    ) -> Tensor:
        spks = self.spk_embed_affine_layer(F.normalize(xvector, dim=1))  # [B, mels]
        x, times = noise, self.time_grid().to(noise)
        for t, r in zip(times[:-1, None], times[1:, None]):
            x = x + (r - t) * self.decoder["estimator"](x, mu, t, r, spks, cond, mask, advance)
        return x


class Flow:
    """The stage."""

    prefix = "flow."

    def __init__(self, resources: Resources) -> None:
        config = resources.config["s3gen"]
        xvector = resources.config["speaker_encoder"]["embedding_size"]
        self.device = torch_network.device(resources.device)
        module = torch_network.blank(lambda: MeanFlow(config["mels"], xvector, **config["estimator"]), self.device)
        parts = [f"{self.prefix}{name}." for name, _ in module.named_children()]
        self.module = torch_network.load(module, resources.tensors("s3gen"), self.prefix, within=parts)

    def __call__(
        self,
        mu: np.ndarray,
        xvector: np.ndarray,
        prompt_mel: np.ndarray,
        noise: np.ndarray,
        callback: torch_network.Callback | None = None,
    ) -> np.ndarray:
        affine = self.module.spk_embed_affine_layer
        mels = affine.out_features
        mu = arrays.shaped(STAGE, "mu", mu, None, mels)
        xvector = arrays.sized(STAGE, "xvector", xvector, affine.in_features)
        prompt_mel = arrays.shaped(STAGE, "prompt_mel", prompt_mel, None, mels)
        noise = arrays.shaped(STAGE, "noise", noise, len(mu), mels)
        if not len(mu):
            raise ArgumentError(f"{STAGE}: mu: expected at least one frame, got none")
        if len(prompt_mel) > len(mu):
            raise ArgumentError(f"{STAGE}: prompt_mel: expected at most the {len(mu)} frames of mu, got {len(prompt_mel)}")
        total = self.module.steps * sum(isinstance(module, BasicTransformerBlock) for module in self.module.modules())
        advance = torch_network.reporter(STAGE, callback, total)
        cond = np.zeros_like(mu)
        cond[: len(prompt_mel)] = prompt_mel
        with torch.inference_mode():
            speaker = torch_network.tensor(xvector, self.device)
            mean, prompt, start = (
                torch_network.tensor(rows, self.device).transpose(1, 2).contiguous()  # [1, mels, T]
                for rows in (mu, cond, noise)
            )
            mel = self.module(mean, speaker, prompt, start, advance=advance)
            return torch_network.array(mel[:, :, len(prompt_mel) :].transpose(1, 2))

    def hyperparameters(self) -> dict[str, Any]:
        """What the loaded network computes with."""
        estimator = self.module.decoder["estimator"]
        [(resnet, transformers, _)] = estimator.down_blocks
        attention, feed_forward = transformers[0].attn1, transformers[0].ff.net
        [norm_eps] = {module.eps for module in estimator.modules() if isinstance(module, nn.LayerNorm)}
        return {
            "mels": estimator.final_proj.out_channels,
            "xvector_size": self.module.spk_embed_affine_layer.in_features,
            "channels": estimator.final_proj.in_channels,
            "heads": attention.heads,
            "head_size": attention.to_q.out_features // attention.heads,
            "ffn_size": feed_forward[0].proj.out_features,
            "blocks": len(transformers),
            "mid_blocks": len(estimator.mid_blocks),
            "norm_eps": norm_eps,
            "time_size": estimator.time_mlp.linear_2.out_features,
            "time_grid": self.module.time_grid().tolist(),
            "activation": "gelu" if feed_forward[0].approximate == "none" else "gelu_tanh",
            "resnet_activation": type(resnet.block1.block[-1]).__name__.lower(),
            "residual_convs": sum(n.endswith(".res_conv") and isinstance(m, nn.Conv1d) for n, m in estimator.named_modules()),
        }


def create(resources: Resources) -> Flow:
    """The stage, with the weights of ``resources`` on its device."""
    return Flow(resources)
