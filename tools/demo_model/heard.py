"""What the tokenizer hears of the teacher's own pace: ``WORK/heard/NAME.npy``, an id for every slot of ``WORK/natural/NAME.npz``.

usage: heard.py [--work DIR] [--threads 1]

S3Gen learns from these as well (``s3gen.py --heard``), since a clip's tokens are the tokenizer's, with its faults.
"""

from __future__ import annotations

import argparse
import os

import numpy as np
import torch

import features
import sizes
import tokenizer
import training
from chatterbox_turbo_rs.stages.s3tokenizer.tokens.python import S3Tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    training.work_folder(parser)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    net = S3Tokenizer(sizes.sound()["s3tokenizer"]).eval()
    net.load_state_dict(training.weights(args.work, tokenizer.NAME))
    trainer, rng = tokenizer.Trainer(net, 1), np.random.default_rng(0)
    for name in ["held_out", *features.names(args.work, "natural")]:
        data, ids, at = features.shard(args.work, "natural", name), [], 0
        for length in map(int, data["n"]):
            wave = torch.from_numpy(trainer.piece(rng, data["wave"], at, length, False))[None]
            with torch.no_grad():
                ids.append(net.ids(net(tokenizer.mel(wave, trainer.window, trainer.filters)))[0].numpy().astype(np.int16))
            at += length
        path = args.work / "heard" / f"{name}.npy"
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.part")
        with open(temporary, "wb") as out:
            np.save(out, np.concatenate(ids))
        temporary.replace(path)
        right = np.concatenate(ids) == data["tokens"]
        print(f"{name}: {right.mean():.1%} of the tokens", flush=True)


if __name__ == "__main__":
    main()
