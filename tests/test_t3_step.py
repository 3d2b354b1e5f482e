"""T3's step without tensors: the same bits as layer by layer, alone and for many sessions together, on any threads."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chatterbox_turbo_rs import _core
from chatterbox_turbo_rs.checkpoint.resources import Resources
from chatterbox_turbo_rs.errors import ArgumentError

RNG = np.random.default_rng(8)
STEPS = 5
FORCED = RNG.integers(0, 6561, (16, STEPS))


def decoder(directory: Path, precision: str) -> Any:
    resources = Resources(directory, json.loads((directory / "config.json").read_text()), precision=precision)
    return importlib.import_module("chatterbox_turbo_rs.stages.t3.decoder.rust").create(resources)


@pytest.fixture(scope="module", params=["f32", "int8", "int4"])
def precision(request: Any) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def t3(tiny_checkpoint: Path, precision: str) -> Any:
    return decoder(tiny_checkpoint, precision)


def session(t3: Any, row: int, steps: int = STEPS) -> Any:
    """Prompts, texts and so positions differ from row to row, from few rows of a cache's block to many blocks."""
    rng = np.random.default_rng(row)
    speaker = rng.standard_normal(32).astype(np.float32)
    prompt, text = rng.integers(0, 6561, row * 23 % 376), rng.integers(0, 1000, 1 + row * 7 % 50)
    return t3.start(speaker, prompt, text, steps)


def alone(t3: Any, row: int, record: bool = False) -> np.ndarray:
    one = session(t3, row)
    one.prefill()
    rows = []
    for token in FORCED[row]:
        if record:
            _core.taps_begin()
        try:
            rows.append(one.step(int(token)))
        finally:
            if record:
                assert len(_core.taps_end()) > 5
    return np.stack(rows)


@pytest.fixture(scope="module")
def expected(t3: Any) -> list[np.ndarray]:
    return [alone(t3, row) for row in range(16)]


def test_the_bits_are_those_of_the_layers(t3: Any, expected: list[np.ndarray]) -> None:
    """While taps record, a step goes through the layers one by one."""
    for row, logits in enumerate(expected):
        assert (alone(t3, row, record=True) == logits).all(), row


@pytest.mark.parametrize("count", range(1, 17))
def test_many_sessions_give_the_bits_of_each_alone(t3: Any, expected: list[np.ndarray], count: int) -> None:
    rows = RNG.permutation(16)[:count]
    sessions = [session(t3, row) for row in rows]
    for one in sessions:
        one.prefill()
    for step in range(STEPS):
        logits = t3._core.step_many(sessions, FORCED[rows, step])
        assert all((found == expected[row][step]).all() for found, row in zip(logits, rows)), f"{rows} at step {step}"


def test_sessions_come_and_go_between_steps(t3: Any, expected: list[np.ndarray]) -> None:
    """At every step another selection, in another order, some by themselves."""
    sessions, done = [session(t3, row) for row in range(16)], np.zeros(16, int)
    for one in sessions:
        one.prefill()
    while (done < STEPS).any():
        rows = np.flatnonzero((done < STEPS) & (RNG.random(16) < 0.6))
        RNG.shuffle(rows)
        tokens = FORCED[rows, done[rows]]
        logits = t3._core.step_many([sessions[row] for row in rows], tokens)
        if len(rows) == 1:
            assert len(logits) == 1
        assert all((found == expected[row][done[row]]).all() for found, row in zip(logits, rows))
        done[rows] += 1
    assert t3._core.step_many([], np.zeros(0, np.int64)) == []


def test_threads_step_at_the_same_time(t3: Any, expected: list[np.ndarray]) -> None:
    found: dict[int, np.ndarray] = {}
    threads = [threading.Thread(target=lambda row=row: found.update({row: alone(t3, row)})) for row in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 6 and all((found[row] == expected[row]).all() for row in found)


def test_wrong_rows_are_named_and_change_nothing(t3: Any, expected: list[np.ndarray], tiny_checkpoint: Path) -> None:
    sessions = [session(t3, row, 1) for row in range(3)]
    tokens = FORCED[:3, 0].copy()
    with pytest.raises(ArgumentError, match="row 0: step: expected a session after prefill, got one before it"):
        t3._core.step_many(sessions, tokens)
    for one in sessions:
        one.prefill()
    for bad in (6563, -1):
        with pytest.raises(ArgumentError, match=f"row 2: token: expected ids from 0 to 6562, got {bad} at position 0"):
            t3._core.step_many(sessions, np.array([1, 2, bad]))
    with pytest.raises(ArgumentError, match="tokens: expected one for each of 3 sessions, got 2"):
        t3._core.step_many(sessions, tokens[:2])
    with pytest.raises(ArgumentError, match="session: expected one thread at a time"):
        t3._core.step_many([sessions[0], sessions[0]], tokens[:2])
    other = session(decoder(tiny_checkpoint, "f32"), 1)
    other.prefill()
    with pytest.raises(ArgumentError, match="row 1: expected a session of this decoder, got another decoder's"):
        t3._core.step_many([sessions[0], other], tokens[:2])
    logits = t3._core.step_many(sessions, tokens)
    assert all((found == expected[row][0]).all() for row, found in enumerate(logits))
    with pytest.raises(ArgumentError, match="row 1: step: expected at most max_tokens = 1 steps, got one more"):
        t3._core.step_many([session_after(t3, 0), sessions[1]], tokens[:2])


def session_after(t3: Any, row: int) -> Any:
    one = session(t3, row)
    one.prefill()
    return one


PROGRAM = f"""
import hashlib, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_t3_step import FORCED, alone, decoder, session_after
t3, bits = decoder(Path(sys.argv[1]), sys.argv[2]), hashlib.sha256()
for row in (0, 5, 16 - 1):
    bits.update(alone(t3, row).tobytes())
sessions = [session_after(t3, row) for row in range(7)]
for logits in t3._core.step_many(sessions, FORCED[:7, 0]):
    bits.update(logits.tobytes())
print(bits.hexdigest())
"""


def bits(directory: Path, precision: str, **environment: str) -> str:
    command = [sys.executable, "-c", PROGRAM, str(directory), precision]
    result = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_any_number_of_threads_gives_the_same_bits(tiny_checkpoint: Path, precision: str) -> None:
    found = {bits(tiny_checkpoint, precision, RAYON_NUM_THREADS=threads) for threads in ("1", "2", "5")}
    assert len(found) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_steps_with_threads_of_its_own(tiny_checkpoint: Path) -> None:
    """The parent's threads are not in the child; steps do not wait for them."""
    program = (
        PROGRAM
        + """
import os
one = session_after(t3, 3)
child = os.fork()
if child == 0:
    rows = [hashlib.sha256(one.step(int(token)).tobytes()).hexdigest() for token in FORCED[3]]
    assert rows == [hashlib.sha256(row.tobytes()).hexdigest() for row in expected]
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
""".replace("import os\n", "import os\nexpected = alone(t3, 3)\n", 1)
    )
    command = [sys.executable, "-W", "ignore", "-c", program, str(tiny_checkpoint), "int8"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr
