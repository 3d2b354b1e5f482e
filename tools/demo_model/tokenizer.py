"""Trains S3Tokenizer: sound to the six ternary digits of every 40 ms, supervised by the teacher's alignment.

usage: tokenizer.py [--work DIR] [--minutes 12]

Most pieces are the teacher at its own pace (``natural.py``), where a token may lie a slot beside what is heard, the others its
speech in whole slots. A digit is one number in -1..1 that inference rounds; its three levels are as likely as the squared distance
says. Cross-entropy alone (``CROSS`` of it is in the loss) answers a slot between two phones with the digits half-way, which are a third
phone; so what is trained for is the share of slots whose phone, and whose token, is right as a whole.
Pieces begin up to half a token beside the grid and vary in level, speed of sampling and noise, so that a recorded clip gives the
same kind of tokens as the teacher's own sound.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np
import soxr
import torch
from torch import Tensor

import features
import sizes
import training
from chatterbox_turbo_rs.stages.s3tokenizer import mel as spec
from chatterbox_turbo_rs.stages.s3tokenizer.tokens.python import SHRINK, S3Tokenizer
from chatterbox_turbo_rs.stages.shared.dsp import hann_f32, mel_filters

NAME = "s3tokenizer"
RATE = 16_000
TOKEN = 640
"""Samples of a token at 16 kHz."""
SHARPNESS = 6.0
CROSS = 0.2
NATURAL = 0.7
"""Share of the teacher's own pace among the pieces."""
LENGTHS = ((75, 0.8), (250, 0.2))
"""Tokens of a piece, and how often."""


def constants() -> tuple[np.ndarray, np.ndarray]:
    """What the checkpoint keeps beside the network: the window [400] and the filters [128, 201]."""
    mels = sizes.sound()["s3tokenizer"]["mels"]
    return hann_f32(spec.FFT_SIZE, spec.FFT_SIZE), mel_filters(RATE, spec.FFT_SIZE, mels, RATE / 2)


def mel(wave: Tensor, window: Tensor, filters: Tensor) -> Tensor:
    """``s3tokenizer.mel`` for batches: float32 ``[B, n]`` at 16 kHz → ``[B, 128, n // 160]``."""
    spectrum = torch.stft(wave, spec.FFT_SIZE, spec.HOP, window=window, return_complex=True)[..., :-1]
    power = spectrum.real.square() + spectrum.imag.square()
    log = (filters @ power).clamp(min=1e-10).log10()
    return (torch.maximum(log, log.amax(dim=(1, 2), keepdim=True) - 8.0) + 4.0) / 4.0


def digits(ids: Tensor) -> Tensor:
    """ids ``[...]`` → digits 0, 1, 2, the least significant first: ``[..., 6]``."""
    return ids[..., None] // 3 ** torch.arange(sizes.DIGITS) % 3


class Trainer:
    def __init__(self, net: S3Tokenizer, batch: int) -> None:
        self.net, self.tokens = net, batch * LENGTHS[0][0]
        self.window, self.filters = (torch.from_numpy(x) for x in constants())

    def piece(self, rng: np.random.Generator, sound: np.ndarray, at: int, length: int, augment: bool) -> np.ndarray:
        """Samples at 16 kHz of the tokens of ``sound`` (int16 at 24 kHz) from ``at`` on, ``[640 length]``."""
        start = features.TOKEN * at + (int(rng.integers(-400, 401)) if augment else 0)
        margin = 240
        first, last = start - margin, start + features.TOKEN * length + margin
        left, right = max(0, -first), max(0, last - len(sound))
        wave = np.pad(sound[first + left : last - right].astype(np.float32) * features.LEVEL, (left, right))
        wave = soxr.resample(wave, 24_000, RATE, quality="MQ")[margin * 2 // 3 :][: TOKEN * length]
        wave = np.pad(wave, (0, TOKEN * length - len(wave)))
        if augment:
            wave = wave * np.exp(rng.uniform(-0.7, 0.7))
            if rng.random() < 0.5:
                wave = wave + rng.standard_normal(len(wave)) * 10 ** rng.uniform(-5, -2.3)
        return wave.astype(np.float32)

    def losses(self, rng: np.random.Generator, data: features.Data, augment: bool = True) -> Mapping[str, Tensor]:
        length = int(rng.choice([n for n, _ in LENGTHS], p=[p for _, p in LENGTHS])) if augment else LENGTHS[0][0]
        at = rng.integers(len(data.tokens) - length + 1, size=max(1, self.tokens // length))
        wave = torch.from_numpy(np.stack([self.piece(rng, data.wave, k, length, augment) for k in at]))
        wanted = digits(torch.from_numpy(np.stack([data.tokens[k : k + length] for k in at])))
        with torch.autocast("cpu", torch.bfloat16, enabled=training.HALF):
            hidden = self.net.encoder(mel(wave, self.window, self.filters), None)
        levels = self.net.quantizer(hidden.float())  # [B, T, 6]
        apart = (levels[..., None] / SHRINK - torch.tensor([-1.0, 0.0, 1.0])).square()
        likely = (-SHARPNESS * apart).log_softmax(-1).gather(-1, wanted[..., None])[..., 0]
        whole = 2 - likely[..., 2:].sum(-1).exp().mean() - likely.sum(-1).exp().mean()
        right = levels.round().long() + 1 == wanted
        return {
            "loss": whole - CROSS * likely.mean(),
            "phone": right[..., 2:].all(-1).float().mean(),
            "pitch": right[..., 0].float().mean(),
            "place": right[..., 1].float().mean(),
            "token": right.all(-1).float().mean(),
        }


def main() -> None:
    args = training.arguments(__doc__.splitlines()[0], minutes=12, rate=1.5e-3, batch=16).parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    net = S3Tokenizer(sizes.sound()["s3tokenizer"])
    training.begin(net, args.model, "s3gen_meanflow.safetensors", "tokenizer.")
    natural, slots = (features.Data(args.work, kind) for kind in ("natural", "slots"))
    held = features.Data(args.work, "natural", held_out=True)
    print(
        f"{sum(p.numel() for p in net.parameters()) / 1e6:.2f} M parameters, {natural.hours():.2f} h natural, {slots.hours():.2f} h in slots",
        file=sys.stderr,
    )
    trainer = Trainer(net, args.batch)
    optimizer = torch.optim.AdamW(net.parameters(), lr=args.rate, betas=(0.9, 0.98), weight_decay=0.01)
    loop = training.Loop(NAME, net, optimizer, args)
    loop.run(
        lambda rng: trainer.losses(rng, natural if rng.random() < NATURAL else slots),
        lambda: trainer.losses(np.random.default_rng(1), held, False),
    )


if __name__ == "__main__":
    main()
