"""The committed toy is what ``tools/make_toy.py`` makes."""

from __future__ import annotations

import numpy as np

import make_toy
from chatterbox_turbo_rs import Voice


def test_the_toy_can_be_made_again(tmp_path):
    make_toy.make(tmp_path)
    committed = {file.name for file in make_toy.TOY.iterdir()}
    assert {file.name for file in tmp_path.iterdir()} == committed
    for name in committed - {"conds.pt"}:
        assert (tmp_path / name).read_bytes() == (make_toy.TOY / name).read_bytes(), f"{name}: run tools/make_toy.py"
    made, kept = Voice.load(tmp_path / "conds.pt"), Voice.load(make_toy.TOY / "conds.pt")
    for name in ("t3_prompt_tokens", "s3gen_prompt_tokens"):
        assert np.array_equal(getattr(made, name), getattr(kept, name)), name
    # prepared by the model: the last bits depend on the CPU's instructions
    for name in ("speaker_embedding", "s3gen_prompt_mel", "xvector"):
        np.testing.assert_allclose(getattr(made, name), getattr(kept, name), rtol=1e-3, atol=1e-4, err_msg=name)
