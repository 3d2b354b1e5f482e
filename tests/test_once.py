"""Stages, voices and what can run are found out once, and nobody waits for what he did not ask for."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import threading
from typing import Any

import pytest
from toy_model import TOY

from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.engine import registry
from chatterbox_turbo_rs.engine.once import Once
from chatterbox_turbo_rs.errors import BackendError
from chatterbox_turbo_rs.stages.shared.lock import Lock

SHORT: dict[str, Any] = {"max_tokens": 4, "watermark": None}


def test_a_value_is_made_once_for_all_who_ask() -> None:
    once: Once[object] = Once()
    made, begun, go = [], threading.Event(), threading.Event()

    def make() -> object:
        begun.set()
        assert go.wait(30)
        made.append(object())
        return made[-1]

    found: list[object] = []
    askers = [threading.Thread(target=lambda: found.append(once.get("a", make))) for _ in range(4)]
    for asker in askers:
        asker.start()
    assert begun.wait(30)
    assert once.get("b", lambda: 7) == 7, "another key waits for nobody"
    go.set()
    for asker in askers:
        asker.join(30)
    assert len(made) == 1 and found == made * 4


def test_an_error_is_that_of_its_maker() -> None:
    once: Once[int] = Once()

    def fail() -> int:
        raise BackendError("no")

    for _ in range(2):
        with pytest.raises(BackendError):
            once.get("a", fail)
    assert once.get("a", lambda: 3) == 3 and once.get("a", fail) == 3
    assert not once._making


def test_whoever_waited_for_a_maker_that_failed_makes_it() -> None:
    once: Once[int] = Once()
    begun, go, results = threading.Event(), threading.Event(), []

    def fail() -> int:
        begun.set()
        assert go.wait(30)
        raise BackendError("no")

    def first() -> None:
        with pytest.raises(BackendError):
            once.get("a", fail)

    one = threading.Thread(target=first)
    one.start()
    assert begun.wait(30)
    other = threading.Thread(target=lambda: results.append(once.get("a", lambda: 5)))
    other.start()
    go.set()
    one.join(30)
    other.join(30)
    assert results == [5]


def test_the_value_that_was_not_asked_for_the_longest_goes() -> None:
    once: Once[int] = Once(2)
    for key, value in (("a", 1), ("b", 2), ("a", 0), ("c", 3)):
        once.get(key, lambda value=value: value)  # type: ignore[misc]
    assert dict(once.values) == {"a": 1, "c": 3}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_makes_what_another_thread_was_making_at_the_fork() -> None:
    once: Once[int] = Once()
    begun, go = threading.Event(), threading.Event()

    def slow() -> int:
        begun.set()
        go.wait(30)
        return 1

    maker = threading.Thread(target=lambda: once.get("a", slow))
    maker.start()
    assert begun.wait(30)
    child = os.fork()
    if not child:
        os._exit(once.get("a", lambda: 7))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    go.set()
    maker.join(30)


def test_a_stage_that_is_being_built_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ChatterboxTurbo.from_pretrained(TOY)
    usual, begun, go, outcome = registry.load, threading.Event(), threading.Event(), []

    def load(key: str, implementation: str, resources: Any) -> Any:
        if (key, implementation) == ("t3.sampler", "python"):
            begun.set()
            assert go.wait(60)
        return usual(key, implementation, resources)

    monkeypatch.setattr(registry, "load", load)
    late = threading.Thread(target=lambda: outcome.append(model.generate("Hi.", backends="t3.sampler=python", **SHORT)))
    late.start()
    assert begun.wait(60)
    assert len(model.generate("Hi.", backends="text=python", **SHORT)) and not outcome
    go.set()
    late.join(60)
    assert len(outcome) == 1


def test_a_stage_whose_building_failed_is_built_by_the_next_request(monkeypatch: pytest.MonkeyPatch) -> None:
    model, usual, failed = ChatterboxTurbo.from_pretrained(TOY), registry.load, []

    def load(key: str, implementation: str, resources: Any) -> Any:
        if not failed:
            failed.append(key)
            raise BackendError("not now")
        return usual(key, implementation, resources)

    monkeypatch.setattr(registry, "load", load)
    with pytest.raises(BackendError, match="not now"):
        model.generate("Hi.", **SHORT)
    assert len(model.generate("Hi.", **SHORT)) and failed == ["text.normalize"]


def test_installed_packages_are_not_looked_through_at_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ChatterboxTurbo.from_pretrained(TOY)
    model.generate("Hi.", max_tokens=4)
    looked: list[Any] = []
    usual = importlib.metadata.distributions
    monkeypatch.setattr(importlib.metadata, "distributions", lambda **options: looked.append(options) or usual(**options))
    model.generate("Hi.", max_tokens=4)
    assert looked == []


def test_what_is_installed_while_the_program_runs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons: dict[tuple[str, str], str | None] = {("watermark", "rust"): "not installed"}
    monkeypatch.setattr(registry, "_why_not", lambda key, name: reasons.get((key, name)))
    monkeypatch.setattr(registry, "_RUNS", set())
    with pytest.raises(BackendError, match="not installed"):
        registry.resolve("watermark=rust")
    reasons.clear()
    assert registry.resolve("watermark=rust")["watermark"] == "rust"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_lock_that_a_thread_held_at_a_fork_is_open_in_the_child() -> None:
    lock, held, go = Lock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            go.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(30)
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # whose end is not an exit with 7
        with lock:
            os._exit(7)
    _, status = os.waitpid(child, 0)
    go.set()
    holder.join()
    assert os.waitstatus_to_exitcode(status) == 7
    with lock:
        pass
