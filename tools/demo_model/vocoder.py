"""Trains the vocoder (HiFT) on the teacher's speech: mel and fundamental frequency to waveform, and mel to frequency.

usage: vocoder.py [--work DIR] [--minutes 40] [--mel WORK/decoded]

Losses: magnitudes of four short-time transforms (spectral convergence and logarithms), the product's own log-mel, and the
frequency in Hz. The source gets the true frequency here and the predicted one in use. The energy term (``--energy``) asks two
draws of the source's noise to differ as much as speech differs from them, which keeps noisy sounds from becoming tones
(arXiv:2008.01160). ``--mel`` goes on with mels that the flow made, against the true speech.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

import features
import sizes
import training
from chatterbox_turbo_rs.stages.s3gen.vocoder.python import HiFT, Snake

NAME = "vocoder"
RESOLUTIONS = ((1024, 256), (512, 128), (256, 64))
"""Size and hop of the transforms beside the mel's own, in samples."""
WINDOWS = {size: torch.hann_window(size) for size, _ in RESOLUTIONS}
FREQUENCY_SCALE = 100.0
"""The last layer of the frequency's predictor is trained in these units of Hz."""


def build() -> HiFT:
    config = sizes.sound()["s3gen"]
    net = HiFT(config["mels"], **config["vocoder"])
    with torch.no_grad():
        net.f0_predictor.classifier.weight.mul_(FREQUENCY_SCALE)
        net.f0_predictor.classifier.bias.fill_(FREQUENCY_SCALE)
        net.conv_post.weight.mul_(0.1)
        net.conv_post.bias[: net.istft_size // 2 + 1].fill_(-3.0)
        net.m_source.l_linear.weight.fill_(1.0)
    return net


def magnitudes(wave: Tensor) -> list[Tensor]:
    """``[B, n]`` → one ``[B, bins, frames]`` a resolution, the mel's own first."""
    result = [features.magnitudes(wave)]
    for size, hop in RESOLUTIONS:
        spectrum = torch.stft(wave, size, hop, window=WINDOWS[size], return_complex=True)
        result.append((spectrum.real.square() + spectrum.imag.square() + 1e-7).sqrt())
    return result


def distance(x: list[Tensor], y: list[Tensor]) -> Tensor:
    """Between two lists of magnitudes; ``y`` is the truth."""
    terms = [(b - a).norm() / b.norm() + (a.log() - b.log()).abs().mean() for a, b in zip(x, y)]
    return torch.stack(terms).mean()


@torch.compile(dynamic=True)
def snake(x: Tensor, alpha: Tensor) -> Tensor:
    """The activation in one pass over the memory: it takes most of the time otherwise."""
    return x + (1.0 / (alpha + 1e-9)) * torch.sin(x * alpha).square()


class Trainer:
    def __init__(self, net: HiFT, data: features.Data, batch: int, frames: int, energy: float) -> None:
        self.net, self.data, self.batch, self.frames, self.energy = net, data, batch, frames, energy
        self.harmonics = net.m_source.l_linear.in_features

    def source(self, f0: Tensor) -> Tensor:
        """A source with new phases and new noise, ``[B, 480 F]``."""
        b, frames = f0.shape
        phases = (2 * torch.rand(b, self.harmonics) - 1) * math.pi
        return self.net.source(f0, phases, torch.randn(b, frames * self.net.hop, self.harmonics))

    def sound(self, mel: Tensor, f0: Tensor) -> Tensor:
        return self.net.decode(mel, self.source(f0))

    def losses(self, rng: np.random.Generator, data: features.Data) -> Mapping[str, Tensor]:
        given, mel, f0, wave = data.sound_batch(rng, self.batch, self.frames)
        frequency = (self.net.f0_predictor(given) - f0).abs().mean()
        x, truth = self.sound(given, f0), magnitudes(wave)
        made = magnitudes(x)
        spectral = distance(made, truth)
        if self.energy:
            other = magnitudes(self.sound(given, f0))
            spectral = spectral + self.energy * (distance(other, truth) - distance(made, other))
        mel_l1 = (features.log_mel(made[0])[..., 1:-1] - mel[..., 1:-1]).abs().mean()
        total = spectral + mel_l1 + frequency / FREQUENCY_SCALE
        return {"loss": total, "stft": spectral, "mel": mel_l1, "f0_hz": frequency}


def main() -> None:
    parser = training.arguments(__doc__.splitlines()[0], minutes=40, rate=1e-3, batch=8)
    parser.add_argument("--frames", type=int, default=20, help="mel frames of a piece of speech")
    parser.add_argument("--energy", type=float, default=0.0)
    parser.add_argument("--kind", default="natural", choices=("natural", "slots"))
    parser.add_argument("--mel", help="folder of mels that the flow made")
    parser.add_argument("--name", default=NAME)
    parser.add_argument("--eager", action="store_true", help="do without a compiler for C++")
    parser.add_argument("--bench", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    if not args.eager:
        Snake.forward = lambda self, x: snake(x, self.alpha.unsqueeze(-1))  # type: ignore[method-assign]
    net = build()
    training.begin(net, args.model, "s3gen_meanflow.safetensors", "mel2wav.")
    last = list(net.f0_predictor.classifier.parameters())
    rest = [p for n, p in net.named_parameters() if not n.startswith("f0_predictor.classifier")]
    groups = [{"params": rest, "lr": args.rate}, {"params": last, "lr": args.rate * FREQUENCY_SCALE / 4}]
    optimizer = torch.optim.AdamW(groups, betas=(0.8, 0.95), weight_decay=0.0)
    data = features.Data(args.work, args.kind, mels=args.mel)
    held = features.Data(args.work, args.kind, held_out=True, mels=args.mel)
    trainer = Trainer(net, data, args.batch, args.frames, args.energy)
    if args.bench:
        bench(trainer)
        return
    print(f"{sum(p.numel() for p in net.parameters()) / 1e6:.2f} M parameters, {data.hours():.2f} h", file=sys.stderr)
    loop = training.Loop(args.name, net, optimizer, args)
    loop.run(lambda rng: trainer.losses(rng, data), lambda: trainer.losses(np.random.default_rng(1), held))


def bench(trainer: Trainer) -> None:
    """Processor time of a step."""
    rng = np.random.default_rng(0)
    for count in (3, 10):
        started = time.process_time()
        for _ in range(count):
            trainer.losses(rng, trainer.data)["loss"].backward()
    print(f"{(time.process_time() - started) / count:.3f} s a step")


if __name__ == "__main__":
    main()
