"""Listens to the sound's networks between trainings: the teacher's tokens of held-out sentences through S3Gen and the vocoder.

usage: hear.py [--work DIR] [--sentences 20] [--sounds DIR]

Three lines: the vocoder from the teacher's mel, from the mean mel of the encoder, and from the flow's. Word error and DNSMOS.
"""

from __future__ import annotations

import argparse
import math
import pickle
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

import features
import listener
import s3gen
import training
import vocoder

PROMPT = 130
"""Tokens of the prompt, which is the end of the sentences before."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    training.work_folder(parser)
    parser.add_argument("--sentences", type=int, default=20)
    parser.add_argument("--vocoder", default=vocoder.NAME, help="name of the vocoder's checkpoint")
    parser.add_argument("--parties", default="teacher,vocoder,mean,flow")
    parser.add_argument("--sounds", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    generator = vocoder.build().eval()
    generator.load_state_dict(training.weights(args.work, args.vocoder))
    net = s3gen.S3Gen().eval()
    net.load_state_dict(training.weights(args.work, s3gen.NAME))
    data = features.Data(args.work, held_out=True)
    texts = [item["text"] for item in pickle.loads((args.work / "align" / "held_out.pkl").read_bytes())]
    results: dict[str, list[tuple[int, int, float]]] = {}
    first = int(np.searchsorted(data.starts, PROMPT))
    for i in range(first, min(first + args.sentences, len(data.n))):
        for party, wave in sounds(net, generator, data, i, args.parties.split(",")).items():
            heard = listener.transcript(wave)
            wanted = listener.words(texts[i])
            wrong = listener.errors(wanted, listener.words(heard))
            results.setdefault(party, []).append((wrong, len(wanted), listener.mos(wave)))
            if party == "flow" and wrong:
                print(f"{wrong} {texts[i]} | {heard}", flush=True)
            if args.sounds:
                args.sounds.mkdir(parents=True, exist_ok=True)
                soundfile.write(args.sounds / f"{i:02d}-{party}.flac", np.clip(wave, -1, 1), 24_000)
    for party, rows in results.items():
        wrong, count, mos = zip(*rows)
        print(f"{party}: word error {100 * sum(wrong) / sum(count):.1f} %, DNSMOS {np.mean(mos):.2f}")


@torch.inference_mode()
def sounds(net: s3gen.S3Gen, generator: vocoder.HiFT, data: features.Data, i: int, parties: list[str]) -> dict[str, np.ndarray]:
    """The waves of sentence ``i``."""
    start, n = int(data.starts[i]), int(data.n[i])
    result = {}
    mels: dict[str, Tensor] = {"vocoder": torch.from_numpy(data.mel[2 * start : 2 * (start + n)]).float().T[None]}
    if "teacher" in parties:
        result["teacher"] = data.wave[features.TOKEN * start :][: features.TOKEN * n] * np.float32(features.LEVEL)
    if "mean" in parties or "flow" in parties:
        ids = torch.from_numpy(data.tokens[start - PROMPT : start + n])[None]
        cond = torch.zeros(1, 80, 2 * (PROMPT + n))
        cond[..., : 2 * PROMPT] = torch.from_numpy(data.mel[2 * (start - PROMPT) : 2 * start]).float().T
        xvector = torch.zeros(1, net.flow.spk_embed_affine_layer.in_features)
        mean, mel = net(ids, xvector, cond, 1)
        mels |= {"mean": mean[..., 2 * PROMPT :], "flow": mel[0][..., 2 * PROMPT :]}
    for party, mel in mels.items():
        if party in parties:
            phases = (2 * torch.rand(1, 9) - 1) * math.pi
            wave, _ = generator(mel.contiguous(), phases, torch.randn(1, features.FRAME * mel.shape[2], 9))
            result[party] = wave[0].numpy()
    return result


if __name__ == "__main__":
    main()
