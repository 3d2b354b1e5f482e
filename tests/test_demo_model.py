"""The committed demo model is what ``tools/make_demo.py`` makes, and fits into the wheel."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from chatterbox_turbo_rs import Voice
from chatterbox_turbo_rs.checkpoint.tensor_file import TensorFile

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import make_demo  # noqa: E402


def test_the_demo_model_can_be_made_again(tmp_path):
    make_demo.make(tmp_path)
    committed = {file.name for file in make_demo.ASSETS.iterdir()}
    assert {file.name for file in tmp_path.iterdir()} == committed
    for name in committed - {"conds.pt"}:
        assert (tmp_path / name).read_bytes() == (make_demo.ASSETS / name).read_bytes(), f"{name}: run tools/make_demo.py"
    made, kept = Voice.load(tmp_path / "conds.pt"), Voice.load(make_demo.ASSETS / "conds.pt")
    for name in ("t3_prompt_tokens", "s3gen_prompt_tokens"):
        assert np.array_equal(getattr(made, name), getattr(kept, name)), name
    # prepared by the model: the last bits depend on the CPU's instructions
    for name in ("speaker_embedding", "s3gen_prompt_mel", "xvector"):
        np.testing.assert_allclose(getattr(made, name), getattr(kept, name), rtol=1e-3, atol=1e-4, err_msg=name)


def test_the_demo_model_is_small_and_complete():
    assert sum(file.stat().st_size for file in make_demo.ASSETS.iterdir()) <= make_demo.LIMIT
    names = TensorFile(make_demo.ASSETS / "t3_turbo_v1.safetensors").names()
    assert "speech_head.weight" in names
