"""Many texts, one result at a time: those of ``generate_many``, with nothing kept, and nothing running on when nobody asks."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from toy_model import TOY

from chatterbox_turbo_rs import ChatterboxTurbo, Speech
from chatterbox_turbo_rs.engine import batch, hand_over
from chatterbox_turbo_rs.errors import ArgumentError, BatchError, CancelledError, FileError, InternalError, TextError

TEXTS = ["Hello there.", "Good [laugh] morning to you all.", "One, two, three.", "And so on.", "Yes?", "No!", "The end of it."]
SHORT: dict[str, Any] = {"max_tokens": 24, "watermark": None}
LONE_SURROGATE = "a\udcffb"
PLANS = ["rust", "rust,t3.sampler=python"]


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "chatterbox-turbo-rs"}


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    assert not threads()
    yield
    gc.collect()
    assert not threads()


@pytest.mark.parametrize("plan", PLANS)
def test_results_are_those_of_generate_many(toy: ChatterboxTurbo, clip: Any, plan: str) -> None:
    voices = [clip, None, clip, None, None, None, None]
    order: list[int] = []
    options = {"seeds": 3, "batch": 2, "backends": plan, **SHORT}
    expected = toy.generate_many(TEXTS, voices, finished=lambda index, result: order.append(index), **options)
    found = list(toy.iter_many(TEXTS, voices, **options))
    assert [index for index, _ in found] == order
    for index, speech in found:
        assert speech.samples.tobytes() == expected[index].samples.tobytes() and speech.seed == 3 + index


def test_windows_change_nothing(toy: ChatterboxTurbo, clip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts are begun some at a time: here 2, 2, 2 and 1 of 7."""
    voices = [clip, None, clip, None, None, None, None]
    expected = toy.generate_many([*TEXTS[:6], LONE_SURROGATE], voices, 3, errors="return", **SHORT)
    monkeypatch.setattr(batch, "WINDOW", 1)
    reports: list[tuple[str, int, int]] = []
    options: dict[str, Any] = {"batch": 2, "errors": "return", "progress": lambda *report: reports.append(report), **SHORT}
    found = toy.generate_many([*TEXTS[:6], LONE_SURROGATE], voices, 3, **options)
    assert isinstance(found[6], TextError)
    assert [s.samples.tobytes() for s in found[:6]] == [s.samples.tobytes() for s in expected[:6]]  # type: ignore[union-attr]
    t3 = [report[1:] for report in reports if report[0] == "t3"]
    assert [done for done, _ in t3] == sorted(done for done, _ in t3)
    assert t3[-1] == (150, 175), "the last text of the seven turns out not to be spoken"
    assert [done for stage, done, _ in reports if stage == "texts"] == [1, 2, 3, 4, 5, 6, 7]


def test_nothing_is_kept_of_what_was_yielded(toy: ChatterboxTurbo) -> None:
    """At any time there are the one in hand, two that wait and one that is being handed over."""
    alive: weakref.WeakSet[Speech] = weakref.WeakSet()
    usual, most = toy._pipeline.sound, 0
    pipeline = toy._pipeline

    def sound(*arguments: Any) -> Speech:
        speech = usual(*arguments)
        alive.add(speech)
        return speech

    pipeline.sound = sound  # type: ignore[method-assign]
    try:
        for _, speech in toy.iter_many(TEXTS * 4, seeds=3, batch=3, **SHORT):
            assert isinstance(speech, Speech)
            most = max(most, len(alive))
        iteration = toy.iter_many(TEXTS[:1], seeds=3, **SHORT)
        taken = [weakref.ref(next(iteration)[1])]
        assert taken[0]() is None, "the generator holds what it yielded"
        iteration.close()
    finally:
        del pipeline.sound
    assert most <= hand_over.AHEAD + 2


def test_nothing_begins_before_it_is_asked_for(toy: ChatterboxTurbo) -> None:
    begun: list[Any] = []
    iteration = toy.iter_many(TEXTS, progress=lambda *report: begun.append(report), **SHORT)
    del iteration
    assert not begun and not threads()


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("how", ["close", "drop", "break"])
def test_closing_stops_the_work(toy: ChatterboxTurbo, plan: str, how: str) -> None:
    begun: list[Any] = []
    options: dict[str, Any] = {
        "seeds": 3,
        "batch": 2,
        "backends": plan,
        "progress": lambda *report: begun.append(report),
        **SHORT,
    }
    iteration = toy.iter_many(TEXTS * 30, **options)
    next(iteration)
    if how == "close":
        iteration.close()
    elif how == "drop":
        del iteration
    else:
        for _ in iteration:
            break
        del iteration
    gc.collect()
    assert not threads()
    finished = sum(report[0] == "texts" for report in begun)
    assert finished < 20
    reports = len(begun)
    time.sleep(0.2)
    assert len(begun) == reports


def test_an_error_of_a_text(toy: ChatterboxTurbo, tmp_path: Any) -> None:
    texts = ["One.", LONE_SURROGATE, "Three."]
    found = dict(toy.iter_many(texts, seeds=3, errors="return", **SHORT))
    assert [type(found[index]) for index in range(3)] == [Speech, TextError, Speech]
    with pytest.raises(BatchError, match=r"^texts\[1\]: text: .*U\+DCFF") as caught:
        list(toy.iter_many(texts, seeds=3, **SHORT))
    assert isinstance(caught.value.__cause__, TextError)
    with pytest.raises(FileError, match=r"absent\.wav"):
        next(toy.iter_many(texts, tmp_path / "absent.wav", errors="return"))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("Hello.",), {}, "texts: expected several texts"),
        ((["a", 3],), {}, r"texts\[1\]: expected str, got int"),
        ((["a"], [None, None]), {}, "voices: expected one for each of 1 texts, got 2"),
        ((["a"], None, -1), {}, "seeds: expected a whole number"),
        ((["a"],), {"batch": 0}, "batch: expected a whole number from 1 to 1024, got 0"),
        ((["a"],), {"errors": "ignore"}, "errors: expected 'raise', 'return', got 'ignore'"),
        ((["a"],), {"top_p": -1}, "top_p: expected"),
        ((["a"],), {"progress": 3}, "progress: expected"),
        ((["a"],), {"cancel": 3}, "cancel: expected"),
    ],
)
def test_arguments_are_checked_by_the_call_itself(toy: ChatterboxTurbo, arguments: Any, options: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        toy.iter_many(*arguments, **options)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("stage", ["text.tokenize", "t3", "s3gen.flow", "texts"])
def test_what_a_callback_raises_comes_out_as_it_is(toy: ChatterboxTurbo, stage: str, plan: str) -> None:
    for raised in (ArgumentError("mine"), KeyboardInterrupt(), ZeroDivisionError()):

        def fail(at: str, done: int, total: int, raised: BaseException = raised) -> None:
            if at == stage:
                raise raised

        with pytest.raises(type(raised)) as caught:
            list(toy.iter_many(TEXTS[:3], seeds=3, progress=fail, errors="return", backends=plan, **SHORT))
        assert caught.value is raised


def test_an_event_stops_it(toy: ChatterboxTurbo) -> None:
    cancel = threading.Event()
    iteration = toy.iter_many(TEXTS * 30, seeds=3, cancel=cancel, **SHORT)
    next(iteration)
    cancel.set()
    with pytest.raises(CancelledError):
        list(iteration)


def test_no_texts(toy: ChatterboxTurbo) -> None:
    assert list(toy.iter_many([])) == []


PROGRAM = """
import os, signal, sys, threading, time
from chatterbox_turbo_rs import ChatterboxTurbo
tts = ChatterboxTurbo.from_pretrained({toy!r})
iteration = tts.iter_many(["This will be spoken for a while."] * 200, seeds=3, watermark=None, max_tokens=100)
next(iteration)
{rest}
"""


def run(rest: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(toy=TOY, rest=rest)], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_program_ends_in_the_middle() -> None:
    result = run("print('over')")
    assert (result.returncode, result.stdout) == (0, "over\n"), result.stderr


def test_ctrl_c_while_a_result_is_waited_for() -> None:
    result = run(
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "try:\n    list(iteration)\nexcept KeyboardInterrupt:\n    print('interrupted', threading.active_count())"
    )
    assert (result.returncode, result.stdout.split()[0]) == (0, "interrupted"), result.stderr


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this system has no fork")
def test_a_forked_child_is_told_that_the_thread_stayed_behind() -> None:
    result = run(
        "child = os.fork()\n"
        "if not child:\n"
        "    try:\n        list(iteration)\n"
        "    except Exception as error:\n        print(type(error).__name__, flush=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "iteration.close()"
    )
    assert (result.returncode, result.stdout) == (0, f"{InternalError.__name__}\n"), result.stderr


def test_a_generator_of_texts_and_arrays_of_seeds(toy: ChatterboxTurbo) -> None:
    found = dict(toy.iter_many((text for text in TEXTS[:3]), seeds=np.array([5, 4, 3]), **SHORT))
    assert [found[index].seed for index in range(3)] == [5, 4, 3]
