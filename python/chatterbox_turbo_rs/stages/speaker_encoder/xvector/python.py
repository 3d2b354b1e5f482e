"""``speaker_encoder.xvector`` in PyTorch; see the contract in ``__init__.py``.

``CAMPPlus`` turns filter bank energies ``[B, T, 80]`` into x-vectors ``[B, 192]``: a small two-dimensional residual network in
front, then a TDNN of densely connected layers at half the frame rate, each masked by the context of its whole clip and of its
segment of 100 steps, and the mean and deviation over time. Source: ``src/chatterbox/models/s3gen/xvector.py`` at 5de7a54
(CAM++, arXiv:2303.00332).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ....checkpoint.resources import Resources
from ....errors import ArgumentError
from ...shared import arrays, torch_network
from . import MIN_FRAMES

STAGE = "speaker_encoder.xvector"


def norm_relu(channels: int, eps: float) -> nn.Sequential:
    """BatchNorm and ReLU under upstream's names, for ``[B, C, T]``."""
    return nn.Sequential(OrderedDict(batchnorm=nn.BatchNorm1d(channels, eps=eps), relu=nn.ReLU(inplace=True)))


class ResidualBlock(nn.Module):
    """``[B, C, F, T]`` → ``[B, C, ceil(F / stride), T]``."""

    def __init__(self, channels: int, stride: int, eps: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride=(stride, 1), padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels, eps=eps)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels, eps=eps)
        self.shortcut = nn.Sequential()
        if stride != 1:
            shortcut = nn.Conv2d(channels, channels, 1, stride=(stride, 1), bias=False)
            self.shortcut = nn.Sequential(shortcut, nn.BatchNorm2d(channels, eps=eps))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out)) + self.shortcut(x)
        return F.relu(out)


class Front(nn.Module):
    """The residual network in front, ``[B, mels, T]`` → ``[B, channels * mels / 8, T]``."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels, eps=eps)
        self.layer1 = nn.Sequential(ResidualBlock(channels, 2, eps), ResidualBlock(channels, 1, eps))
        self.layer2 = nn.Sequential(ResidualBlock(channels, 2, eps), ResidualBlock(channels, 1, eps))
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=(2, 1), padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels, eps=eps)

    def forward(self, x: torch.Tensor, advance: torch_network.Advance = torch_network.unreported) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x[:, None])))  # [B, channels, mels, T]
        advance()
        for block in (*self.layer1, *self.layer2):
            out = block(out)
            advance()
        out = F.relu(self.bn2(self.conv2(out)))
        advance()
        return out.flatten(1, 2)  # [B, C, mels / 8, T] → [B, C * mels / 8, T]


class Tdnn(nn.Module):
    """A convolution that halves the frame rate: ``[B, C, T]`` → ``[B, output, ceil(T / 2)]``."""

    def __init__(self, channels: int, output: int, eps: float) -> None:
        super().__init__()
        self.linear = nn.Conv1d(channels, output, 5, stride=2, padding=2, bias=False)
        self.nonlinear = norm_relu(output, eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.nonlinear(self.linear(x))


class ContextMask(nn.Module):
    """A local convolution times a mask (0 to 1) that the mean of the clip plus the mean of the segment decides."""

    def __init__(self, channels: int, output: int, kernel: int, dilation: int, segment: int) -> None:
        super().__init__()
        self.segment = segment
        padding = (kernel - 1) // 2 * dilation
        self.linear_local = nn.Conv1d(channels, output, kernel, padding=padding, dilation=dilation, bias=False)
        self.linear1 = nn.Conv1d(channels, channels // 2, 1)
        self.relu = nn.ReLU(inplace=True)
        self.linear2 = nn.Conv1d(channels // 2, output, 1)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[B, C, T]`` → ``[B, output, T]``. Upstream computes the mask, which is one in a whole segment, for every step."""
        # The last segment may be shorter and is averaged over its own length.
        segments = F.avg_pool1d(x, self.segment, self.segment, ceil_mode=True)  # [B, C, S]
        context = x.mean(-1, keepdim=True) + segments
        mask = self.sigmoid(self.linear2(self.relu(self.linear1(context))))  # [B, output, S]
        return self.linear_local(x) * mask.repeat_interleave(self.segment, dim=-1)[..., : x.shape[-1]]


class DenseLayer(nn.Module):
    """``[B, C, T]`` → what the layer adds, ``[B, growth, T]``."""

    def __init__(self, channels: int, dilation: int, config: Mapping[str, Any]) -> None:
        super().__init__()
        growth, eps = config["growth"], config["norm_eps"]
        inner = config["bottleneck"] * growth
        self.nonlinear1 = norm_relu(channels, eps)
        self.linear1 = nn.Conv1d(channels, inner, 1, bias=False)
        self.nonlinear2 = norm_relu(inner, eps)
        self.cam_layer = ContextMask(inner, growth, config["kernel"], dilation, config["segment"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cam_layer(self.nonlinear2(self.linear1(self.nonlinear1(x))))


class DenseBlock(nn.Sequential):
    """Layers ``tdnnd1``, ``tdnnd2``, …, each of which sees the input and what all layers before it added."""

    def __init__(self, channels: int, layers: int, dilation: int, config: Mapping[str, Any]) -> None:
        inputs = [channels + i * config["growth"] for i in range(layers)]
        super().__init__(OrderedDict((f"tdnnd{i + 1}", DenseLayer(n, dilation, config)) for i, n in enumerate(inputs)))

    def forward(self, x: torch.Tensor, advance: torch_network.Advance = torch_network.unreported) -> torch.Tensor:
        """``[B, C, T]`` → ``[B, C + layers * growth, T]``."""
        for layer in self:
            x = torch.cat([x, layer(x)], dim=1)
            advance()
        return x


class Transit(nn.Module):
    """Halves the channels: ``[B, C, T]`` → ``[B, C / 2, T]``."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.nonlinear = norm_relu(channels, eps)
        self.linear = nn.Conv1d(channels, channels // 2, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.nonlinear(x))


class Statistics(nn.Module):
    """``[B, C, T]`` → mean and unbiased standard deviation over time, ``[B, 2C]``."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.mean(dim=-1), x.std(dim=-1, unbiased=True)], dim=-1)


class Dense(nn.Module):
    """``[B, C]`` → ``[B, output]``, through a BatchNorm without weights of its own."""

    def __init__(self, channels: int, output: int, eps: float) -> None:
        super().__init__()
        self.linear = nn.Conv1d(channels, output, 1, bias=False)
        self.nonlinear = nn.Sequential(OrderedDict(batchnorm=nn.BatchNorm1d(output, eps=eps, affine=False)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.nonlinear(self.linear(x[..., None])[..., 0])


class CAMPPlus(nn.Module):
    """The x-vector network; ``config`` is the section ``speaker_encoder`` of the configuration."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        eps, channels = config["norm_eps"], config["init_channels"]
        self.mels: int = config["mels"]
        self.head = Front(config["head_channels"], eps)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["tdnn"] = Tdnn(config["head_channels"] * -(-self.mels // 8), channels, eps)
        for i, (count, dilation) in enumerate(zip(config["layers"], config["dilations"]), start=1):
            layers[f"block{i}"] = DenseBlock(channels, count, dilation, config)
            channels += count * config["growth"]
            layers[f"transit{i}"] = Transit(channels, eps)
            channels //= 2
        layers["out_nonlinear"] = norm_relu(channels, eps)
        layers["stats"] = Statistics()
        layers["dense"] = Dense(2 * channels, config["embedding_size"], eps)
        self.xvector = nn.Sequential(layers)

    def forward(self, fbank: torch.Tensor, advance: torch_network.Advance = torch_network.unreported) -> torch.Tensor:
        """``[B, T, mels]`` → ``[B, embedding_size]``; 6 steps of progress, and one per densely connected layer."""
        x = self.head(fbank.transpose(1, 2), advance)
        for layer in self.xvector:
            x = layer(x, advance) if isinstance(layer, DenseBlock) else layer(x)
        return x

    def blocks(self) -> list[DenseBlock]:
        """The densely connected blocks, in order."""
        return [layer for layer in self.xvector if isinstance(layer, DenseBlock)]


class XVector:
    """The stage over one loaded network."""

    prefix = "speaker_encoder."

    def __init__(self, module: CAMPPlus, device: torch.device) -> None:
        self.module = module
        self._device = device

    @torch.inference_mode()
    def __call__(self, fbank: np.ndarray, callback: torch_network.Callback | None = None) -> np.ndarray:
        """``[frames, mels]`` → ``[embedding_size]``."""
        fbank = arrays.frames("fbank", fbank, self.module.mels)
        if len(fbank) < MIN_FRAMES:
            raise ArgumentError(f"fbank: expected at least {MIN_FRAMES} frames, got {len(fbank)}")
        head = self.module.head
        total = len(head.layer1) + len(head.layer2) + 2 + sum(len(block) for block in self.module.blocks())
        advance = torch_network.reporter(STAGE, callback, total)
        return torch_network.array(self.module(torch_network.tensor(fbank, self._device), advance))

    def hyperparameters(self) -> dict[str, Any]:
        """What the loaded module computes with."""
        module, blocks = self.module, self.module.blocks()
        layer, cam = blocks[0][0], blocks[0][0].cam_layer
        return {
            "mels": module.mels,
            "embedding_size": module.xvector.dense.linear.weight.shape[0],
            "head_channels": module.head.conv1.weight.shape[0],
            "init_channels": module.xvector.tdnn.linear.weight.shape[0],
            "growth": cam.linear_local.weight.shape[0],
            "bottleneck": layer.linear1.weight.shape[0] // cam.linear_local.weight.shape[0],
            "layers": [len(block) for block in blocks],
            "dilations": [block[0].cam_layer.linear_local.dilation[0] for block in blocks],
            "kernel": cam.linear_local.weight.shape[2],
            "segment": cam.segment,
            "norm_eps": layer.nonlinear1.batchnorm.eps,
        }


def create(resources: Resources) -> XVector:
    """The stage with the checkpoint's weights, on the device of ``resources``."""
    device = torch_network.device(resources.device)
    module = torch_network.blank(lambda: CAMPPlus(resources.config["speaker_encoder"]), device)
    return XVector(torch_network.load(module, resources.tensors("s3gen"), XVector.prefix), device)
