"""Sound while T3 is still at it: generate's tokens, every sample once, no clicks."""

from __future__ import annotations

import itertools
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chatterbox_turbo_rs import ChatterboxTurbo, Chunk, Voice
from chatterbox_turbo_rs.constants import HOP
from chatterbox_turbo_rs.engine import draws, low_latency, registry
from chatterbox_turbo_rs.engine.pipeline import Text
from chatterbox_turbo_rs.errors import CancelledError, TruncatedSpeechWarning
from chatterbox_turbo_rs.options import GenerationOptions

TEXT = "Hello there, this is what is spoken."


@pytest.fixture(autouse=True)
def _cut_speech_is_no_news() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncatedSpeechWarning)
        yield


@pytest.fixture(scope="module")
def voice(toy: ChatterboxTurbo, clip: Path) -> Voice:
    return toy.voice(clip)


def joined(chunks: list[Chunk]) -> np.ndarray:
    assert [chunk.start for chunk in chunks] == [0, *itertools.accumulate(len(chunk) for chunk in chunks[:-1])]
    assert [chunk.final for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    return np.concatenate([chunk.samples for chunk in chunks])


def loudness(samples: np.ndarray) -> np.ndarray:
    """dB of the spectrum, [frames, 40 bands] of 20 ms."""
    frames = samples[: len(samples) // HOP * HOP].reshape(-1, HOP) * np.hanning(HOP)
    power = np.abs(np.fft.rfft(frames)[:, 1:]) ** 2
    return 10 * np.log10(power.reshape(len(frames), 40, -1).sum(axis=2) + 1e-9)


@pytest.mark.parametrize("watermark", [None, "perth"])
def test_it_is_the_same_speech_sooner(toy: ChatterboxTurbo, voice: Voice, watermark: Any) -> None:
    """As long as generate's, with the same tokens; and nearer to it than another seed is."""
    arguments: dict[str, Any] = {"voice": voice, "watermark": watermark, "max_tokens": 260}
    reached: list[int] = []

    def watch(stage: str, done: int, total: int) -> None:
        if stage == "t3":
            reached.append(done)

    chunks = []
    for chunk in toy.stream(TEXT, latency="low", seed=3, progress=watch, chunk=10, **arguments):
        chunks.append(chunk)
        if len(chunks) == 1:
            assert chunk.seconds == 0.24 and reached and max(reached) < 261, "T3 was over before it began"
    found = joined(chunks)
    assert [len(chunk) // HOP for chunk in chunks] == [12, 30, 50, 100, 200, 2 * 264 - 392]
    short, other = (toy.generate(TEXT, seed=seed, **{**arguments, "voice": voice.shortened(3)}) for seed in (3, 4))
    assert len(found) == len(short) and np.isfinite(found).all() and np.abs(found).max() < 2
    near, far = (np.abs(loudness(found) - loudness(speech.samples)).mean() for speech in (short, other))
    assert near < 0.9 * far, (near, far)
    if watermark:
        assert toy.detect_watermark(found) > 0.9


def test_t3_draws_on_while_s3gen_renders(toy: ChatterboxTurbo, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, seen, render = threading.Event(), [], low_latency.Renderer.render

    def watch(stage: str, done: int, total: int) -> None:
        if stage == "t3" and done >= 100:
            drawn.set()

    def slow(self: Any, tokens: list[int], count: int | None) -> np.ndarray:
        if count == 25:
            seen.append(drawn.wait(60))
        return render(self, tokens, count)

    monkeypatch.setattr(low_latency.Renderer, "render", slow)
    list(toy.stream(TEXT, latency="low", seed=3, max_tokens=150, progress=watch))
    assert seen == [True]


@pytest.mark.parametrize("max_tokens", [1, 5, 11, 12, 13, 27, 28, 102, 103, 104])
def test_nothing_is_lost_at_any_length(toy: ChatterboxTurbo, max_tokens: int) -> None:
    speech = toy.generate(TEXT, seed=3, max_tokens=max_tokens)
    chunks = list(toy.stream(TEXT, latency="low", seed=3, max_tokens=max_tokens, chunk=0.1))
    found = joined(chunks)
    assert len(found) == len(speech) and chunks[-1].finish_reason == speech.finish_reason == "length"
    assert max(map(len, chunks)) <= 2400 and found[-960:].any()


def test_the_same_seed_gives_the_same_sound(toy: ChatterboxTurbo) -> None:
    arguments: dict[str, Any] = {"latency": "low", "seed": 3, "max_tokens": 40}
    first = joined(list(toy.stream(TEXT, **arguments)))
    assert first.tobytes() == joined(list(toy.stream(TEXT, chunk=0.02, **arguments))).tobytes()
    assert first.tobytes() != joined(list(toy.stream(TEXT, **{**arguments, "seed": 4}))).tobytes()


@pytest.mark.parametrize("plan", ["rust", "rust,t3.sampler=python", "python,watermark=rust"])
def test_any_plan_speaks(toy: ChatterboxTurbo, plan: str) -> None:
    if "python," in plan and (reason := registry.missing("t3.decoder", "python")):
        pytest.skip(reason)
    arguments: dict[str, Any] = {"latency": "low", "seed": 3, "max_tokens": 40, "watermark": None}
    expected = joined(list(toy.stream(TEXT, **arguments)))
    assert np.abs(joined(list(toy.stream(TEXT, backends=plan, **arguments))) - expected).max() < 0.05


@pytest.mark.parametrize("stage", ["t3", "s3gen.encoder", "s3gen.flow", "s3gen.vocoder", "watermark"])
def test_an_event_cancels_within_half_a_second(toy: ChatterboxTurbo, stage: str) -> None:
    cancel, set_at = threading.Event(), []

    def watch(at: str, done: int, total: int) -> None:
        if at == stage and not set_at:
            set_at.append(time.perf_counter())
            cancel.set()

    with pytest.raises(CancelledError):
        list(toy.stream(TEXT, latency="low", seed=3, max_tokens=900, progress=watch, cancel=cancel))
    assert time.perf_counter() - set_at[0] < 0.5


def test_closing_stops_the_work(toy: ChatterboxTurbo) -> None:
    drawn: list[int] = []
    chunks = toy.stream(TEXT, latency="low", seed=3, max_tokens=900, progress=lambda stage, done, _: drawn.append(done))
    next(chunks)
    chunks.close()
    assert max(drawn) < 800
    reports = len(drawn)
    time.sleep(0.2)
    assert len(drawn) == reports


PROMPT = 50
"""Tokens of the reference in what follows."""


class Played:
    """In place of the model: what is heard is a tone whose frequency and size are those of the mel, which knows where it stands.

    ``drift``: by how much a render differs from the one before.
    """

    def __init__(self, toy: ChatterboxTurbo, drift: float = 0.0) -> None:
        self.config, self.drift, self.renders, self.longest = toy.config, drift, 0, 0
        self.fade, self.callback = np.ones(2 * HOP, np.float32), None

    def steps(self, *_: Any) -> Iterator[int]:
        yield from (7 + i if i % 5 else 6561 for i in range(self.count * 5 // 4 + 1))  # every fifth is no speech
        yield 6562

    def spoken(self, count: int) -> tuple[np.ndarray, list[int]]:
        """The sound of about ``count`` tokens, and the frames that came at a time."""
        self.count = count
        ids = np.arange(PROMPT)
        voice = Voice(np.ones(4, np.float32), ids, ids, self.frames(-2 * PROMPT, 0), np.ones(4, np.float32))
        parts = list(low_latency.sound(self, self, voice, Text("", "", ids), GenerationOptions(seed=1, watermark=None)))  # type: ignore[arg-type]
        assert [reason for _, reason in parts] == [None] * (len(parts) - 1) + ["stop"]
        return np.concatenate([part for part, _ in parts]), [len(part) // HOP for part, _ in parts]

    @staticmethod
    def frames(first: int, end: int) -> np.ndarray:
        """The mel of an absolute position, 0 being where the reference ends."""
        at = np.arange(first, end)
        mel = np.zeros((len(at), 80), np.float32)
        mel[:, 0], mel[:, 1], mel[:, 2] = 150 + 50 * np.sin(at / 9), 0.4 + 0.2 * np.sin(at / 15), at
        return mel

    def __call__(self, key: str, *arguments: np.ndarray) -> np.ndarray:
        if key == "s3gen.encoder":
            return np.repeat(arguments[0][:, None].astype(np.float32), 2, axis=0)
        assert key == "s3gen.flow"
        mu, _, prompt, noise = arguments
        self.renders, self.longest = self.renders + 1, max(self.longest, len(mu))
        at = noise[:, 0].astype(int) - 2 * PROMPT
        assert len(mu) == len(noise) and (np.diff(at) == 1).all()
        np.testing.assert_array_equal(prompt[:, 2], at[: len(prompt)], err_msg="the prompt's noise is that of its position")
        mel = self.frames(at[len(prompt)], at[-1] + 1)
        mel[:, :2] += self.drift * (-1) ** self.renders * np.array([5, 0.1], np.float32)
        return mel

    def normals(self, key: str, seed: int, stream: str, rows: int, cols: int, first: int = 0) -> np.ndarray:
        if stream == draws.FLOW:
            return np.repeat(np.arange(first, first + rows, dtype=np.float32)[:, None], cols, axis=1)
        return np.zeros((rows, cols), np.float32)

    def clocked(self, key: str) -> Any:
        return self

    def f0(self, mel: np.ndarray) -> np.ndarray:
        return mel[:, 0].copy()

    def source(self, f0: np.ndarray, phases: np.ndarray, noise: np.ndarray) -> np.ndarray:
        assert len(noise) == HOP * len(f0)
        return np.sin(2 * np.pi * np.cumsum(np.repeat(f0, HOP).astype(float)) / 24_000).astype(np.float32)

    def samples_from_source(self, mel: np.ndarray, source: np.ndarray, callback: Any = None) -> np.ndarray:
        size = np.interp(np.arange(len(source)) / HOP, np.arange(len(mel)), mel[:, 1])
        return (source * size).astype(np.float32)


COUNTS = [*range(60), 99, 100, 101, 102, 103, 104, 105, 150, 199, 202, 203, 204, 303, 410]


def test_every_frame_is_heard_once_where_it_belongs(toy: ChatterboxTurbo) -> None:
    """Renders that agree give the sound of one piece."""
    for count in COUNTS:
        played = Played(toy)
        found, frames = played.spoken(count)
        mel = Played.frames(0, sum(frames))
        assert sum(frames) == 2 * (count + 3)
        assert np.abs(found - played.samples_from_source(mel, played.source(mel[:, 0], *[np.zeros(len(found))] * 2))).max() < 1e-5
        marks = [mark for mark in (10, 25, 50, 100, 200, 300, 400) if count >= mark + 3]
        assert np.cumsum(frames[:-1]).tolist() == [2 * mark - 8 for mark in marks]
        assert played.longest < 320, "renders grow"


def clicks(samples: np.ndarray) -> float:
    """The largest second difference, of the largest that a tone of 300 Hz and 0.8 has."""
    return float(np.abs(np.diff(samples, 2)).max() / (0.8 * (2 * np.pi * 300 / 24_000) ** 2))


def test_nothing_clicks_where_renders_meet(toy: ChatterboxTurbo, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = Played(toy, drift=1).spoken(250)
    assert clicks(found) < 1
    with monkeypatch.context() as patched:
        patched.setattr(low_latency, "faded", lambda old, new: new)
        found, _ = Played(toy, drift=1).spoken(250)
        assert clicks(found) > 3, "the test does not hear clicks"
