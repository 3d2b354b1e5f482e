"""Vocoder and watermark in windows: the samples of one piece, whatever the windows."""

from __future__ import annotations

import importlib
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import implementations
import numpy as np
import pytest

from chatterbox_turbo_rs.checkpoint.resources import Resources
from chatterbox_turbo_rs.constants import HOP
from chatterbox_turbo_rs.engine import draws, windows
from chatterbox_turbo_rs.errors import ArgumentError
from chatterbox_turbo_rs.stages import watermark

SIDES = [
    ("rust", "f32", 0.0),
    ("rust", "bf16", 0.0),
    ("python", "f32", 1e-6),
]
PARTY = {name: param for name, param in zip(("python", "rust"), implementations.of("s3gen.vocoder"))}


def sides() -> list[Any]:
    return [pytest.param(side, marks=PARTY[side[0]].marks, id="-".join(side[:2])) for side in SIDES]


class Vocoder:
    """The stage of a checkpoint, its configuration, and how far windows may be from one piece."""

    def __init__(self, directory: Path, implementation: str, precision: str, tolerance: float) -> None:
        config = json.loads((directory / "config.json").read_text())
        module = importlib.import_module(f"chatterbox_turbo_rs.stages.s3gen.vocoder.{implementation}")
        self.stage = module.create(Resources(directory, config, "cpu", precision))
        self.config, self.tolerance = config["s3gen"]["vocoder"], tolerance

    def check(self, found: np.ndarray, expected: np.ndarray) -> None:
        assert found.dtype == np.float32 and found.shape == expected.shape
        if self.tolerance:
            assert np.abs(found - expected).max() < self.tolerance
        else:
            assert found.tobytes() == expected.tobytes()


@pytest.fixture(scope="module", params=sides())
def vocoder(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> Vocoder:
    return Vocoder(tiny_checkpoint, *request.param)


def given(frames: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A mel that wanders like one of speech, and the draws."""
    steps = np.random.default_rng(seed).standard_normal((frames, 80))
    mel = (np.cumsum(steps - steps.mean(axis=0), axis=0) * 0.2 - 5).astype(np.float32)
    return mel, draws.phases(seed, 9), draws.normals(seed, draws.NOISE, 0, HOP * frames, 9)


def test_spans_cover_every_frame_once() -> None:
    for frames in [*range(1, 400), 999, 2000, 2001]:
        spans = list(windows.spans(frames))
        assert [start for start, _ in spans] == [0, *(end for _, end in spans[:-1])] and spans[-1][1] == frames
        sizes = [end - start for start, end in spans]
        assert sizes[0] == (windows.FIRST if frames >= 3 * windows.FIRST else frames) and max(sizes) < 2 * windows.LARGEST
        assert all(b <= 4 * a and b >= windows.FIRST for a, b in zip(sizes, sizes[1:]))
    assert [end - start for start, end in windows.spans(2000)][:4] == [24, 48, 96, 192]


@pytest.mark.parametrize("frames", [2, 5, 24, 71, 72, 73, 150, 333])
def test_the_vocoder_in_windows_gives_the_samples_of_one_piece(vocoder: Vocoder, frames: int) -> None:
    arguments = given(frames)
    parts = list(windows.vocoder_windows(vocoder.stage, *arguments, vocoder.config))
    assert [len(part) for part in parts] == [HOP * (end - start) for start, end in windows.spans(frames)]
    vocoder.check(np.concatenate(parts), vocoder.stage(*arguments))


@pytest.mark.parametrize("size", [1, 3, 7, 40])
def test_any_windows_do(vocoder: Vocoder, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fade-in of 960 samples may take more than one."""
    monkeypatch.setattr(windows, "FIRST", size)
    monkeypatch.setattr(windows, "LARGEST", size)
    arguments = given(60 if size > 1 else 12, size)
    parts = list(windows.vocoder_windows(vocoder.stage, *arguments, vocoder.config))
    assert len(parts) == {1: 12, 3: 20, 7: 8, 40: 1}[size]
    vocoder.check(np.concatenate(parts), vocoder.stage(*arguments))


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_large_values_change_no_other_window(tiny_checkpoint: Path, precision: str) -> None:
    """Angles that large have a sine of their own."""
    vocoder = Vocoder(tiny_checkpoint, "rust", precision, 0.0)
    mel, *others = given(120)
    mel[100:104] *= 3000
    parts = list(windows.vocoder_windows(vocoder.stage, mel, *others, vocoder.config))
    vocoder.check(np.concatenate(parts), vocoder.stage(mel, *others))


def test_less_context_would_not_do(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vocoder = Vocoder(tiny_checkpoint, "rust", "f32", 0.0)
    arguments = given(150)
    monkeypatch.setattr(windows, "context", lambda config: (10, 10))
    parts = list(windows.vocoder_windows(vocoder.stage, *arguments, vocoder.config))
    assert np.concatenate(parts).tobytes() != vocoder.stage(*arguments).tobytes()


@pytest.mark.parametrize("name", ["turbo", "nano"])
def test_the_context_is_what_a_sample_depends_on(tiny_checkpoint: Path, name: str) -> None:
    """Counted by the formula, and found by changing one frame of the mel or of the excitation."""
    vocoder = Vocoder(tiny_checkpoint, "rust", "f32", 0.0)
    config = json.loads((Path(windows.__file__).parents[1] / "config" / f"{name}.json").read_text())["s3gen"]["vocoder"]
    assert windows.context(config) == windows.context(vocoder.config) == (15, 15)
    mel, phases, noise = given(80)
    source = vocoder.stage.source(vocoder.stage.f0(mel), phases, noise)
    plain = vocoder.stage.samples_from_source(mel, source)
    loud, shrill = mel.copy(), source.copy()
    loud[40] += 20
    shrill[HOP * 40 : HOP * 41] += 1
    reached = set()
    for changed in (vocoder.stage.samples_from_source(loud, source), vocoder.stage.samples_from_source(mel, shrill)):
        reached |= set((np.flatnonzero(changed != plain) // HOP - 40).tolist())
    assert min(reached) >= -15 and max(reached) <= 15 and {-13, 13} <= reached


def test_windows_report_frames_and_stop(vocoder: Vocoder) -> None:
    arguments = given(150)
    reports: list[tuple[str, int, int]] = []
    list(windows.vocoder_windows(vocoder.stage, *arguments, vocoder.config, lambda *report: reports.append(report)))
    assert {(stage, total) for stage, _, total in reports} == {("s3gen.vocoder", 150)}
    done = [done for _, done, _ in reports]
    assert done == sorted(done) and done[-1] == 150 and 24 in done

    def stop(stage: str, done: int, total: int) -> None:
        if done >= 24:
            raise LookupError

    parts = windows.vocoder_windows(vocoder.stage, *arguments, vocoder.config, stop)
    with pytest.raises(LookupError):
        list(parts)


@pytest.fixture(scope="module", params=implementations.of("watermark"))
def perth(request: pytest.FixtureRequest) -> Any:
    stage = importlib.import_module(f"chatterbox_turbo_rs.stages.watermark.{request.param}").create(None)
    stage.tolerance = {"rust": 0.0, "python": 1e-6}[request.param]
    return stage


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    with np.load(Path(__file__).parent / "goldens" / "watermark.npz") as file:
        return file["samples"].astype(np.float32) / 32768


def split(samples: np.ndarray, seed: int, largest: int = 9000) -> Iterator[np.ndarray]:
    random, start = np.random.default_rng(seed), 0
    while start < len(samples):
        end = start + int(random.integers(1, largest))
        yield samples[start:end]
        start = end


def check_marked(perth: Any, samples: np.ndarray, parts: Iterator[np.ndarray]) -> list[int]:
    """The parts' lengths."""
    found = list(windows.watermark_windows(perth, parts, 0.99))
    expected, joined = perth(samples), np.concatenate(found)
    assert joined.dtype == np.float32 and joined.shape == expected.shape
    if perth.tolerance:
        assert np.abs(joined - expected).max() < perth.tolerance
    else:
        assert joined.tobytes() == expected.tobytes()
    return [len(part) for part in found]


def white(n: int, size: float = 0.3, seed: int = 5) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).standard_normal(n) * size, -0.99, 0.99).astype(np.float32)


def click(n: int) -> np.ndarray:
    samples = np.zeros(n, np.float32)
    samples[n // 2] = 0.9
    return samples


SOUNDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "speech": lambda speech: speech,
    "noise": lambda speech: white(40_000),
    "silence before": lambda speech: np.concatenate([np.zeros(20_000, np.float32), speech]),
    "silence after": lambda speech: np.concatenate([speech, np.zeros(20_000, np.float32)]),
    "silence between": lambda speech: np.concatenate([speech[:12_000], np.zeros(15_000, np.float32), speech[12_000:30_000]]),
    "a fade-in": lambda speech: (speech * np.linspace(0, 1, len(speech)) ** 8).astype(np.float32),
    "nothing": lambda speech: np.zeros(30_000, np.float32),
    "a click": lambda speech: click(40_000),
    "very quiet": lambda speech: speech * np.float32(1e-6),
    "as loud as it gets": lambda speech: np.sign(white(30_000)) * np.float32(0.99),
}


SILENT = ("silence before", "silence after", "silence between", "a click")
"""Beside digital silence resemble-perth's resampler, which works in blocks, leaves noise of -150 dB that depends on where they begin."""
IN_DOUBT = ("a fade-in", "very quiet")
"""Frames of these, near -170 dB, wait for the loudest one."""


@pytest.mark.parametrize("name", SOUNDS)
def test_the_watermark_in_windows_gives_the_samples_of_one_piece(perth: Any, speech: np.ndarray, name: str) -> None:
    samples = SOUNDS[name](speech)
    if perth.tolerance and (name in SILENT or name == "as loud as it gets"):
        joined = np.concatenate(list(windows.watermark_windows(perth, split(samples, 3), 0.99)))
        assert np.abs(joined - perth(samples)).max() < (5e-4 if name in SILENT else 2e-6)
        return
    lengths = check_marked(perth, samples, split(samples, 3))
    assert len(lengths) > 3 or name in IN_DOUBT, "nothing came before the end"


@pytest.mark.parametrize("more", [0, 1, 2, 3, 79, 119, 120, 239])
def test_every_length_between_two_frames(perth: Any, speech: np.ndarray, more: int) -> None:
    for blocks in (0, 3, 4, 23, 24, 51):
        samples = speech[: blocks * watermark.BLOCK + more]
        if len(samples):
            check_marked(perth, samples, split(samples, more, 2000))


def test_what_comes_is_held_back_by_a_quarter_of_a_second(perth: Any, speech: np.ndarray) -> None:
    taken = 0

    def parts() -> Iterator[np.ndarray]:
        nonlocal taken
        for start in range(0, len(speech), 480):
            taken = min(start + 480, len(speech))
            yield speech[start:taken]

    given = 0
    for part in windows.watermark_windows(perth, parts(), 0.99):
        given += len(part)
        assert taken - given <= watermark.CONTEXT + watermark.BLOCK and (
            taken - given >= watermark.CONTEXT or taken == len(speech)
        )
    assert given == len(speech) and watermark.CONTEXT <= 0.23 * 24_000


def test_frames_in_doubt_wait_for_a_louder_one(speech: np.ndarray) -> None:
    """Noise of -205 dB is marked where nothing is louder, and is not beside speech."""
    perth = importlib.import_module("chatterbox_turbo_rs.stages.watermark.rust").create(None)
    perth.tolerance = 0.0
    faint = white(36_000, 5e-11)
    levels = perth.levels(faint)
    assert 0 < levels.max() < watermark.QUIET * perth.levels(speech).max()
    lengths = check_marked(perth, faint, iter(np.split(faint, 10)))
    assert sum(lengths[:-1]) < 1000, "they were given away before they were decided"
    both = np.concatenate([faint, speech])
    lengths = check_marked(perth, both, iter(np.split(both, [6000, 12_000, 24_000, 36_000, 42_000, 48_000])))
    assert max(lengths[:-1]) > 30_000, "they were not decided by the speech"
    assert np.abs(perth(both) - both)[: 36_000 - 2000].max() < 1e-8 < np.abs(perth(both) - both)[36_000:].max()


def test_no_frame_is_louder_than_the_ceiling(speech: np.ndarray) -> None:
    perth = importlib.import_module("chatterbox_turbo_rs.stages.watermark.rust").create(None)
    for peak, factor in itertools.product((0.99, 0.01), (1.0, -1.0)):
        for name, sound in SOUNDS.items():
            samples = sound(speech) * np.float32(factor * peak / 0.99)
            assert perth.levels(samples).max() < windows.ceiling(peak), name
    flat = np.sign(white(30_000)) * np.float32(0.99)
    assert perth.levels(flat).max() > 0.8 * windows.ceiling(0.99), "a ceiling that far away decides nothing"


def test_samples_beyond_the_peak_are_refused(perth: Any) -> None:
    for bad in (1.5, -1.5, np.nan):
        samples = np.zeros(100, np.float32)
        samples[7] = bad
        with pytest.raises(ArgumentError, match=f"samples: expected none beyond 0.99, got {bad}"):
            list(windows.watermark_windows(perth, [samples], 0.99))


def test_no_samples_at_all(perth: Any) -> None:
    assert list(windows.watermark_windows(perth, [], 0.99)) == []
