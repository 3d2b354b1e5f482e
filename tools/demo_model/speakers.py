"""Trains the two speaker networks, CAMPPlus (x-vectors of S3Gen) and the voice encoder (embeddings of T3), to tell voices apart.

usage: speakers.py xvector|voice_encoder [--work DIR] [--minutes 5]

The voices are the teacher's own, played slower and faster: a factor moves pitch, formants and pace together, which is much of what
tells one speaker from another. The loss is a softmax over cosines with a centre for every factor. An embedding is stable and knows
high from low voices; no more is claimed of it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np
import soxr
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import features
import sizes
import training
from chatterbox_turbo_rs.stages.speaker_encoder.fbank.python import fbank
from chatterbox_turbo_rs.stages.speaker_encoder.xvector.python import CAMPPlus
from chatterbox_turbo_rs.stages.voice_encoder.embedding.python import VoiceEncoder
from chatterbox_turbo_rs.stages.voice_encoder.mel.python import mel

FACTORS = np.exp(np.linspace(-0.42, 0.3, 13))
"""Speeds of the voices; one of them is 1 within a hundredth."""
SECONDS = 2.2
SCALE = 15.0


class Classifier(nn.Module):
    """A speaker network and a centre for every voice."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        config = sizes.sound()
        if kind == "xvector":
            section = config["speaker_encoder"]
            self.network: nn.Module = CAMPPlus(section)
        else:
            section = config["voice_encoder"]
            self.network = VoiceEncoder(section)
        self.centres = nn.Parameter(torch.randn(len(FACTORS), section["embedding_size"]))

    def forward(self, x: Tensor) -> Tensor:
        return SCALE * F.normalize(self.network(x), dim=1) @ F.normalize(self.centres, dim=1).T


class Trainer:
    def __init__(self, net: Classifier, kind: str, batch: int) -> None:
        self.net, self.batch, self.feature = net, batch, fbank if kind == "xvector" else mel
        self.frames = 200 if kind == "xvector" else sizes.sound()["voice_encoder"]["partial_frames"]

    def example(self, rng: np.random.Generator, data: features.Data, voice: int) -> np.ndarray:
        """Features of one piece of a voice: ``[frames, bands]``."""
        count = int(24_000 * SECONDS * FACTORS[voice])
        at = int(rng.integers(len(data.wave) - count))
        wave = data.wave[at : at + count].astype(np.float32) * features.LEVEL
        wave = soxr.resample(wave, 24_000 * FACTORS[voice], 16_000, quality="MQ") * np.exp(rng.uniform(-0.5, 0.5))
        wave += rng.standard_normal(len(wave)) * 10 ** rng.uniform(-5, -2.5)
        rows = self.feature(wave.astype(np.float32))[: self.frames]
        return np.pad(rows, ((0, self.frames - len(rows)), (0, 0)))

    def losses(self, rng: np.random.Generator, data: features.Data) -> Mapping[str, Tensor]:
        voices = rng.integers(len(FACTORS), size=self.batch)
        rows = torch.from_numpy(np.stack([self.example(rng, data, v) for v in voices]))
        wanted = torch.from_numpy(voices)
        logits = self.net(rows)
        near = ((logits.argmax(1) - wanted).abs() <= 1).float().mean()
        return {"loss": F.cross_entropy(logits, wanted), "right": (logits.argmax(1) == wanted).float().mean(), "near": near}


def main() -> None:
    parser = training.arguments(__doc__.splitlines()[0], minutes=5, rate=2e-3, batch=24)
    parser.add_argument("kind", choices=("xvector", "voice_encoder"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    net = Classifier(args.kind)
    own = ("s3gen_meanflow.safetensors", "speaker_encoder.") if args.kind == "xvector" else ("ve.safetensors", "")
    training.begin(net.network, args.model, *own)
    data = features.Data(args.work)
    held = features.Data(args.work, held_out=True)
    print(f"{sum(p.numel() for p in net.network.parameters()) / 1e6:.3f} M parameters", file=sys.stderr)
    trainer = Trainer(net, args.kind, args.batch)
    optimizer = torch.optim.AdamW(net.parameters(), lr=args.rate, weight_decay=0.01)
    loop = training.Loop(args.kind, net, optimizer, args)
    loop.run(lambda rng: trainer.losses(rng, data), lambda: trainer.losses(np.random.default_rng(1), held))


if __name__ == "__main__":
    main()
