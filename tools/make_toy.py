"""Makes the toy, the tests' quick model: ``tests/data/toy``.

usage: make_toy.py [DIR]

The weights are random (float16, ``tests/data/toy.json``, seed 7); the built-in voice ``conds.pt`` is prepared by the model
itself, in Rust, from a committed clip. A test makes it again and compares.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOY = ROOT / "tests" / "data" / "toy"
SEED = 7
CLIP = ROOT / "tests" / "data" / "clips" / "short.flac"


def make(directory: Path) -> None:
    """Writes the model's files into ``directory``."""
    from chatterbox_turbo_rs import ChatterboxTurbo
    from chatterbox_turbo_rs.checkpoint import conds_pt

    directory.mkdir(parents=True, exist_ok=True)
    maker = ROOT / "tools" / "make_checkpoint.py"
    subprocess.run(
        [sys.executable, str(maker), "--size", "toy", "--seed", str(SEED), "--dtype", "f16", str(directory)], check=True
    )
    conds = directory / "conds.pt"
    conds.unlink(missing_ok=True)
    model = ChatterboxTurbo.from_pretrained(directory, backends="rust", watermark=None)
    conds_pt.write(conds, model.voice(CLIP))


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else TOY)
