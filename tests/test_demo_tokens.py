"""The ids of the embedded model's training (``tools/demo_model/tokens.py``): the teacher at its own pace, in whole slots."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(scope="module")
def tokens() -> ModuleType:
    path = Path(__file__).parents[1] / "tools" / "demo_model" / "tokens.py"
    spec = importlib.util.spec_from_file_location("demo_tokens", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_the_nearest_sequence_without_a_fall(tokens: ModuleType) -> None:
    assert tokens.rising(np.array([1.0, 2.0, 3.0])).tolist() == [1, 2, 3]
    assert tokens.rising(np.array([3.0, 1.0, 2.0, 5.0, 4.0])).tolist() == [2, 2, 2, 4.5, 4.5]
    rng = np.random.default_rng(1)
    for _ in range(50):
        x = rng.standard_normal(8)
        found = tokens.rising(x)
        assert (np.diff(found) >= 0).all()
        others = np.sort(x + rng.standard_normal((2000, 8)), axis=1)
        assert ((others - x) ** 2).sum(1).min() >= ((found - x) ** 2).sum() - 1e-9


def test_borders_lie_as_near_the_sound_as_whole_slots_can(tokens: ModuleType) -> None:
    """Against all others."""
    rng = np.random.default_rng(2)
    for _ in range(100):
        least = rng.integers(1, 3, 4)
        ends = np.cumsum(rng.uniform(0.2, 3.0, 4))
        n = max(int(round(ends[-1])), int(least.sum()))
        found = tokens.nearest(ends, least, n)
        assert sum(found) == n and (found >= least).all()
        possible = [c for c in itertools.product(range(1, n + 1), repeat=4) if sum(c) == n and (np.array(c) >= least).all()]
        apart = [((np.cumsum(c)[:-1] - ends[:-1]) ** 2).sum() for c in possible]
        mine = ((np.cumsum(found)[:-1] - ends[:-1]) ** 2).sum()
        assert mine <= min(apart) + 0.5, "no more than rounding costs"


def test_every_phone_is_heard_at_the_teachers_own_pace(tokens: ModuleType) -> None:
    phonemes, rng = "ðɪs ɪz ɐ tˈɛst.", np.random.default_rng(2)
    for _ in range(20):
        plan = tokens.plan(phonemes, rng.uniform(0.4, 4.0, len(phonemes) + 2))
        n = len(plan.phone)
        item = {"text": "this is a test.", "f0": np.full(4 * n, 200.0), **vars(plan)}
        ids = tokens.heard(item, np.full(2 * n, 200.0))
        assert len(ids) == n and tokens.phones(ids) == tokens.phones(tokens.codes(item)[0])
        assert tokens.phones(ids) == ["ð", "ɪ", "s", "ɪ", "z", "ə", "t", "ɛ", "s", "t"]
