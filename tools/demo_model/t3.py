"""Trains the demo model's T3: characters in, speech tokens with a meaning out (``tokens.py``).

The sequence is the one of inference: speaker, prompt tokens of another sentence, text, start token, speech. Beside the cross
entropy, one head of two layers is led to the character that is being spoken (guided attention: without it a network of this size
does not find out for hours that the text matters), and the logits are held near log-probabilities (z-loss), so that the
repetition penalty of the default sampling, which acts on logits, takes little from a token that is likely.

The learning rate stays constant after its rise: training may go on for as long as there is time, and the running average of the
weights is what is exported at any moment. ``--decay M`` makes of the checkpoint a finished one: M minutes with the rate falling to
nothing, written beside it as ``t3_decayed.pt``; the constant run is left as it is.

usage: t3.py --work WORK --minutes 600 [--threads 2]      (again the same: goes on where it stopped)
"""

from __future__ import annotations

import math
import shutil
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import reading
import sizes
import tokens
import training
from chatterbox_turbo_rs.stages.t3.decoder.python import T3

SIZES = {"hidden_size": 256, "layers": 5, "heads": 4, "ffn_size": 1024, "positions": 1536, "prompt_tokens": reading.PROMPT}
GUIDED = (1, 2)
"""Layers whose first head is led."""
NEAR = 1.5
"""Standard deviation, in characters, of what counts as the right place."""
Z_LOSS = 5e-3
SHARES = ((800, 0.75, 0.0), (2500, 0.5, 0.0), (10**9, 0.2, 0.4))
"""Shares of the steps on spans of words and on joined sentences, up to a step; all others are on sentences."""
LATER = 2500
"""The step that a run on an assembled model's weights begins with."""


def configuration() -> dict[str, Any]:
    return sizes.config(tokens.TEXT_IDS, tokens.SILENCE, SIZES)


def speaker() -> Tensor:
    """The one voice's vector [64], of length 1; export folds it into a bias."""
    vector = torch.randn(sizes.VOICE_ENCODER["embedding_size"], generator=torch.Generator().manual_seed(7))
    return vector / vector.norm()


class Guided:
    """``T3.forward`` for training: the same numbers in half the time, and the attention of the led heads.

    A batch has one speaker and one prompt, so that their rows are computed once; and attention is spelled out, which for rows this
    short is quicker in bfloat16 than the fused one.
    """

    def __init__(self, network: T3) -> None:
        self.network = network
        self.weights: list[Tensor] = []

    def __call__(self, voice: Tensor, batch: reading.Batch) -> Tensor:
        """Logits [B, S, speech_vocab]."""
        net, spoken = self.network, batch.speech.shape[1]
        p = net.embed(voice[None], batch.prompt, batch.text[:1, :0], batch.speech[:1, :0])
        x = torch.cat([net.text_emb(batch.text), net.speech_emb(batch.speech)], 1)
        first, t = p.shape[1], x.shape[1]
        p, x = p + net.tfmr.wpe.weight[:first], x + net.tfmr.wpe.weight[first : first + t]
        future = torch.ones(t, first + t, dtype=torch.bool).triu(first + 1)
        for i, block in enumerate(net.tfmr.h):
            before = self.split(block, p)
            q, k, v = self.split(block, x)
            k, v = (torch.cat([a.expand(len(x), -1, -1, -1), b], 2) for a, b in zip(before[1:], (k, v)))
            weights = self.attend(q, k, future, block.attn.scale)
            if i in GUIDED:
                self.weights.append(weights[:, 0, -spoken:, first:-spoken])
            x = self.rest(block, x, weights.to(v.dtype) @ v)
            early = self.attend(before[0], before[1], future[:first, first:].new_ones(first, first).triu(1), block.attn.scale)
            p = self.rest(block, p, early.to(v.dtype) @ before[2])
        return net.speech_head(net.tfmr.ln_f(x[:, -spoken:]))

    @staticmethod
    def split(block: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values [B, H, T, D] each."""
        packed = block.attn.c_attn(block.ln_1(x))
        return packed.view(*x.shape[:2], 3, block.attn.heads, -1).permute(2, 0, 3, 1, 4).unbind()

    @staticmethod
    def attend(q: Tensor, k: Tensor, future: Tensor, scale: float) -> Tensor:
        return ((q @ k.transpose(-1, -2)) * scale).masked_fill(future, -1e9).softmax(-1)

    @staticmethod
    def rest(block: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """What follows attention in a block."""
        x = x + block.attn.c_proj(y.transpose(1, 2).flatten(2))
        inner = F.gelu(block.mlp.c_fc(block.ln_2(x)), approximate="tanh")
        return x + block.mlp.c_proj(inner)

    def loss(self, batch: reading.Batch) -> Tensor:
        """How little of the led heads' attention, from every target's row, lies near its character."""
        place = torch.arange(batch.text.shape[1]) + 0.5 - batch.character[..., None]  # [B, S, T]
        near = torch.exp(-(place**2) / (2 * NEAR**2))
        known = batch.target >= 0
        total = torch.zeros(())
        for weights in self.weights:
            hit = (weights.float() * near).sum(-1)
            total = total - ((hit + 1e-4).log() * known).sum() / known.sum() / len(self.weights)
        self.weights.clear()
        return total


class Training(training.Loop):
    """A constant rate, or one that falls to nothing over ``decay`` minutes."""

    ends = 0.0

    def _shape(self) -> float:
        return 1.0 if not self.args.decay else max(0.0, min(1.0, 1 - (self.seconds / 60 - self.ends) / self.args.decay))


def losses(guided: Guided, batch: reading.Batch, voice: Tensor) -> dict[str, Tensor]:
    with torch.autocast("cpu", torch.bfloat16, enabled=training.HALF):
        logits = guided(voice, batch)
        led = guided.loss(batch)
    logits = logits.float().flatten(0, 1)
    target = batch.target.flatten()
    ce = F.cross_entropy(logits, target, ignore_index=-100)
    z = (torch.logsumexp(logits[target >= 0], -1) ** 2).mean()
    return {"ce": ce, "guide": led, "z": z}


def main() -> None:
    parser = training.arguments(__doc__.splitlines()[0], minutes=600, rate=3e-3, batch=0)
    parser.add_argument("--decay", type=float, default=0.0, help="minutes over which the rate falls, from the last checkpoint on")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    network, voice = T3(configuration(), dropout=0.0), speaker()
    for name, parameter in network.named_parameters():
        if "emb" in name or "wpe" in name or "speech_head.weight" in name:
            nn.init.normal_(parameter, std=0.02)
    nn.init.constant_(network.speech_head.bias, -math.log(tokens.SPEECH_IDS + 2))  # logits begin as log-probabilities
    training.begin(network, args.model, "t3_turbo_v1.safetensors", "")
    print(f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f} M parameters", flush=True)
    # With AdamW alone the held-out loss after 160 steps was 3.86, with Muon 3.01 after 66 of the same batches.
    optimizer = training.Optimizers(network, args.rate, lambda name, _: ".h." in name)
    name = "t3_decayed" if args.decay else "t3"
    if args.decay and not training.checkpoint(args.work, name).exists():
        shutil.copy(training.checkpoint(args.work, "t3"), training.checkpoint(args.work, name))
    guided, reader = Guided(network), reading.Reader(args.work)
    loop = Training(name, network, optimizer, args)
    loop.ends, loop.extra = loop.seconds / 60, {"config": SIZES, "speaker": voice.numpy()}
    if args.decay:
        args.minutes = loop.ends + args.decay
    held = reading.read(args.work / "align" / "held_out.pkl")
    print(len(reader.items), "utterances,", round(sum(len(i.speech) for i in reader.items) / 25 / 3600, 2), "h", flush=True)

    def step(rng: np.random.Generator) -> dict[str, Tensor]:
        done = loop.steps + (LATER if args.model else 0)
        short, joined = next(shares for until, *shares in SHARES if done < until)
        kind = rng.random()
        make = reader.short if kind < short else reader.joined if kind < short + joined else reader.sentences
        found = losses(guided, make(rng), voice)
        weight = 0.3 if done < 1500 else 0.05
        return {"loss": found["ce"] + weight * found["guide"] + Z_LOSS * found["z"], **found}

    def held_out() -> dict[str, float]:
        reader.refresh()
        rng = np.random.default_rng(0)
        own, other, long = [], [], []
        for k, one in enumerate(held[:60]):
            batch = reading.batch([one], rng, held)
            found = losses(guided, batch, voice)["ce"]
            batch.text = torch.from_numpy(held[(k + 1) % 60].text.astype(np.int64))[None]
            own.append(float(found))
            other.append(float(losses(guided, batch, voice)["ce"]))
            if k % 3 == 0:
                three = reading.batch([reading.join(held[k : k + 3])], rng, held)
                long.append(float(losses(guided, three, voice)["ce"]))
        return {
            "own_text": float(np.mean(own)),
            "joined": float(np.mean(long)),
            "other_text": float(np.mean(other)),
            "utterances": len(reader.items),
        }

    loop.run(step, held_out)


if __name__ == "__main__":
    main()
