"""Golden of voice conversion from the official package: its ``ChatterboxVC`` over the meanflow S3Gen at tiny size.

usage: PYTHONPATH=python python tools/goldens/conversion.py CHECKPOINT_DIR      (in an environment as tools/reference_env.sh builds it)
       CHECKPOINT_DIR from ``make_checkpoint.py --size tiny --seed 1234``

Writes tests/goldens/conversion.npz: of a voice with an even and with an odd number of frames the voice's arrays, the tokens of the
source (with the numbers before rounding), the mel of S3Gen and the marked samples. The source is 1 s of a committed clip; the
draws are those of ``SEED`` in ``engine/draws.py``.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import soundfile
import torch
from chatterbox import vc

from chatterbox_turbo_rs.engine import draws

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python" / "chatterbox_turbo_rs" / "parity"))
from official.draws import Draws, injected  # noqa: E402
from official.modules import load_official  # noqa: E402
from official.recording import Take, recording  # noqa: E402

CLIPS = ROOT / "tests" / "data" / "clips"
SEED, TOKENS = 77, 25
START, STOP = 30_000, 54_000
VOICES = {"even": (40, 80), "odd": (40, 81)}
"""Prompt tokens and frames."""


def main(checkpoint: str) -> None:
    torch.set_num_threads(1)
    official = load_official(checkpoint)
    official.tts.prepare_conditionals(str(CLIPS / "short.flac"))
    whole = official.tts.conds.gen
    samples, rate = soundfile.read(CLIPS / "short.flac", dtype="float32")
    out: dict[str, np.ndarray] = {}
    for name, (tokens, frames) in VOICES.items():
        voice = {
            "prompt_token": whole["prompt_token"][:, :tokens],
            "prompt_token_len": torch.tensor([tokens]),
            "prompt_feat": whole["prompt_feat"][:, :frames],
            "prompt_feat_len": None,
            "embedding": whole["embedding"],
        }
        source = io.BytesIO()
        soundfile.write(source, samples[START:STOP], rate, format="WAV", subtype="FLOAT")
        source.seek(0)
        given = Draws(
            flow=draws.normals(SEED, draws.FLOW, 0, 2 * (tokens + TOKENS), 80),
            phases=draws.phases(SEED, 9),
            noise=draws.normals(SEED, draws.NOISE, 0, 960 * TOKENS, 9),
        )
        take, converter = Take(), vc.ChatterboxVC(official.s3gen, "cpu", ref_dict=voice)
        with injected(given), recording(converter, take, "conversion"):
            marked = converter.generate(source)
        out |= {
            f"{name}.prompt_tokens": voice["prompt_token"][0].numpy().astype(np.int64),
            f"{name}.prompt_mel": voice["prompt_feat"][0].numpy(),
            f"{name}.xvector": voice["embedding"][0].numpy(),
            f"{name}.tokens": take.arrays["s3tokenizer.tokens@source/out.ids"],
            f"{name}.levels": take.arrays["s3tokenizer.tokens@source/out.levels"],
            f"{name}.mel": take.arrays["s3gen.flow/out.mel"],
            f"{name}.samples": marked[0].numpy(),
        }
        if len(out[f"{name}.tokens"]) != TOKENS or len(out[f"{name}.samples"]) != 960 * TOKENS - 480 * (frames % 2):
            raise ValueError(f"{name}: expected {TOKENS} tokens, found {len(out[f'{name}.tokens'])}")
    np.savez_compressed(ROOT / "tests" / "goldens" / "conversion.npz", **out)


if __name__ == "__main__":
    main(sys.argv[1])
