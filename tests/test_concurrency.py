"""Threads, progress, cancelling and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from toy_model import TOY

from chatterbox_turbo_rs.errors import CancelledError

LONG = {"seed": 3, "max_tokens": 400}


class Counter(threading.Thread):
    """Counts in pure Python, which needs the GIL, until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.count = 0
        self.stopped = False

    def run(self) -> None:
        while not self.stopped:
            self.count += 1


def counted(work) -> tuple[float, float]:
    """Counts a second and seconds while ``work()`` runs."""
    counter = Counter()
    counter.start()
    while counter.count == 0:
        time.sleep(0.001)
    before, started = counter.count, time.perf_counter()
    work()
    taken = time.perf_counter() - started
    rate = (counter.count - before) / taken
    counter.stopped = True
    counter.join()
    return rate, taken


@pytest.mark.parametrize("work", ["generate", "voice"])
def test_other_python_threads_run_meanwhile(toy, clip, work):
    """With the GIL held the share would be that of the short Python parts: next to nothing."""
    calls = {
        "generate": lambda: toy.generate("Hello there.", seed=3, max_tokens=250, backends="rust"),
        "voice": lambda: toy.voice(clip, backends="rust"),
    }
    calls[work]()  # stages that are built on first use are built
    shares = []
    for _ in range(4):  # the machine may be busy with other things
        busy, _ = counted(calls[work])
        alone, _ = counted(lambda: time.sleep(0.2))
        shares.append(busy / alone)
        if shares[-1] > 0.3:
            return
    pytest.fail(f"share of its solo speed that a Python thread got: {shares}")


def test_threads_that_share_a_model_get_what_one_thread_gets(toy, clip):
    texts = ["Hello there.", "Good [laugh] morning.", "One, two, three.", "And so on."]

    def speak(index: int) -> bytes:
        voice = toy.voice(clip) if index == 0 else None
        return toy.generate(texts[index], voice=voice, seed=index, max_tokens=30).samples.tobytes()

    expected = [speak(index) for index in range(4)]
    found: dict[int, bytes] = {}
    threads = [threading.Thread(target=lambda index=index: found.update({index: speak(index)})) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [found.get(index) for index in range(4)] == expected


@pytest.mark.parametrize("stage", ["t3", "s3gen.flow", "s3gen.vocoder", "watermark"])
def test_an_event_cancels_within_half_a_second(toy, stage):
    cancel, reached, result = threading.Event(), threading.Event(), []

    def watch(at: str, done: int, total: int) -> None:
        if at == stage:
            reached.set()

    def work() -> None:
        try:
            result.append(toy.generate("Hello there.", **LONG, progress=watch, cancel=cancel, backends="rust"))
        except CancelledError as error:
            result.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert reached.wait(30)
    started = time.perf_counter()
    cancel.set()
    thread.join(30)
    assert isinstance(result[0], CancelledError), "it was not cancelled"
    assert time.perf_counter() - started < 0.5


def test_an_event_cancels_a_voice(toy, clip):
    cancel = threading.Event()
    cancel.set()
    for backends in ("rust", "reference=python,s3tokenizer.mel=python,speaker_encoder.fbank=python,voice_encoder.mel=python"):
        with pytest.raises(CancelledError, match=r"cancelled during reference\.load"):
            toy.voice(clip, cancel=cancel, backends=backends)


def test_an_event_that_is_set_before_the_work_stops_it_at_once(toy):
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(CancelledError, match=r"cancelled during text\.normalize \(0 of 1\)"):
        toy.generate("Hello.", cancel=cancel, **LONG)


@pytest.mark.parametrize("sampler", ["rust", "python"])
def test_a_callback_stops_the_work_by_returning_false(toy, sampler):
    seen = []

    def stop(stage: str, done: int, total: int) -> bool:
        seen.append((stage, done))
        return stage != "t3"

    with pytest.raises(CancelledError, match=r"cancelled during t3 \(\d+ of \d+\)"):
        toy.generate("Hello.", progress=stop, backends=f"rust,t3.sampler={sampler}", **LONG)
    assert [stage for stage, _ in seen].count("t3") == 1


@pytest.mark.parametrize("sampler", ["rust", "python"])
@pytest.mark.parametrize("stage", ["text.tokenize", "t3", "s3gen.flow", "s3gen.vocoder", "watermark"])
def test_what_a_callback_raises_comes_out_as_it_is(toy, stage, sampler):
    class Mine(Exception):
        pass

    raised = Mine("no")

    def fail(at: str, done: int, total: int) -> None:
        if at == stage:
            raise raised

    with pytest.raises(Mine) as caught:
        toy.generate("Hello.", seed=3, max_tokens=20, progress=fail, backends=f"rust,t3.sampler={sampler}")
    assert caught.value is raised
    # and the model is as good as before
    assert len(toy.generate("Hello.", seed=3, max_tokens=5))


@pytest.mark.parametrize("what", ["rust", "t3.sampler=python", "voice"])
def test_progress_of_a_stage_never_goes_back(toy, clip, what):
    reports: list[tuple[str, int, int]] = []

    def progress(stage: str, done: int, total: int) -> None:
        reports.append((stage, done, total))

    if what == "voice":
        toy.voice(clip, progress=progress)
        stages = {
            "reference.load",
            "s3tokenizer.tokens",
            "speaker_encoder.xvector",
            "voice_encoder.embedding",
            "s3gen.prompt_mel",
        }
    else:
        toy.generate("Hello there.", progress=progress, backends=what, seed=3, max_tokens=150)
        stages = {"text.normalize", "text.tokenize", "t3", "s3gen.encoder", "s3gen.flow", "s3gen.vocoder", "watermark"}
    assert stages <= {stage for stage, _, _ in reports}
    last: dict[str, float] = {}
    for stage, done, total in reports:
        assert 0 <= done <= total and total > 0, (stage, done, total)
        share = done / total
        assert share >= last.get(stage, 0.0) or share == 0.0, (stage, done, total)  # a stage may run twice
        last[stage] = share
    assert all(share == 1.0 for stage, share in last.items() if stage != "t3"), last
    if what == "t3.sampler=python":  # Rust's own loop may be over before its next report is due
        assert len({done for stage, done, _ in reports if stage == "t3"}) >= 2


def test_progress_and_cancel_do_not_change_the_result(toy):
    options = {"seed": 3, "max_tokens": 30}
    plain = toy.generate("Hello there.", **options)
    watched = toy.generate("Hello there.", progress=lambda *_: None, cancel=threading.Event(), **options)
    np.testing.assert_array_equal(plain.samples, watched.samples)


@pytest.mark.skipif(os.name != "posix", reason="this system sends no SIGINT to one process")
def test_ctrl_c_ends_the_command_without_a_traceback_or_a_file(tmp_path):
    text = "This is a long text that will be spoken for a while. " * 4
    arguments = ["say", text, "--model", TOY, "--max-tokens", "1000", "--seed", "3", "-o", str(tmp_path / "out.wav")]
    # a program that has imported everything and tells when it begins, so that the signal falls into the work
    program = (
        "import signal, sys, chatterbox_turbo_rs.model as t, chatterbox_turbo_rs.cli.main as c\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # also where jobs run with SIGINT ignored
        "usual = t.Pipeline.generate\n"
        "def generate(*a):\n    print('working', flush=True)\n    return usual(*a)\n"
        "t.Pipeline.generate = generate\n"
        "sys.exit(c.main(sys.argv[1:]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    try:
        assert process.stdout.readline() == "working\n"
        time.sleep(0.2)
        started = time.perf_counter()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130, (out, err)
    assert err == "chatterbox-turbo: interrupted\n" and out == ""
    assert time.perf_counter() - started < 3
    assert os.listdir(tmp_path) == []
