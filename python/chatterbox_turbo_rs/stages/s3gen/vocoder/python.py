"""``s3gen.vocoder`` in PyTorch; see the contract in ``__init__.py``.

``HiFT`` predicts the fundamental frequency of a mel ``[B, mels, F]``, makes a source of its harmonics ``[B, 480 F, 1]``, and
filters the source's spectrum in three levels of 8 F, 40 F and 120 F + 1 columns that end in magnitudes and phases of a 16-point
STFT. Activations are ``[B, C, T]``, those of the source ``[B, T, C]``, as upstream's are.
Source: ``hifigan.py``, ``f0_predictor.py`` and ``trim_fade`` of ``s3gen.py`` in ``src/chatterbox/models/s3gen`` at 5de7a54;
HiFT: arXiv:2309.09493, snake: arXiv:2006.08195.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....checkpoint.resources import Resources
from ....errors import ArgumentError
from ...shared import arrays, torch_network
from . import FADE, KERNEL, LAST_SLOPE, RATE

STAGE = "s3gen.vocoder"
F0_KERNEL = 3
F0_CONVOLUTIONS = 5


class ConvRNNF0Predictor(nn.Module):
    """Fundamental frequency in Hz ``[B, F]`` of a mel ``[B, mels, F]``."""

    def __init__(self, mels: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(F0_CONVOLUTIONS):
            layers += [nn.Conv1d(channels if i else mels, channels, F0_KERNEL, padding=F0_KERNEL // 2), nn.ELU()]
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 1)

    def forward(self, mel: Tensor) -> Tensor:
        return self.classifier(self.condnet(mel).transpose(1, 2)).squeeze(-1).abs()


def running_sum(x: Tensor) -> Tensor:
    """Sums along the last axis, kept in float64 and rounded one by one, as PyTorch does on the CPU; MPS has no float64.

    After 10 s the rounding is up to 5e-4 cycles of a harmonic, and a sum kept in float32 is off by 0.2.
    """
    place = torch.device("cpu") if x.device.type == "mps" else x.device
    return x.to(place, torch.float64).cumsum(-1).float().to(x.device)


class SourceModuleHnNSF(nn.Module):
    """Sines at the harmonics where there is a voice, noise where there is none, mixed to one signal ``[B, n, 1]``.

    ``f0`` is ``[B, n, 1]`` in Hz, ``phases`` are ``[B, harmonics]`` in radians, ``noise`` is ``[B, n, harmonics]``; the
    fundamental counts as a harmonic. No gradient reaches ``f0``.
    """

    def __init__(self, harmonics: int, amplitude: float, noise_std: float, threshold: float) -> None:
        super().__init__()
        self.amplitude = amplitude
        self.noise_std = noise_std
        self.threshold = threshold
        self.l_linear = nn.Linear(harmonics, 1)

    def forward(self, f0: Tensor, phases: Tensor, noise: Tensor) -> Tensor:
        with torch.no_grad():
            sines = self.sines(f0.transpose(1, 2), phases.unsqueeze(-1), noise.transpose(1, 2).contiguous())
        return torch.tanh(self.l_linear(sines.transpose(1, 2)))

    def sines(self, f0: Tensor, phases: Tensor, noise: Tensor) -> Tensor:
        """``f0`` ``[B, 1, n]``, ``phases`` ``[B, harmonics, 1]``, ``noise`` ``[B, harmonics, n]`` → ``[B, harmonics, n]``."""
        steps = torch.cat([f0 * (i + 1) / RATE for i in range(noise.shape[1])], dim=1)  # cycles a sample
        cycles = running_sum(steps) % 1
        start = torch.cat([torch.zeros_like(phases[:, :1]), phases[:, 1:]], dim=1)
        voiced = (f0 > self.threshold).to(f0)
        noise = (voiced * self.noise_std + (1 - voiced) * self.amplitude / 3) * noise
        return self.amplitude * torch.sin(2 * math.pi * cycles + start) * voiced + noise


class Snake(nn.Module):
    """``x + sin²(αx) / α``, ``[B, channels, T]`` in and out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.alpha.unsqueeze(-1)  # [channels, 1]
        return x + (1.0 / (alpha + 1e-9)) * torch.sin(x * alpha).pow(2)


class ResBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each after a snake, added to ``x`` ``[B, channels, T]``."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int]) -> None:
        super().__init__()

        def convolution(dilation: int) -> nn.Conv1d:
            return nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2)

        self.convs1 = nn.ModuleList(convolution(dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(convolution(1) for _ in dilations)
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)

    def forward(self, x: Tensor, advance: torch_network.Advance = torch_network.unreported) -> Tensor:
        for snake1, conv1, snake2, conv2 in zip(self.activations1, self.convs1, self.activations2, self.convs2):
            y = conv1(snake1(x))
            advance()
            x = conv2(snake2(y)) + x
            advance()
        return x


class HiFT(nn.Module):
    """Samples ``[B, 480 F]`` and fundamental frequency ``[B, F]`` from ``mel`` ``[B, mels, F]`` and the draws of the source.

    The samples have no gradient with respect to the frequency: its predictor learns from the frequency's own loss.
    """

    def __init__(
        self,
        mels: int,
        base_channels: int,
        upsample_rates: Sequence[int],
        upsample_kernels: Sequence[int],
        istft_size: int,
        istft_hop: int,
        resblock_kernels: Sequence[int],
        resblock_dilations: Sequence[int],
        source_resblock_kernels: Sequence[int],
        harmonics: int,
        sine_amplitude: float,
        noise_std: float,
        voiced_threshold: float,
        leaky_slope: float,
        magnitude_limit: float,
        audio_limit: float,
        f0_channels: int,
    ) -> None:
        super().__init__()
        self.istft_size, self.istft_hop = istft_size, istft_hop
        self.hop = math.prod(upsample_rates) * istft_hop
        self.leaky_slope, self.magnitude_limit, self.audio_limit = leaky_slope, magnitude_limit, audio_limit
        self.f0_predictor = ConvRNNF0Predictor(mels, f0_channels)
        self.m_source = SourceModuleHnNSF(harmonics + 1, sine_amplitude, noise_std, voiced_threshold)
        self.conv_pre = nn.Conv1d(mels, base_channels, KERNEL, padding=KERNEL // 2)
        self.ups, self.source_downs = nn.ModuleList(), nn.ModuleList()
        self.source_resblocks, self.resblocks = nn.ModuleList(), nn.ModuleList()
        parts = istft_size + 2  # real parts, then imaginary parts
        for i, (rate, kernel) in enumerate(zip(upsample_rates, upsample_kernels)):
            inputs, channels = base_channels >> i, base_channels >> (i + 1)
            self.ups.append(nn.ConvTranspose1d(inputs, channels, kernel, rate, padding=(kernel - rate) // 2))
            stride = math.prod(upsample_rates[i + 1 :])
            taps = 1 if stride == 1 else 2 * stride
            self.source_downs.append(nn.Conv1d(parts, channels, taps, stride, padding=stride // 2))
            self.source_resblocks.append(ResBlock(channels, source_resblock_kernels[i], resblock_dilations))
            self.resblocks.extend(ResBlock(channels, kernel, resblock_dilations) for kernel in resblock_kernels)
        self.conv_post = nn.Conv1d(channels, parts, KERNEL, padding=KERNEL // 2)
        # computed in float64, as SciPy's is
        window = torch.hann_window(istft_size, dtype=torch.float64).float()
        self.register_buffer("stft_window", window, persistent=False)

    def forward(self, mel: Tensor, phases: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        f0 = self.f0_predictor(mel)
        return self.decode(mel, self.source(f0, phases, noise)), f0

    def source(self, f0: Tensor, phases: Tensor, noise: Tensor) -> Tensor:
        """``f0`` ``[B, F]`` → ``[B, 480 F]``."""
        f0 = f0.repeat_interleave(self.hop, dim=1).unsqueeze(-1)  # [B, 480 F, 1]
        return self.m_source(f0, phases, noise).squeeze(-1)

    def decode(self, mel: Tensor, source: Tensor, advance: torch_network.Advance = torch_network.unreported) -> Tensor:
        """``mel`` ``[B, mels, F]``, ``source`` ``[B, 480 F]`` → samples ``[B, 480 F]``; ``steps()`` calls of ``advance``."""
        spectrum = torch.stft(source, self.istft_size, self.istft_hop, window=self.stft_window, return_complex=True)
        spectrum = torch.cat([spectrum.real, spectrum.imag], dim=1)  # [B, size + 2, 120 F + 1]
        x = self.conv_pre(mel)
        kernels = len(self.resblocks) // len(self.ups)
        for i, (up, down, source_block) in enumerate(zip(self.ups, self.source_downs, self.source_resblocks)):
            x = up(F.leaky_relu(x, self.leaky_slope))
            if i == len(self.ups) - 1:
                x = F.pad(x, (1, 0), mode="reflect")
            y = down(spectrum)
            advance()
            x = x + source_block(y, advance)
            first, *others = list(self.resblocks)[i * kernels : (i + 1) * kernels]
            y = first(x, advance)
            for block in others:
                y = y + block(x, advance)
            x = y / kernels
        x = self.conv_post(F.leaky_relu(x, LAST_SLOPE))  # [B, size + 2, 120 F + 1]
        advance()
        magnitude, phase = x.split(self.istft_size // 2 + 1, dim=1)
        magnitude, phase = magnitude.exp().clamp(max=self.magnitude_limit), phase.sin()
        spectrum = torch.complex(magnitude * phase.cos(), magnitude * phase.sin())
        samples = torch.istft(spectrum, self.istft_size, self.istft_hop, window=self.stft_window)
        advance()
        return samples.clamp(-self.audio_limit, self.audio_limit)

    def steps(self) -> int:
        """Calls of ``advance`` in ``decode``: after every convolution of the levels, before the inverse STFT and after it."""
        blocks = [*self.source_resblocks, *self.resblocks]
        return len(self.source_downs) + sum(len(block.convs1) + len(block.convs2) for block in blocks) + 2


class Vocoder:
    """The stage and its parts."""

    prefix = "mel2wav."

    def __init__(self, resources: Resources) -> None:
        config = resources.config["s3gen"]
        self.device = torch_network.device(resources.device)
        module = HiFT(config["mels"], **config["vocoder"])
        self.module = torch_network.load(module, resources.tensors("s3gen"), self.prefix).to(self.device)
        rise = (torch.cos(torch.linspace(math.pi, 0, FADE)) + 1) / 2
        self.fade = torch.cat([torch.zeros(FADE), rise]).numpy()  # [2 FADE]

    def __call__(
        self, mel: np.ndarray, phases: np.ndarray, noise: np.ndarray, callback: torch_network.Callback | None = None
    ) -> np.ndarray:
        mel, hop = arrays.shaped(STAGE, "mel", mel, None, self._mels), self.module.hop
        if len(mel) * hop < len(self.fade):
            least = -(-len(self.fade) // hop)
            raise ArgumentError(f"{STAGE}: mel: expected at least {least} frames (the length of the fade-in), got {len(mel)}")
        f0 = self.f0(mel)
        if callback is not None:
            callback(STAGE, 0, 1)
        samples = self.samples_from_source(mel, self.source(f0, phases, noise), callback)
        samples[: len(self.fade)] *= self.fade
        return samples

    def f0(self, mel: np.ndarray) -> np.ndarray:
        """float32 ``[F, 80]`` → Hz, float32 ``[F]``."""
        with torch.inference_mode():
            return torch_network.array(self.module.f0_predictor(self._columns(mel)))

    def source(self, f0: np.ndarray, phases: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """float32 ``[F]``, ``[9]`` and ``[480 F, 9]`` → float32 ``[480 F]``."""
        f0, harmonics = arrays.finite(STAGE, "f0", arrays.vector("f0", f0)), self.module.m_source.l_linear.in_features
        phases = arrays.sized(STAGE, "phases", phases, harmonics)
        noise = arrays.shaped(STAGE, "noise", noise, len(f0) * self.module.hop, harmonics)
        with torch.inference_mode():
            signal = self.module.source(*(torch_network.tensor(part, self.device) for part in (f0, phases, noise)))
            return torch_network.array(signal)

    def samples_from_source(
        self, mel: np.ndarray, source: np.ndarray, callback: torch_network.Callback | None = None
    ) -> np.ndarray:
        """float32 ``[F, 80]`` and ``[480 F]`` → float32 ``[480 F]``."""
        with torch.inference_mode():
            columns = self._columns(mel)
            source = arrays.sized(STAGE, "source", source, len(mel) * self.module.hop)
            advance = torch_network.reporter(STAGE, callback, self.module.steps())
            return torch_network.array(self.module.decode(columns, torch_network.tensor(source, self.device), advance))

    @property
    def _mels(self) -> int:
        return self.module.conv_pre.in_channels

    def _columns(self, mel: np.ndarray) -> Tensor:
        """``[F, mels]`` → ``[1, mels, F]``."""
        mel = arrays.shaped(STAGE, "mel", mel, None, self._mels)
        if not len(mel):
            raise ArgumentError(f"{STAGE}: mel: expected at least one frame, got none")
        return torch_network.tensor(mel, self.device).transpose(1, 2).contiguous()

    def hyperparameters(self) -> dict[str, Any]:
        """What the loaded network computes with."""
        module, source = self.module, self.module.m_source
        kernels = len(module.resblocks) // len(module.ups)
        [dilations] = {
            tuple(convolution.dilation[0] for convolution in block.convs1)
            for block in [*module.source_resblocks, *module.resblocks]
        }
        return {
            "mels": self._mels,
            "base_channels": module.conv_pre.out_channels,
            "upsample_rates": [up.stride[0] for up in module.ups],
            "upsample_kernels": [up.kernel_size[0] for up in module.ups],
            "istft_size": module.istft_size,
            "istft_hop": module.istft_hop,
            "resblock_kernels": [block.convs1[0].kernel_size[0] for block in list(module.resblocks)[:kernels]],
            "resblock_dilations": list(dilations),
            "source_resblock_kernels": [block.convs1[0].kernel_size[0] for block in module.source_resblocks],
            "harmonics": source.l_linear.in_features - 1,
            "sine_amplitude": source.amplitude,
            "noise_std": source.noise_std,
            "voiced_threshold": source.threshold,
            "leaky_slope": module.leaky_slope,
            "last_leaky_slope": LAST_SLOPE,
            "magnitude_limit": module.magnitude_limit,
            "audio_limit": module.audio_limit,
            "f0_channels": module.f0_predictor.classifier.in_features,
            "hop": module.hop,
            "fade": FADE,
        }


def create(resources: Resources) -> Vocoder:
    """The stage, with the weights of ``resources`` on its device."""
    return Vocoder(resources)
