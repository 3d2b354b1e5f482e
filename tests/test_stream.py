"""A text in chunks: the samples of ``generate``, all of them, and no work that goes on when nobody listens."""

from __future__ import annotations

import asyncio
import gc
import itertools
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from toy_model import TOY

from chatterbox_turbo_rs import ChatterboxTurbo, Chunk, Split
from chatterbox_turbo_rs.engine import registry, stream, token_loop
from chatterbox_turbo_rs.engine.pipeline import Run, Text
from chatterbox_turbo_rs.errors import (
    ArgumentError,
    CancelledError,
    FileError,
    InternalError,
    TextError,
    TruncatedSpeechWarning,
)
from chatterbox_turbo_rs.options import GenerationOptions

TEXTS = ["Hi.", "Hello [laugh] there, how are you?", "One, two, three, four; and so on until it is over."]
SHORT: dict[str, Any] = {"max_tokens": 24, "watermark": None, "seed": 3}
STAGES = ["text.tokenize", "t3", "s3gen.encoder", "s3gen.flow", "s3gen.vocoder", "watermark"]


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "chatterbox-turbo-rs"}


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    assert not threads()
    yield
    gc.collect()
    assert not threads()


@pytest.fixture(autouse=True)
def _cut_speech_is_no_news() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncatedSpeechWarning)
        yield


@pytest.fixture(scope="module")
def fast() -> dict[str, ChatterboxTurbo]:
    return {precision: ChatterboxTurbo.from_pretrained(TOY, precision=precision) for precision in ("int8+bf16", "int4")}


def joined(chunks: list[Chunk]) -> np.ndarray:
    """The samples, when the chunks follow each other without a gap and only the last says that it is."""
    assert [chunk.start for chunk in chunks] == [0, *itertools.accumulate(len(chunk) for chunk in chunks[:-1])]
    assert [chunk.final for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert all(chunk.samples.dtype == np.float32 and len(chunk) and chunk.sample_rate == 24_000 for chunk in chunks)
    return np.concatenate([chunk.samples for chunk in chunks])


@pytest.mark.parametrize("precision", ["f32", "int8+bf16", "int4"])
@pytest.mark.parametrize("text", TEXTS)
def test_the_chunks_are_the_samples_of_generate(
    toy: ChatterboxTurbo, fast: dict[str, ChatterboxTurbo], text: str, precision: str
) -> None:
    model = toy if precision == "f32" else fast[precision]
    random = np.random.default_rng(len(text))
    for max_tokens in (17, int(random.integers(40, 120))):
        arguments: dict[str, Any] = {"seed": int(random.integers(1 << 40)), "max_tokens": max_tokens}
        for watermark in ("perth", None):
            speech = model.generate(text, watermark=watermark, **arguments)
            for chunk in (float(random.uniform(0.02, 1)), 10):
                chunks = list(model.stream(text, watermark=watermark, chunk=chunk, **arguments))
                assert joined(chunks).tobytes() == speech.samples.tobytes()
                assert max(map(len, chunks)) <= round(chunk * 24_000)
                assert {(chunk.segment, chunk.text) for chunk in chunks} == {(0, speech.text)}
                assert chunks[-1].finish_reason == speech.finish_reason and chunks[-1].seconds == speech.seconds
                assert not any(chunk.finish_reason for chunk in chunks[:-1])


def test_a_clip_as_voice(toy: ChatterboxTurbo, clip: Any) -> None:
    speech = toy.generate("Hello.", voice=clip, seed=4, max_tokens=50)
    assert joined(list(toy.stream("Hello.", voice=clip, seed=4, max_tokens=50))).tobytes() == speech.samples.tobytes()


@pytest.mark.parametrize("plan", ["python", "rust,watermark=python", "rust,s3gen.vocoder=python"])
def test_the_python_sides_are_within_a_millionth(toy: ChatterboxTurbo, plan: str) -> None:
    keys = [plan.rpartition(",")[2].partition("=")[0]] if "," in plan else registry.TABLE
    for key in keys:
        if reason := registry.missing(key, "python"):
            pytest.skip(reason)
    arguments: dict[str, Any] = {"seed": 5, "max_tokens": 60, "backends": plan}
    found = joined(list(toy.stream("Hello there.", **arguments)))
    assert np.abs(found - toy.generate("Hello there.", **arguments).samples).max() < 1e-6


def test_two_processes_with_other_numbers_of_threads_give_the_same_bits() -> None:
    program = (
        "digest = hashlib.sha256(b''.join(c.samples.tobytes() for c in tts.stream('Hello there.', seed=5, max_tokens=90)))\n"
    )
    program += "print(digest.hexdigest(), tts.generate('Hello there.', seed=5, max_tokens=90).samples.tobytes() == b''.join("
    program += "c.samples.tobytes() for c in tts.stream('Hello there.', seed=5, max_tokens=90, chunk=0.1)))"
    printed = [run(program, begin="", RAYON_NUM_THREADS=count).stdout for count in ("1", "2")]
    assert printed[0] == printed[1] and printed[0].split()[1] == "True"


@pytest.mark.parametrize("count", range(6))
def test_nothing_is_lost_of_very_few_tokens(toy: ChatterboxTurbo, count: int) -> None:
    raw = np.arange(100, 100 + count)
    voice, options, pipeline = toy.builtin_voice, GenerationOptions(seed=1), toy._pipeline
    assert voice is not None
    run, text = Run(pipeline, toy.plan, None), Text("", "", np.zeros(1, np.int64))
    speech = pipeline.sound(run, voice, text, raw, options)
    mel = pipeline.mel(run, voice, token_loop.keep_speech(raw, pipeline.config["s3gen"]), 1)
    spoken = stream.Attempt(1, "stop", mel, ())
    found = np.concatenate(list(stream.sound(pipeline, run, spoken, options)))
    assert len(found) == len(speech) == 960 * (count + 3)
    reasons = [reason for _, reason in stream.parts_of(pipeline, run, spoken, options)]
    assert reasons == [None] * (len(reasons) - 1) + ["stop"]
    assert found.tobytes() == speech.samples.tobytes()


LONG = "The first one is here. [pause 1s] Is this the second? " * 3 + "\n\nAnd the last. [pause 200ms]"


@pytest.mark.parametrize(
    "more",
    [
        {"chunk": 0.02},
        {"chunk": 10.0, "split": Split(attempts=2)},
        {"chunk": 0.3, "watermark": None, "speed": 1.3},
        {"text": "[pause 300ms]" + "word, " * 80, "split": Split(longest=60, first=30, sentence_pause=0, attempts=0)},
        {"text": "Hello there.", "speed": 0.7, "pronounce": {"there": "you"}},
    ],
)
def test_the_chunks_of_several_segments_are_the_samples_of_generate(toy: ChatterboxTurbo, more: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"text": LONG, "seed": 9, "max_tokens": 60, **more}
    chunks = list(toy.stream(**arguments))
    arguments.pop("chunk", None)
    speech = toy.generate(**arguments)
    assert joined(chunks).tobytes() == speech.samples.tobytes()
    assert {chunk.segment for chunk in chunks} == set(range(len(toy.segments(arguments["text"], split=arguments.get("split")))))
    assert chunks[-1].finish_reason == speech.finish_reason
    assert sum(chunk.finish_reason is not None for chunk in chunks) >= len(speech.segments)


def test_the_first_segment_is_heard_before_the_others_are_begun(toy: ChatterboxTurbo) -> None:
    heard: list[str] = []
    chunks = toy.stream(LONG, seed=9, max_tokens=60, chunk=0.1, progress=lambda stage, *_: heard.append(stage) is None or None)
    next(chunks)
    assert heard.count("text.tokenize") < 2 * 7, "all segments were begun"
    chunks.close()


def test_the_next_segment_is_read_while_one_sounds(toy: ChatterboxTurbo, monkeypatch: pytest.MonkeyPatch) -> None:
    """T3 of the second segment takes steps while the sound of the first waits in the middle."""
    read, expected = threading.Event(), toy.generate(LONG, seed=9, max_tokens=60).samples
    prepared: list[str] = []
    sound = stream.sound

    def slow(*arguments: Any) -> Iterator[np.ndarray]:
        parts = sound(*arguments)
        yield next(parts)
        assert read.wait(60), "nobody reads the next segment meanwhile"
        yield from parts

    def watch(stage: str, done: int, total: int) -> None:
        prepared.append(stage) if stage == "text.tokenize" and done else None
        if stage == "t3" and len(prepared) > 1:
            read.set()

    monkeypatch.setattr(stream, "sound", slow)
    assert joined(list(toy.stream(LONG, seed=9, max_tokens=60, progress=watch))).tobytes() == expected.tobytes()
    assert len(prepared) == len([segment for segment in toy.segments(LONG) if segment.text])


@pytest.mark.parametrize("where", ["t3", "s3gen.vocoder"])
def test_what_a_callback_raises_ends_both_segments_at_work(toy: ChatterboxTurbo, where: str) -> None:
    prepared: list[str] = []
    raised = ZeroDivisionError()

    def fail(stage: str, done: int, total: int) -> None:
        prepared.append(stage) if stage == "text.tokenize" and done else None
        if stage == where and len(prepared) > 1:
            raise raised

    with pytest.raises(ZeroDivisionError) as caught:
        list(toy.stream(LONG, seed=9, max_tokens=60, progress=fail))
    assert caught.value is raised and len(prepared) < 4 and not threads()


def test_the_last_40_ms_are_speech_as_the_others(toy: ChatterboxTurbo) -> None:
    """No fade, no zeros, no vocoder at the end of its input: for texts whose length is any of a window and a bit."""
    for max_tokens in range(20, 44, 3):
        arguments: dict[str, Any] = {"seed": max_tokens, "max_tokens": max_tokens}
        speech = toy.generate("Hello there, you.", **arguments)
        found = joined(list(toy.stream("Hello there, you.", **arguments)))
        assert np.array_equal(found[-960:], speech.samples[-960:]) and len(found) == len(speech)


def test_sound_comes_before_it_is_all_there(toy: ChatterboxTurbo) -> None:
    reached: list[int] = []

    def watch(stage: str, done: int, total: int) -> None:
        if stage == "s3gen.vocoder":
            reached.append(done)

    chunks = toy.stream("Hello.", seed=3, max_tokens=900, progress=watch)
    first = next(chunks)
    assert 0.2 < first.seconds < 0.5 and max(reached) < 1800
    rest = list(chunks)
    assert max(reached) == (first.start + len(first) + sum(map(len, rest))) // 480


def test_the_work_does_not_wait_for_the_listener(toy: ChatterboxTurbo) -> None:
    done = threading.Event()
    chunks = toy.stream(
        "Hello.", progress=lambda stage, now, of: done.set() if stage == "s3gen.vocoder" and now == of else None, **SHORT
    )
    first = next(chunks)
    assert done.wait(30)
    assert joined([first, *chunks]).tobytes() == toy.generate("Hello.", **SHORT).samples.tobytes()


def test_the_work_waits_when_a_minute_is_ahead(toy: ChatterboxTurbo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "AHEAD", 0.2)
    given = []
    usual = stream.speak

    def speak(*arguments: Any) -> Iterator[Chunk]:
        for chunk in usual(*arguments):
            given.append(chunk)
            yield chunk

    monkeypatch.setattr(stream, "speak", speak)
    chunks = toy.stream("Hello.", chunk=0.05, **SHORT)
    first = next(chunks)
    time.sleep(1)
    assert len(given) <= 1 + 4 + 1
    assert joined([first, *chunks]).tobytes() == toy.generate("Hello.", **SHORT).samples.tobytes()


def test_nothing_begins_before_it_is_asked_for(toy: ChatterboxTurbo) -> None:
    begun: list[Any] = []
    chunks = toy.stream("Hello.", progress=lambda *report: begun.append(report), **SHORT)
    del chunks
    assert not begun and not threads()


def test_streams_at_a_time_do_not_disturb_each_other(toy: ChatterboxTurbo) -> None:
    arguments = [{"seed": seed, "max_tokens": 60 + 10 * seed} for seed in range(4)]
    expected = [toy.generate("Hello there.", **given).samples.tobytes() for given in arguments]
    open_streams = [toy.stream("Hello there.", chunk=0.1, **given) for given in arguments]
    taken: list[list[Chunk]] = [[] for _ in arguments]
    for turn in itertools.zip_longest(*open_streams):
        for chunks, chunk in zip(taken, turn):
            chunks += [chunk] if chunk else []
    assert [joined(chunks).tobytes() for chunks in taken] == expected


@pytest.mark.parametrize("how", ["close", "drop", "break"])
def test_closing_stops_the_work(toy: ChatterboxTurbo, how: str) -> None:
    """Of one segment, and of two at a time."""
    chunks = toy.stream(LONG, seed=9, max_tokens=900)
    next(chunks)
    chunks.close()
    assert not threads()
    begun: list[Any] = []
    chunks = toy.stream("Hello.", seed=3, max_tokens=900, progress=lambda *report: begun.append(report))
    next(chunks)
    if how == "close":
        chunks.close()
    elif how == "drop":
        del chunks
    else:
        for _ in chunks:
            break
        del chunks
    gc.collect()
    assert not threads()
    reports = len(begun)
    assert max(done for stage, done, _ in begun if stage == "s3gen.vocoder") < 1800
    time.sleep(0.2)
    assert len(begun) == reports


@pytest.mark.parametrize("stage", STAGES)
def test_an_event_cancels_at_the_next_look(toy: ChatterboxTurbo, stage: str) -> None:
    cancel, later = threading.Event(), []

    def watch(at: str, done: int, total: int) -> None:
        if cancel.is_set():
            later.append((at, done, total))
        if at == stage:
            cancel.set()

    with pytest.raises(CancelledError):
        list(toy.stream("Hello there.", seed=3, max_tokens=900, progress=watch, cancel=cancel))
    assert cancel.is_set() and len(later) <= 1


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_callback_raises_comes_out_as_it_is(toy: ChatterboxTurbo, stage: str) -> None:
    for raised in (ArgumentError("mine"), KeyboardInterrupt(), ZeroDivisionError()):

        def fail(at: str, done: int, total: int, raised: BaseException = raised) -> None:
            if at == stage:
                raise raised

        with pytest.raises(type(raised)) as caught:
            list(toy.stream("Hello.", seed=3, max_tokens=60, progress=fail))
        assert caught.value is raised


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (3, {}, "text: expected str, got int"),
        ("a", {"latency": "soon"}, "latency: expected 'sentence', 'low', got 'soon'"),
        ("a", {"latency": ["low"]}, "latency: expected"),
        ("a", {"chunk": 0}, r"chunk: expected seconds from 0.02 to 10, got 0"),
        ("a", {"chunk": float("nan")}, "chunk: expected seconds from 0.02 to 10, got nan"),
        ("a", {"chunk": "0.5"}, "chunk: expected a number, got '0.5'"),
        ("a", {"seed": -1}, "seed: expected a whole number"),
        ("a", {"top_p": -1}, "top_p: expected"),
        ("a", {"progress": 3}, "progress: expected"),
        ("a", {"cancel": 3}, "cancel: expected"),
        ("a", {"cancel": threading.Event}, "cancel: expected an event with is_set"),
        ("a", {"split": np.arange(2)}, "split: expected 'auto', 'never' or a Split"),
        ("a", {"pronounce": np.arange(2)}, "pronounce: expected a mapping"),
    ],
)
def test_arguments_are_checked_by_the_call_itself(toy: ChatterboxTurbo, text: Any, options: Any, message: str) -> None:
    for call in (toy.stream, toy.astream):
        with pytest.raises(ArgumentError, match=message):
            call(text, **options)


def test_what_is_wrong_with_text_and_voice_comes_from_next(toy: ChatterboxTurbo, tmp_path: Any) -> None:
    with pytest.raises(TextError, match=r"U\+DCFF"):
        next(toy.stream("a\udcff"))
    with pytest.raises(FileError, match=r"absent\.wav"):
        next(toy.stream("a", voice=tmp_path / "absent.wav"))


def test_cut_speech_is_warned_of_once(toy: ChatterboxTurbo) -> None:
    with pytest.warns(TruncatedSpeechWarning, match=r"the speech \(\d\.\d s\): cut off at max_tokens=24") as found:
        list(toy.stream("Hello there.", chunk=0.05, **SHORT))
    assert len(found) == 1 and found[0].filename == __file__


PROGRAM = """
import hashlib, os, signal, sys, threading, time, warnings
from chatterbox_turbo_rs import ChatterboxTurbo
warnings.simplefilter("ignore")
tts = ChatterboxTurbo.from_pretrained("TOY")
{begin}
{rest}
""".replace("TOY", str(TOY))
BEGIN = 'chunks = tts.stream("This will be spoken for a while.", seed=3, max_tokens=1000)\nnext(chunks)'


def run(rest: str, begin: str = BEGIN, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    program = PROGRAM.format(begin=begin, rest=rest)
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | environment,
    )


def test_a_program_ends_in_the_middle() -> None:
    result = run("print('over')")
    assert (result.returncode, result.stdout) == (0, "over\n"), result.stderr


def test_ctrl_c_while_a_chunk_is_waited_for() -> None:
    result = run(
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "try:\n    list(tts.stream('Hello.', seed=3, max_tokens=1000)) + list(tts.stream('Hello.', max_tokens=1000))\n"
        "except KeyboardInterrupt:\n    print('interrupted', threading.active_count())",
        begin="",
    )
    assert (result.returncode, result.stdout.split()[0]) == (0, "interrupted"), result.stderr


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this system has no fork")
def test_a_forked_child_is_told_that_the_thread_stayed_behind() -> None:
    result = run(
        "child = os.fork()\n"
        "if not child:\n"
        "    try:\n        list(chunks)\n"
        "    except Exception as error:\n        print(type(error).__name__, flush=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "chunks.close()"
    )
    assert (result.returncode, result.stdout) == (0, f"{InternalError.__name__}\n"), result.stderr


def test_in_an_event_loop(toy: ChatterboxTurbo) -> None:
    async def take(seed: int) -> list[Chunk]:
        return [chunk async for chunk in toy.astream("Hello there.", seed=seed, max_tokens=60, chunk=0.1)]

    async def both() -> tuple[list[list[Chunk]], int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        taken = await asyncio.gather(take(1), take(2))
        ticking.cancel()
        return taken, ticks

    taken, ticks = asyncio.run(both())
    assert ticks > 5, "the event loop was held up"
    for seed, chunks in zip((1, 2), taken):
        assert joined(chunks).tobytes() == toy.generate("Hello there.", seed=seed, max_tokens=60).samples.tobytes()


@pytest.mark.parametrize("how", ["close", "leave", "cancel while it is made", "cancel while it waits"])
def test_an_event_loop_stops_the_work(toy: ChatterboxTurbo, how: str) -> None:
    begun: list[Any] = []

    async def work() -> None:
        chunks = toy.astream("Hello.", seed=3, max_tokens=900, progress=lambda *report: begun.append(report))
        waiting = asyncio.Event()

        async def listen() -> None:
            async for _ in chunks:
                waiting.set()
                if how == "cancel while it waits":
                    await asyncio.sleep(60)

        if how in ("close", "leave"):
            async for _ in chunks:
                break
            if how == "close":
                await chunks.aclose()
            return
        task = asyncio.create_task(listen())
        await (waiting.wait() if how == "cancel while it waits" else asyncio.sleep(0.1))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await chunks.aclose()

    asyncio.run(work())
    for thread in threads():  # where the loop was left, nobody waited for the end
        thread.join(30)
    assert not threads()
    assert not any(done == total for stage, done, total in begun if stage == "s3gen.vocoder")


def test_errors_in_an_event_loop(toy: ChatterboxTurbo) -> None:
    async def take(text: str, **options: Any) -> list[Chunk]:
        return [chunk async for chunk in toy.astream(text, **options)]

    with pytest.raises(TextError, match=r"U\+DCFF"):
        asyncio.run(take("a\udcff"))
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(CancelledError):
        asyncio.run(take("a", cancel=cancel))


def test_an_asynchronous_stream_that_nobody_asks(toy: ChatterboxTurbo) -> None:
    async def work() -> None:
        chunks = toy.astream("Hello.", **SHORT)
        await chunks.aclose()

    asyncio.run(work())
    for thread in threads():  # where the loop was left, nobody waited for the end
        thread.join(30)
    assert not threads()


def test_an_event_loop_that_is_closed_in_the_middle(toy: ChatterboxTurbo, monkeypatch: pytest.MonkeyPatch) -> None:
    complaints: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    loop = asyncio.new_event_loop()
    chunks = toy.astream("Hello.", seed=3, max_tokens=900)
    loop.run_until_complete(chunks.__anext__())
    loop.close()
    del chunks
    gc.collect()
    assert not threads() and not complaints


def test_a_chunk_says_what_it_is(toy: ChatterboxTurbo) -> None:
    first, *_, last = toy.stream("hello", **SHORT)
    assert repr(first) == f"Chunk(0.00 to {first.seconds:.2f} s, segment 0)" and first.text == "Hello."
    assert repr(last).endswith(f" to {last.seconds:.2f} s, segment 0, final, length)")
    with pytest.raises(AttributeError):
        first.start = 3  # type: ignore[misc]
