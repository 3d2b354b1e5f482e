"""What the tests of the mel stages share: goldens of the official package and the table of inputs that every one refuses."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from chatterbox_turbo_rs.errors import ArgumentError, AudioError

TESTS = Path(__file__).parents[1]
Stage = Callable[[np.ndarray], np.ndarray]


class Golden:
    """Clips, the official frames of each, and official frame counts by clip length."""

    def __init__(self, name: str) -> None:
        with np.load(TESTS / "goldens" / f"{name}.npz") as file:
            self.arrays = dict(file)
        self.counts = [(int(n), int(frames)) for n, frames in self.arrays["counts"]]
        self.clips = [name[:-5] for name in self.arrays if name.endswith(".clip")]

    def clip(self, name: str) -> np.ndarray:
        stored = self.arrays[f"{name}.clip"]
        return stored.astype(np.float32) / np.float32(32768)

    def frames(self, name: str) -> np.ndarray:
        return self.arrays[f"{name}.frames"]


def load(key: str, implementation: str, resources: object = None) -> Stage:
    module = importlib.import_module(f"chatterbox_turbo_rs.stages.{key}.{implementation}")
    return module.create(resources)


def check_form(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert np.isfinite(found).all()


def check_count(stage: Stage, samples: int, frames: int) -> None:
    """``stage`` makes ``frames`` of a clip of steady noise of that length, as the official stage did."""
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, samples).astype(np.float32)
    assert len(stage(noise)) == frames


def check_views(stage: Stage) -> None:
    """Strided, reversed and read-only clips give the same frames as their copies, and stay as they were."""
    base = np.random.default_rng(2).uniform(-0.5, 0.5, 6000).astype(np.float32)
    base.flags.writeable = False
    for view in (base[::2], base[::-1], base[1:], np.stack([base, base], axis=1)[:, 1]):
        np.testing.assert_array_equal(stage(view), stage(np.array(view)))


def check_refusals(stage: Stage, key: str, minimum: int) -> None:
    """The shortest clip works; less, NaN, infinity, another dtype or shape are each refused with a message that says why."""
    assert len(stage(np.full(minimum, 0.1, np.float32))) >= 1
    clip = np.full(4000, 0.1, np.float32)
    for length in {0, minimum - 1}:
        with pytest.raises(AudioError, match=rf"^{key}: expected at least {minimum} samples, got {length}$"):
            stage(clip[:length])
    for value, text in ((np.nan, "NaN"), (np.inf, "inf"), (-np.inf, "-inf")):
        broken = clip.copy()
        broken[1234] = value
        with pytest.raises(AudioError, match=rf"^{key}: expected finite samples, but sample 1234 is {text}$"):
            stage(broken)
    for wrong, text in (
        (clip.astype(np.float64), r"float64 array of shape \(4000,\)"),
        ((clip * 100).astype(np.int16), r"int16 array of shape \(4000,\)"),
        (clip.astype(">f4"), r">f4 array of shape \(4000,\)"),
        (clip[None], r"float32 array of shape \(1, 4000\)"),
        (clip.reshape(2000, 2), r"float32 array of shape \(2000, 2\)"),
        (np.float32(0.1), r"float32 array of shape \(\)"),
        ([0.1] * 4000, "list"),
        (None, "NoneType"),
    ):
        with pytest.raises(ArgumentError, match=rf"^samples: expected float32 \[n\], got {text}"):
            stage(wrong)  # type: ignore[arg-type]
