"""What the teacher says of every text: phones, durations in slots, f0, and for the first shards its sound.

Shards of 1,000 texts in the order of ``WORK/texts.txt``: ``WORK/align/00000.pkl`` (a list of dictionaries, see ``Teacher.align``;
texts that the teacher splits are left out) and, with ``--sound``, ``WORK/sound/00000.npy``: int16 at 24 kHz, all items of the shard
one after another, 960 samples a slot. Finished shards are kept; several processes may share the work (``--part I --parts N``).

usage: align.py --work WORK [--shards 30] [--sound 6] [--part 0 --parts 2]
"""

from __future__ import annotations

import argparse
import os
import pickle
import time
from pathlib import Path

import numpy as np

from teacher import Teacher

SHARD = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=os.environ.get("DEMO_WORK"), required="DEMO_WORK" not in os.environ)
    parser.add_argument("--shards", type=int, default=30, help="shards of texts in all")
    parser.add_argument("--sound", type=int, default=6, help="shards with sound, the first ones")
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--parts", type=int, default=1)
    options = parser.parse_args()
    work = options.work
    for folder in ("align", "sound"):
        (work / folder).mkdir(exist_ok=True)
    teacher = Teacher(work)
    held = (work / "held_out.txt").read_text().splitlines()
    shards = {"held_out": held}
    texts = (work / "texts.txt").read_text().splitlines()
    for i in range(options.shards):
        shards[f"{i:05}"] = texts[i * SHARD : (i + 1) * SHARD]
    names = list(shards)[options.part :: options.parts]
    for name in names:
        begun, target = time.time(), work / "align" / f"{name}.pkl"
        if target.exists():
            items = pickle.loads(target.read_bytes())
        else:
            items = [item for item in map(teacher.align, shards[name]) if item is not None]
            write(target, pickle.dumps(items))
        spoken = work / "sound" / f"{name}.npy"
        if (name == "held_out" or int(name) < options.sound) and not spoken.exists():
            sound = np.concatenate([teacher.sound(item, seed) for seed, item in enumerate(items)])
            partial = spoken.with_suffix(".partial")
            with partial.open("wb") as file:
                np.save(file, (np.clip(sound, -1, 1) * 32767).round().astype(np.int16))
            partial.rename(spoken)
        slots = sum(len(item["phone"]) for item in items)
        print(f"{name}: {len(items)} texts, {slots / 25 / 3600:.2f} h, {time.time() - begun:.0f} s", flush=True)


def write(target: Path, data: bytes) -> None:
    partial = target.with_suffix(".partial")
    partial.write_bytes(data)
    partial.rename(target)


if __name__ == "__main__":
    main()
