"""A voice's prefix in T3: prefilling behind it gives the same bits, it is computed once, and it goes with its voice or its decoder."""

from __future__ import annotations

import copy
import dataclasses
import gc
import importlib
import json
import pickle
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chatterbox_turbo_rs import ChatterboxTurbo, _core
from chatterbox_turbo_rs.checkpoint.resources import Resources
from chatterbox_turbo_rs.errors import ArgumentError
from chatterbox_turbo_rs.voice import Voice

GOLDEN = np.load(Path(__file__).parent / "goldens/t3_decoder.npz")
SPEAKER, PROMPT, TEXT = GOLDEN["speaker"], GOLDEN["prompt"], GOLDEN["text"]
FORCED = GOLDEN["forced"][:6]
TEXTS = [TEXT, TEXT[:1], np.resize(TEXT[::-1], 70)]


def decoder(directory: Path, precision: str) -> Any:
    resources = Resources(directory, json.loads((directory / "config.json").read_text()), precision=precision)
    return importlib.import_module("chatterbox_turbo_rs.stages.t3.decoder.rust").create(resources)


@pytest.fixture(scope="module", params=["f32", "int8", "int4"])
def t3(request: Any, tiny_checkpoint: Path) -> Any:
    return decoder(tiny_checkpoint, request.param)


def run(session: Any) -> np.ndarray:
    return np.stack([session.prefill(), *(session.step(int(token)) for token in FORCED)])


@pytest.mark.parametrize("rows", [0, 1, 15, 16, 40, 375])
def test_a_known_prefix_gives_the_same_bits(t3: Any, rows: int) -> None:
    prompt = np.resize(PROMPT, rows)
    prefix = t3.prefix(SPEAKER, prompt)
    for text in TEXTS:
        expected = run(t3.start(SPEAKER, prompt, text, len(FORCED)))
        for _ in range(2):
            assert (run(t3.start_from(prefix, text, len(FORCED))) == expected).all()


def test_a_known_prefix_is_not_computed_again(t3: Any) -> None:
    """376 positions and 2, or 2 alone."""
    prompt = np.resize(PROMPT, 375)
    known = t3.prefix(SPEAKER, prompt)
    t3.start_from(known, TEXT[:1], 1).prefill()
    seen: list[tuple[str, int, int]] = []

    def seconds(prefix: Any) -> float:
        session, started = t3.start_from(prefix, TEXT[:1], 1), time.perf_counter()
        session.prefill(lambda *report: seen.append(report))
        return time.perf_counter() - started

    new = min(seconds(t3.prefix(SPEAKER, prompt)) for _ in range(5))
    assert min(seconds(known) for _ in range(5)) < new / 2
    assert seen[-1] == ("t3.prefill", 3, 3), "progress counts the blocks either way"


def test_a_cancelled_prefill_leaves_no_half_of_a_prefix(t3: Any) -> None:
    prefix = t3.prefix(SPEAKER, PROMPT)

    def stop(stage: str, done: int, total: int) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        t3.start_from(prefix, TEXT, len(FORCED)).prefill(stop)
    assert prefix.nbytes == 0
    assert (run(t3.start_from(prefix, TEXT, len(FORCED))) == run(t3.start(SPEAKER, PROMPT, TEXT, len(FORCED)))).all()


def test_sessions_of_one_prefix_do_not_disturb_each_other(t3: Any) -> None:
    expected = [run(t3.start(SPEAKER, PROMPT, text, len(FORCED))) for text in TEXTS]
    prefix, found = t3.prefix(SPEAKER, PROMPT), {}

    def work(name: int) -> None:
        found[name] = [run(t3.start_from(prefix, text, len(FORCED))) for text in TEXTS]

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all((logits == wanted).all() for rows in found.values() for logits, wanted in zip(rows, expected))
    sessions = [t3.start_from(prefix, text, len(FORCED)) for text in TEXTS]
    rows = [[session.prefill()] for session in sessions]
    for token in FORCED:
        for session, row in zip(sessions, rows):
            row.append(session.step(int(token)))
    assert all((np.stack(row) == wanted).all() for row, wanted in zip(rows, expected))


def test_taps_show_the_whole_prefill_behind_a_known_prefix_too(t3: Any) -> None:
    def taps(session: Any) -> list[tuple[str, np.ndarray]]:
        _core.taps_begin()
        try:
            run(session)
        finally:
            recorded = _core.taps_end()
        return recorded

    prefix = t3.prefix(SPEAKER, PROMPT)
    expected = taps(t3.start(SPEAKER, PROMPT, TEXT, len(FORCED)))
    t3.start_from(prefix, TEXT, 0).prefill()
    found = taps(t3.start_from(prefix, TEXT, len(FORCED)))
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(found, expected))
    assert dict(found)["tfmr.h.0.in#1"].shape[0] == 2 + len(PROMPT) + len(TEXT)


def test_bytes_are_those_of_the_positions(t3: Any) -> None:
    prefix = t3.prefix(SPEAKER, np.resize(PROMPT, 31))
    t3.start_from(prefix, TEXT, 0).prefill()
    assert prefix.nbytes in [3 * 2 * 32 * 32 * size for size in (2, 4)]


def test_bad_input_is_refused(t3: Any, tiny_checkpoint: Path) -> None:
    with pytest.raises(ArgumentError, match="speaker_embedding: expected 32 numbers, got 31"):
        t3.prefix(SPEAKER[:31], PROMPT)
    with pytest.raises(ArgumentError, match="prompt_tokens: expected ids from 0 to 6562, got 6563 at position 0"):
        t3.prefix(SPEAKER, np.array([6563]))
    prefix = t3.prefix(SPEAKER, PROMPT)
    with pytest.raises(ArgumentError, match="text_ids: expected at least 1 id, got none"):
        t3.start_from(prefix, np.zeros(0, np.int64), 1)
    with pytest.raises(ArgumentError, match="expected at most 2500 positions"):
        t3.start_from(prefix, TEXT, 2500)
    with pytest.raises(ArgumentError, match="prefix: expected one that this decoder made, got another decoder's"):
        decoder(tiny_checkpoint, "f32").start_from(prefix, TEXT, 1)


@pytest.fixture
def voice(goldens: Path) -> Voice:
    return Voice.load(goldens / "conds_fresh.pt")


def test_a_voice_keeps_its_prefix_and_nothing_else_of_it_changes(toy: ChatterboxTurbo) -> None:
    t3 = toy._pipeline.stage("t3.decoder", "rust")
    voice = toy.builtin_voice
    assert voice is not None
    other = dataclasses.replace(voice)
    first = toy.generate("Hello there.", voice=other, seed=3, max_tokens=20, backends="rust")
    prefix = t3.prefix_of(other)
    assert prefix is t3.prefix_of(other) and prefix.nbytes > 0 and prefix is not t3.prefix_of(voice)
    again = toy.generate("Hello there.", voice=other, seed=3, max_tokens=20, backends="rust")
    fresh = toy.generate("Hello there.", voice=dataclasses.replace(voice), seed=3, max_tokens=20, backends="rust")
    assert first.samples.tobytes() == again.samples.tobytes() == fresh.samples.tobytes()
    assert vars(other).keys() == vars(voice).keys() == {field.name for field in dataclasses.fields(Voice)}
    for copied in (copy.copy(other), pickle.loads(pickle.dumps(other))):
        assert t3.prefix_of(copied) is not prefix


def test_the_memory_goes_with_the_voice_and_with_the_decoder(tiny_checkpoint: Path, voice: Voice) -> None:
    made: list[weakref.ref[Any]] = []

    class Handle:
        pass

    def make(*inputs: np.ndarray) -> Any:
        handle = Handle()
        made.append(weakref.ref(handle))
        return handle

    prefixes = importlib.import_module("chatterbox_turbo_rs.stages.t3.decoder.prefixes")
    one, two = prefixes.Prefixes(make), prefixes.Prefixes(make)
    short = dataclasses.replace(voice)
    one.of(short), one.of(voice), two.of(voice)
    assert len(made) == 3 and all(reference() is not None for reference in made)
    del short
    gc.collect()
    assert [reference() is None for reference in made] == [True, False, False]
    del one
    gc.collect()
    assert [reference() is None for reference in made] == [True, True, False]


def test_a_prefix_does_not_keep_its_decoder(tiny_checkpoint: Path) -> None:
    t3 = decoder(tiny_checkpoint, "f32")
    prefix = t3.prefix(SPEAKER, PROMPT)
    session = t3.start_from(prefix, TEXT, 1)
    del t3
    assert np.isfinite(session.prefill()).all() and prefix.nbytes > 0, "a session keeps what it needs"
