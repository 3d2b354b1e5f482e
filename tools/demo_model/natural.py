"""The teacher at its own pace, for the vocoder and the tokenizer: ``WORK/natural/000.npz`` and on, and ``held_out.npz``.

usage: natural.py [--work DIR] [--shards 4]

A shard holds up to 700 sentences of ``WORK/texts.txt`` that are long enough to be worth hearing: ``wave`` int16 at 24 kHz, whole
tokens, ``n`` tokens of each, ``tokens`` themselves (as near what is heard as whole slots for every phone can lie),
``f0`` of the teacher at 80 Hz and ``nf`` values of each. Sentences come from the end of the list, where ``align.py`` comes last.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import features
import tokens
import training
from teacher import Teacher

SENTENCES = 700
SHORTEST = 25
"""Characters."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    training.work_folder(parser)
    parser.add_argument("--shards", type=int, default=4)
    args = parser.parse_args()
    texts = (args.work / "texts.txt").read_text(encoding="utf-8").splitlines()[::-1]
    texts = [text for text in texts if len(text) >= SHORTEST][: args.shards * SENTENCES]
    parts = {"held_out": (args.work / "held_out.txt").read_text(encoding="utf-8").splitlines()[: features.HELD_OUT]}
    parts |= {f"{i:03d}": texts[i * SENTENCES : (i + 1) * SENTENCES] for i in range(args.shards)}
    teacher = Teacher(args.work)
    folder = args.work / "natural"
    folder.mkdir(parents=True, exist_ok=True)
    for name, sentences in parts.items():
        path = folder / f"{name}.npz"
        if path.exists():
            continue
        started, waves, frequencies, ids = time.time(), [], [], []
        for i, item in enumerate(filter(None, map(teacher.align, sentences))):
            wave, f0 = teacher.natural(item, i)
            waves.append((np.clip(wave, -1, 1) * 32767).round().astype(np.int16))
            frequencies.append(f0)
            ids.append(
                tokens.heard(item, features.f0_at_frames(f0, 2 * len(item["phone"]), features.F0_HOP["natural"])).astype(np.int16)
            )
        n = np.array([len(each) for each in ids])
        counts = np.array([len(f0) for f0 in frequencies])
        temporary = path.with_suffix(".part")
        with open(temporary, "wb") as out:
            np.savez(out, wave=np.concatenate(waves), n=n, tokens=np.concatenate(ids), f0=np.concatenate(frequencies), nf=counts)
        temporary.replace(path)
        print(f"{name}: {n.sum() / 25 / 3600:.2f} h, {time.time() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
