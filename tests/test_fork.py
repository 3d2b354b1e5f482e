"""A forked process works as its parent does: the threads of the core are not there in it, so that it must have its own."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_model import TOY

from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.errors import InternalError

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

TEXT = "Hello there."
LIMIT = 60.0  # seconds, after which a process is taken to wait for ever


def in_child(work: Callable[[], Any]) -> Any:
    """What ``work`` gives in a forked process, which is killed where it does not answer."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            try:
                answer = (True, work())
            except BaseException as error:  # told to the parent, whatever it is
                answer = (False, f"{type(error).__name__}: {error}")
            with os.fdopen(writing, "wb") as file:
                pickle.dump(answer, file)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        answered = bool(select.select([file], [], [], LIMIT)[0])
        data = file.read() if answered else b""
    if not answered:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert answered, (
        f"the forked process did not answer within {LIMIT:.0f} s: it waits for a thread or a lock that it does not have"
    )
    assert data, f"the forked process ended without an answer, status {status}"
    fine, value = pickle.loads(data)
    assert fine, f"the forked process failed: {value}"
    return value


def digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def speak(tts: ChatterboxTurbo, text: str = TEXT) -> str:
    return digest(tts.generate(text, seed=1, max_tokens=12).samples)


def prepare(tts: ChatterboxTurbo, clip: Path) -> str:
    voice = tts.voice(clip)
    return digest(
        voice.speaker_embedding, voice.t3_prompt_tokens, voice.s3gen_prompt_tokens, voice.s3gen_prompt_mel, voice.xvector
    )


WORK: dict[str, Callable[[ChatterboxTurbo, Path], Any]] = {
    "generate": lambda tts, clip: speak(tts),
    "generate_many": lambda tts, clip: [
        digest(s.samples) for s in tts.generate_many([TEXT, "Good morning."], seeds=1, max_tokens=8)
    ],
    "voice": prepare,
    "detect_watermark": lambda tts, clip: tts.detect_watermark(tts.generate(TEXT, seed=1, max_tokens=12).samples),
    "load": lambda tts, clip: speak(ChatterboxTurbo.from_pretrained(TOY, precision="f32")),
    "load, 8 bits": lambda tts, clip: speak(ChatterboxTurbo.from_pretrained(TOY, precision="int8")),
    "load, 4 bits": lambda tts, clip: speak(ChatterboxTurbo.from_pretrained(TOY, precision="int4")),
}


@pytest.mark.parametrize("name", WORK)
def test_a_child_does_what_its_parent_did(toy: ChatterboxTurbo, clip: Path, name: str) -> None:
    expected = WORK[name](toy, clip)
    assert in_child(lambda: WORK[name](toy, clip)) == expected
    assert WORK[name](toy, clip) == expected


def test_a_child_is_told_that_the_threads_of_a_batch_stayed_behind(toy: ChatterboxTurbo) -> None:
    with toy.open_batch(2) as batch:
        chunks = batch.stream("word " * 60, seed=1, max_tokens=12)
        next(chunks)

        def child() -> list[str]:
            told = []
            for work in (lambda: list(chunks), lambda: batch.submit(TEXT, print), batch.close):
                try:
                    work()
                except InternalError as error:
                    told.append(str(error))
            return told

        assert in_child(child) == ["the batch's threads are gone: a process that forks does not take them along"] * 2
        assert list(chunks)[-1].final


def test_a_child_of_a_child(toy: ChatterboxTurbo) -> None:
    expected = speak(toy)

    def child() -> tuple[str, str]:
        return speak(toy), in_child(lambda: speak(toy))

    assert in_child(child) == (expected, expected)


def test_a_child_reads_the_number_of_threads_anew(toy: ChatterboxTurbo, monkeypatch: pytest.MonkeyPatch) -> None:
    from chatterbox_turbo_rs import _core

    expected = speak(toy)
    for threads in (1, 3):
        monkeypatch.setenv("RAYON_NUM_THREADS", str(threads))
        assert in_child(lambda: (_core.build_info()["threads"], speak(toy))) == (threads, expected)


@pytest.mark.parametrize("method", ["os.fork", "Pool", "ProcessPoolExecutor"])
def test_a_model_that_is_loaded_after_the_fork_alone(toy: ChatterboxTurbo, method: str) -> None:
    """In the parent nothing but the import has happened."""
    start = {
        "os.fork": "child = os.fork()\nif child == 0:\n    print(speak(), flush=True); os._exit(0)\nos.waitpid(child, 0)",
        "Pool": "with get_context('fork').Pool(1) as pool:\n    print(pool.apply(speak))",
        "ProcessPoolExecutor": "with ProcessPoolExecutor(1, mp_context=get_context('fork')) as pool:\n    print(pool.submit(speak).result())",
    }[method]
    program = f"""
import hashlib, os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from chatterbox_turbo_rs import ChatterboxTurbo

def speak():
    tts = ChatterboxTurbo.from_pretrained({TOY!r}, precision="f32")
    return hashlib.sha256(tts.generate({TEXT!r}, seed=1, max_tokens=12).samples.tobytes()).hexdigest()

{start}
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=2 * LIMIT)
    assert (done.returncode, done.stdout.split()) == (0, [speak(toy)]), done.stderr


MODEL: list[ChatterboxTurbo] = []  # what the functions below find in a forked process


def speak_there(text: str) -> tuple[int, str]:
    return os.getpid(), speak(MODEL[0], text)


@pytest.fixture
def texts(toy: ChatterboxTurbo) -> Any:
    """Texts and what the parent makes of them; children that are left over are killed."""
    MODEL[:] = [toy]
    yield {text: speak(toy, text) for text in (TEXT, "Good morning.", "See you.")}
    MODEL.clear()
    for child in multiprocessing.active_children():
        child.kill()
        child.join()


def test_multiprocessing(texts: dict[str, str]) -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        answers = pool.map_async(speak_there, texts).get(LIMIT)
    assert [answer for _, answer in answers] == list(texts.values())
    assert os.getpid() not in {process for process, _ in answers}


def test_process_pool_executor(texts: dict[str, str]) -> None:
    pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork"))
    answers = [future.result(LIMIT) for future in [pool.submit(speak_there, text) for text in texts]]
    pool.shutdown(wait=False)
    assert [answer for _, answer in answers] == list(texts.values())
    assert os.getpid() not in {process for process, _ in answers}


SERVER = """
import hashlib, json, os, socket, sys
from chatterbox_turbo_rs import ChatterboxTurbo

def speak(text):
    return hashlib.sha256(tts.generate(text, seed=1, max_tokens=12).samples.tobytes()).hexdigest()

tts = ChatterboxTurbo.from_pretrained(sys.argv[1], precision="f32")
listener = socket.create_server(("127.0.0.1", 0))
workers = []
for _ in range(2):
    worker = os.fork()
    if worker == 0:  # answers one request
        connection, _ = listener.accept()
        with connection, connection.makefile("rw") as stream:
            stream.write(json.dumps([os.getpid(), speak(stream.readline().strip())]) + "\\n")
        os._exit(0)
    workers.append(worker)
print(json.dumps([listener.getsockname()[1], workers, speak("Hello there.")]), flush=True)
for worker in workers:
    os.waitpid(worker, 0)
"""


def test_a_server_that_forks_its_workers(toy: ChatterboxTurbo) -> None:
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SERVER, TOY], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert server.stdout is not None and select.select([server.stdout], [], [], LIMIT)[0], "the server does not start"
        port, workers, spoken = json.loads(server.stdout.readline())
        answers = {}
        for _ in workers:
            with socket.create_connection(("127.0.0.1", port), LIMIT) as connection, connection.makefile("rw") as stream:
                stream.write(TEXT + "\n")
                stream.flush()
                worker, answer = json.loads(stream.readline())
                answers[worker] = answer
        assert server.wait(LIMIT) == 0
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    assert answers == dict.fromkeys(workers, speak(toy)) and spoken == speak(toy)


def test_a_fork_while_other_threads_work(toy: ChatterboxTurbo, clip: Path) -> None:
    expected, over = speak(toy), threading.Event()

    def go_on(work: Callable[[], Any]) -> None:
        while not over.is_set():
            work()

    works = [lambda: speak(toy), lambda: toy.generate_many([TEXT, TEXT], seeds=1, max_tokens=8), lambda: prepare(toy, clip)]
    threads = [threading.Thread(target=go_on, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    try:
        for fork in range(8):
            time.sleep(0.013 * fork)
            assert in_child(lambda: speak(toy)) == expected
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_fork_inside_a_callback(toy: ChatterboxTurbo) -> None:
    answers: list[str] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "s3gen.flow" and not answers:
            answers.append(in_child(lambda: speak(toy)))

    expected = speak(toy)
    speech = toy.generate(TEXT, seed=1, max_tokens=12, progress=progress)
    assert (answers, digest(speech.samples)) == ([expected], expected)


def test_ctrl_c_ends_a_child(toy: ChatterboxTurbo) -> None:
    speak(toy)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.write(writing, b"!")
            while True:
                toy.generate(TEXT, seed=1, max_tokens=200)
        except KeyboardInterrupt:
            os._exit(42)
        finally:
            os._exit(1)
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)
    time.sleep(0.5)
    os.kill(child, signal.SIGINT)
    until, ended = time.monotonic() + LIMIT, (0, 0)
    while not ended[0] and time.monotonic() < until:
        time.sleep(0.05)
        ended = os.waitpid(child, os.WNOHANG)
    if not ended[0]:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended[0], "Ctrl-C does not end the forked process"
    assert os.waitstatus_to_exitcode(ended[1]) == 42


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the names of threads are read from /proc")
def test_no_work_is_given_to_threads_that_a_child_could_not_have(clip: Path) -> None:
    """Pools of libraries cannot be had again after a fork, so that nothing may start one."""
    program = f"""
import os
from pathlib import Path
from chatterbox_turbo_rs import ChatterboxTurbo, _core

for precision in ("f32", "int8", "bf16", "int8+bf16", "int4"):
    tts = ChatterboxTurbo.from_pretrained({TOY!r}, precision=precision)
    voice = tts.voice({str(clip)!r})
    speech = tts.generate({TEXT!r}, voice=voice, seed=1, max_tokens=60)
    tts.generate_many([{TEXT!r}, {TEXT!r}], voice, seeds=1, max_tokens=8)
    tts.detect_watermark(speech.samples)
_core.memory_read_rate()
names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir() if task.name != str(os.getpid())]
print(*sorted(names), sep="\\n")
"""
    alone = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    environment = os.environ | alone | {"RAYON_NUM_THREADS": "3"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=2 * LIMIT, env=environment)
    names = ["chatterbox-0", "chatterbox-1", "chatterbox-2", "chatterbox-step", "chatterbox-step"]
    assert (done.returncode, done.stdout.split()) == (0, names), done.stderr
