"""Makes the embedded demo model: ``python/chatterbox_turbo_rs/assets/demo``.

usage: make_demo.py [DIR]

The weights are random (float16, ``config/demo.json``, seed 7); the built-in voice ``conds.pt`` is prepared by the model
itself, in Rust, from a committed clip. A test makes it again and compares.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "python" / "chatterbox_turbo_rs" / "assets" / "demo"
SEED = 7
CLIP = ROOT / "tests" / "data" / "clips" / "short.flac"
LIMIT = 3_000_000
"""Bytes that the embedded model may take."""


def make(directory: Path) -> None:
    """Writes the model's files into ``directory``."""
    from chatterbox_turbo_rs import ChatterboxTurbo
    from chatterbox_turbo_rs.checkpoint import conds_pt, torch_archive

    directory.mkdir(parents=True, exist_ok=True)
    maker = ROOT / "tools" / "make_checkpoint.py"
    subprocess.run(
        [sys.executable, str(maker), "--size", "demo", "--seed", str(SEED), "--dtype", "f16", str(directory)], check=True
    )
    conds = directory / "conds.pt"
    conds.unlink(missing_ok=True)
    model = ChatterboxTurbo.from_pretrained(directory, backends="rust", watermark=None)
    t3, gen = conds_pt.to_dicts(model.voice(CLIP))
    torch_archive.save(conds, {"t3": t3, "gen": gen})
    size = sum(file.stat().st_size for file in directory.iterdir())
    if size > LIMIT:
        raise SystemExit(f"{directory}: {size} bytes, expected at most {LIMIT}")
    print(f"{directory}: {size} bytes")


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else ASSETS)
