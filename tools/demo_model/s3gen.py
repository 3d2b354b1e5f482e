"""Trains S3Gen's encoder and flow end to end: speech tokens, a prompt and an x-vector to the teacher's mel in the two Euler steps of
inference.

usage: s3gen.py [--work DIR] [--minutes 40] [--energy 0.5] [--heard 0.5]

A piece of the stream of sentences begins with a prompt, whose mel is given, as inference gives the reference's; the loss is on the
rest. Beside the distance to the teacher (L1, and the mean mel's own) the energy score (``--energy``) rewards two draws of the noise
for differing as much as speech does, so that the mel isn't an average (arXiv:2008.01160). ``--heard`` is the share of pieces at the
teacher's own pace, with the tokens that the tokenizer hears in them (``heard.py``).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import features
import refine
import sizes
import training
from chatterbox_turbo_rs.stages.s3gen.encoder.python import FlowEncoder
from chatterbox_turbo_rs.stages.s3gen.flow.python import MeanFlow

NAME = "s3gen"
LENGTHS = ((64, 0.7), (128, 0.2), (320, 0.1))
"""Tokens of a piece, and how often; a batch holds the same number of tokens at every length."""
PATCHES = ((1, 80), (4, 16), (16, 8))
"""Frames and bands of the patches that the energy score compares."""


@torch.compile(dynamic=True)
def mish(x: Tensor) -> Tensor:
    """The activation, several times as fast as PyTorch's own on the way back."""
    n = torch.exp(torch.clamp(x.float(), max=20.0))
    n = n * (n + 2.0)
    return (x * n / (n + 2.0)).to(x.dtype)


class S3Gen(nn.Module):
    """Both networks under upstream's names (``flow.*`` of the checkpoint)."""

    def __init__(self) -> None:
        super().__init__()
        config = sizes.sound()
        gen, xvector = config["s3gen"], config["speaker_encoder"]["embedding_size"]
        self.mean = FlowEncoder(gen, dropout=0.0)
        self.flow = MeanFlow(gen["mels"], xvector, **gen["estimator"])

    def forward(self, ids: Tensor, xvector: Tensor, cond: Tensor, draws: int) -> tuple[Tensor, Tensor]:
        """ids ``[B, T]``, x-vectors ``[B, 192]``, prompt mel and zeros ``[B, 80, 2T]`` → mean mel, mels ``[draws, B, 80, 2T]``."""
        mu = self.mean(ids).transpose(1, 2).contiguous().float()
        many = [torch.cat([x] * draws) for x in (mu, xvector, cond)]
        mel = self.flow(*many, torch.randn_like(many[0]))
        return mu, mel.unflatten(0, (draws, -1)).float()

    def start(self, mel: Tensor) -> None:
        """Begins with the average mel ``[80]`` in place of zero."""
        with torch.no_grad():
            self.mean.encoder_proj.bias.copy_(mel)
        refine.begin(self.flow.decoder["estimator"])


def patches(x: Tensor, frames: int, bands: int) -> Tensor:
    """``[B, 80, T]`` → patches that do not overlap, flat: ``[B, patches, values]``."""
    b, mels, t = x.shape
    t -= t % frames
    x = x[..., :t].reshape(b, mels // bands, bands, t // frames, frames)
    return x.permute(0, 1, 3, 2, 4).reshape(b, -1, bands * frames)


def apart(p: Tensor, q: Tensor) -> Tensor:
    """Distances ``[B, patches]`` between patches."""
    return ((p - q).square().sum(2) + 1e-4).sqrt()


def score(x: Tensor, other: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """The energy score of two draws, averaged over the sizes of patches; ``weight`` ``[B, 1, T]`` is 0 for the prompt."""
    result = torch.zeros(())
    for frames, bands in PATCHES:
        a, b, y, w = (patches(v, frames, bands) for v in (x, other, truth, weight.expand_as(x)))
        w = w.mean(2)
        each = (0.5 * (apart(a, y) + apart(b, y)) - 0.5 * apart(a, b)) / (frames * bands) ** 0.5
        result = result + (each * w).sum() / w.sum() / len(PATCHES)
    return result


class Trainer:
    def __init__(self, net: S3Gen, batch: int, energy: float, half: bool, mean: bool) -> None:
        self.net, self.tokens, self.energy, self.half, self.mean = net, batch * LENGTHS[0][0], energy, half, mean

    def losses(self, rng: np.random.Generator, data: features.Data, length: int | None = None) -> Mapping[str, Tensor]:
        if length is None:
            length = int(rng.choice([n for n, _ in LENGTHS], p=[p for _, p in LENGTHS]))
        count = max(1, self.tokens // length)
        ids, mel = data.stream_batch(rng, count, length)
        if self.mean:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
                mu = self.net.mean(ids).transpose(1, 2).float()
            loss = (mu - mel).abs().mean()
            return {"loss": loss, "mu": loss}
        prompt = 2 * torch.from_numpy(rng.integers(0, length * 2 // 3, count))[:, None, None]
        frames = torch.arange(2 * length)
        weight = (frames >= prompt).float()  # [B, 1, 2T]
        cond = mel * (1 - weight)
        xvector = torch.zeros(count, self.net.flow.spk_embed_affine_layer.in_features)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            mu, mels = self.net(ids, xvector, cond, 2 if self.energy else 1)
        share = weight.mean()
        mean_l1 = (mu - mel).abs().mean()
        mel_l1 = ((mels[0] - mel).abs() * weight).mean() / share
        total = 0.5 * mean_l1 + (1 - self.energy) * mel_l1
        result = {"mu": mean_l1, "mel": mel_l1}
        if self.energy:
            result["energy"] = score(mels[0], mels[1], mel, weight)
            total = total + 2 * self.energy * result["energy"]
        return {"loss": total, **result}


def inner(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon trains a weight: the layers of the encoder and the estimator's transformers."""
    return ("encoder." in name or "attn1" in name or ".ff." in name) and "pos_bias" not in name


def main() -> None:
    parser = training.arguments(__doc__.splitlines()[0], minutes=40, rate=2e-3, batch=6)
    parser.add_argument("--energy", type=float, default=0.0, help="weight of the energy score against L1, 0 to 1")
    parser.add_argument("--heard", type=float, default=0.0, help="share of pieces with the tokenizer's tokens, 0 to 1")
    parser.add_argument("--begin", type=Path, help="checkpoint whose encoder to begin with")
    parser.add_argument("--mean", action="store_true", help="train the encoder alone, at a third of the cost")
    parser.add_argument("--full", action="store_true", help="float32 throughout")
    parser.add_argument("--eager", action="store_true", help="do without a compiler for C++")
    parser.add_argument("--bench", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    if not args.eager:
        nn.Mish.forward = lambda self, x: mish(x)  # type: ignore[method-assign]
    net = S3Gen()
    data = features.Data(args.work)
    held = features.Data(args.work, held_out=True)
    net.start(torch.from_numpy(data.mel.astype(np.float32).mean(0)))
    if args.begin:
        state = torch.load(args.begin, map_location="cpu", weights_only=False)["average"]
        net.load_state_dict({k: v for k, v in state.items() if k.startswith("mean.")}, strict=False)
    for part in (net.mean, net.flow):
        training.begin(part, args.model, "s3gen_meanflow.safetensors", "flow.")
    trainer = Trainer(net, args.batch, args.energy, training.HALF and not args.full, args.mean)
    if args.bench:
        bench(trainer, data)
        return
    count = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in net.named_children()}
    print(f"parameters in millions: {count}; {data.hours():.2f} h", file=sys.stderr)
    optimizer = training.Optimizers(net, args.rate, inner, share=0.5)
    loop = training.Loop(NAME, net, optimizer, args)
    natural = [features.Data(args.work, "natural", held_out, heard=True) for held_out in (False, True)] if args.heard else []

    def tried() -> Mapping[str, Tensor]:
        found = trainer.losses(np.random.default_rng(1), held, LENGTHS[0][0])
        more = trainer.losses(np.random.default_rng(1), natural[1], LENGTHS[0][0]) if natural else {}
        return {**found, **{f"heard_{key}": value for key, value in more.items()}}

    loop.run(lambda rng: trainer.losses(rng, natural[0] if rng.random() < args.heard else data), tried)


def bench(trainer: Trainer, data: features.Data) -> None:
    """Processor time of a step at every length, with float32 and with bfloat16."""
    rng = np.random.default_rng(0)
    for trainer.half in (False, training.HALF):
        for length, _ in LENGTHS:
            for count in (2, 5):
                started = time.process_time()
                for _ in range(count):
                    trainer.losses(rng, data, length)["loss"].backward()
            print(f"bfloat16 {trainer.half}, {length} tokens: {(time.process_time() - started) / count:.3f} s a step", flush=True)


if __name__ == "__main__":
    main()
