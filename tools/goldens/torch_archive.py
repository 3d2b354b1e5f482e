"""Writes tests/goldens/torch_archive_*.pt and torch_archive.npz with PyTorch's own ``torch.save`` (made with 2.13).

usage: python tools/goldens/torch_archive.py      (in an environment with torch, see tools/reference_env.sh)
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

GOLDENS = Path(__file__).parents[2] / "tests" / "goldens"


def flatten(value, path: str, into: dict[str, np.ndarray]) -> None:
    """Every tensor of ``value`` by its path."""
    if isinstance(value, dict):
        for key, item in value.items():
            flatten(item, f"{path}/{key}" if path else key, into)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            flatten(item, f"{path}/{i}", into)
    elif isinstance(value, torch.Tensor):
        into[path] = (value.float() if value.dtype == torch.bfloat16 else value).detach().numpy()


def main() -> None:
    torch.manual_seed(5)
    # the structure of upstream's conds.pt (Conditionals.save in tts_turbo.py at 5de7a54), with short prompts
    conds = {
        "t3": {
            "speaker_emb": torch.randn(1, 256),
            "clap_emb": None,
            "cond_prompt_speech_tokens": torch.randint(0, 6561, (1, 15)),
            "cond_prompt_speech_emb": None,
            "emotion_adv": 0.5 * torch.ones(1, 1, 1),
        },
        "gen": {
            "prompt_token": torch.randint(0, 6561, (1, 10)),
            "prompt_token_len": torch.tensor([10]),
            "prompt_feat": torch.randn(1, 80, 20).transpose(1, 2),  # not contiguous
            "prompt_feat_len": None,
            "embedding": torch.randn(1, 192),
        },
    }
    base = torch.arange(24.0).reshape(2, 3, 4)
    kinds = {
        "f32": torch.randn(3, 2),
        "f16": torch.randn(5).half(),
        "bf16": torch.randn(5).bfloat16(),
        "f64": torch.randn(2, 1, 2).double(),
        "i64": torch.tensor([-(2**62), 0, 2**62]),
        "i32": torch.tensor([[-1], [2**31 - 1]], dtype=torch.int32),
        "u8": torch.tensor([0, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "views": [base, base.permute(2, 0, 1), base[1:, ::2, 1:3], torch.tensor([7.0]).expand(3, 4), base[0, 0, 0]],
        "empty": torch.zeros(0, 3),
        "plain": {"ints": [0, -1, 255, 65535, 2**31, -(2**40)], "floats": (0.1, -0.0, float("inf")), "text": "grün\n", "": True},
        "module": torch.nn.Linear(2, 3).state_dict(),  # an OrderedDict that carries `_metadata`
        "ordered": OrderedDict(b=False, a=None),
    }
    expected: dict[str, np.ndarray] = {}
    for name, value in {"conds": conds, "kinds": kinds}.items():
        torch.save(value, GOLDENS / f"torch_archive_{name}.pt")
        flatten(value, name, expected)
    torch.save({"a": torch.ones(2)}, GOLDENS / "torch_archive_legacy.pt", _use_new_zipfile_serialization=False)
    np.savez_compressed(GOLDENS / "torch_archive.npz", **expected)


if __name__ == "__main__":
    main()
