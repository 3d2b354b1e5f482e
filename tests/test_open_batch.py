"""One engine for many callers: everybody hears what ``generate`` and ``stream`` give, whatever else is spoken; nobody holds up the others."""

from __future__ import annotations

import queue
import random
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_model import TOY

from chatterbox_turbo_rs import ChatterboxTurbo, Chunk, Split
from chatterbox_turbo_rs.engine import open_batch
from chatterbox_turbo_rs.engine.open_batch import OpenBatch
from chatterbox_turbo_rs.engine.open_job import Event, Job, Report
from chatterbox_turbo_rs.errors import (
    ArgumentError,
    BusyError,
    CancelledError,
    ChatterboxError,
    FileError,
    InternalError,
    TextError,
    TruncatedSpeechWarning,
)
from chatterbox_turbo_rs.options import GenerationOptions

LONG = "The first one is here. [pause 1s] Is this the second? " * 2 + "\n\nAnd the last. [pause 200ms]"
TEXTS = ["Hi.", "Hello [laugh] there, how are you?", LONG, "[pause 300ms] One, two, three."]
LIMIT = 120
"""Seconds after which a test that hangs ends."""


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "chatterbox-turbo-rs"]


@pytest.fixture(autouse=True)
def _cut_speech_is_no_news() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncatedSpeechWarning)
        yield


class Client:
    """Takes what a job gives, at once unless ``greedy`` is False."""

    def __init__(self, batch: OpenBatch, text: str, greedy: bool = True, **arguments: Any) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.chunks: list[Chunk] = []
        self.greedy = greedy
        self.job: Job = batch.submit(text, self.events.put, **arguments)

    def next(self) -> Event:
        event = self.events.get(timeout=LIMIT)
        if isinstance(event, Chunk):
            self.chunks.append(event)
            if self.greedy:
                self.job.took(len(event))
        return event

    def end(self) -> Report:
        """The report; raises the error."""
        while True:
            event = self.next()
            if isinstance(event, Report):
                return event
            if isinstance(event, ChatterboxError):
                raise event

    @property
    def samples(self) -> np.ndarray:
        return np.concatenate([chunk.samples for chunk in self.chunks])


def arguments_of(pick: random.Random, voices: list[Any]) -> tuple[str, dict[str, Any]]:
    """A request as a client may send it."""
    more: dict[str, Any] = {"max_tokens": pick.randint(5, 40), "seed": pick.getrandbits(60), "voice": pick.choice(voices)}
    more |= {"temperature": pick.choice([0.5, 0.8, 1.2]), "top_k": pick.choice([5, 1000]), "top_p": pick.choice([0.8, 0.95])}
    more |= {
        "watermark": pick.choice(["perth", None]),
        "split": Split(attempts=pick.randint(0, 2), longest=pick.choice([60, 280]), first=40),
    }
    if pick.random() < 0.3:
        more["speed"] = 1.2
    return pick.choice(TEXTS), more


@pytest.mark.parametrize("precision", ["f32", "int8+bf16", "int4"])
def test_everybody_hears_the_samples_of_generate_whatever_else_is_spoken(precision: str, clip: Path) -> None:
    """Requests of all kinds, which come at any time and of which some are given up, each with its own sampler, voice and seed."""
    tts = ChatterboxTurbo.from_pretrained(TOY, precision=precision)  # type: ignore[arg-type]
    pick = random.Random(precision)
    voices = [None, tts.voice(clip), tts.voice(clip, prompt_seconds=2)]
    requests = [arguments_of(pick, voices) for _ in range(16)]
    expected = [tts.generate(text, **more) for text, more in requests]
    with tts.open_batch(3) as batch:
        clients = []
        for text, more in requests:
            clients.append(Client(batch, text, **more))
            if pick.random() < 0.4:
                given_up = Client(batch, LONG, **arguments_of(pick, voices)[1])
                threading.Timer(pick.random() * 0.3, given_up.job.cancel).start()
            time.sleep(pick.random() * 0.05)
        for client, speech in zip(clients, expected):
            report = client.end()
            assert client.samples.tobytes() == speech.samples.tobytes()
            assert report.segments == speech.segments and report.finish_reason == speech.finish_reason
            assert (report.seed, report.seconds) == (speech.seed, speech.seconds)
            assert [chunk.final for chunk in client.chunks] == [False] * (len(client.chunks) - 1) + [True]
        assert batch.load[0] == 0


def test_chunks_are_those_of_stream(toy: ChatterboxTurbo) -> None:
    def facts(chunk: Chunk) -> tuple[Any, ...]:
        return chunk.samples.tobytes(), chunk.start, chunk.segment, chunk.text, chunk.final, chunk.finish_reason

    for latency in ("sentence", "low"):
        more: dict[str, Any] = {"seed": 5, "max_tokens": 20, "latency": latency, "chunk": 0.1}
        with toy.open_batch() as batch:
            assert list(map(facts, batch.stream(LONG, **more))) == list(map(facts, toy.stream(LONG, **more)))


def test_where_t3_is_not_rusts_one_follows_the_other(toy: ChatterboxTurbo) -> None:
    backends = "t3.sampler=python"
    expected = toy.generate("Hi.", seed=1, max_tokens=9, backends=backends)
    with toy.open_batch() as batch:
        clients = [Client(batch, "Hi.", seed=1, max_tokens=9, backends=backends) for _ in range(2)]
        for client in clients:
            client.end()
            assert client.samples.tobytes() == expected.samples.tobytes()


def test_a_request_that_fails_sinks_no_other(toy: ChatterboxTurbo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no voice")
    good: dict[str, Any] = {"seed": 2, "max_tokens": 12}
    expected = toy.generate("Hi.", **good).samples.tobytes()
    sound = open_batch.Job.turn

    def defect(job: Job) -> None:
        if job.order.text == "Broken.":
            raise ZeroDivisionError("by zero")
        sound(job)

    monkeypatch.setattr(open_batch.Job, "turn", defect)
    with toy.open_batch(2) as batch:
        failing = [
            (Client(batch, "Hi.", voice=str(broken), **good), ChatterboxError),
            (Client(batch, "Hi.", voice=str(tmp_path / "nothing.safetensors"), **good), FileError),
            (Client(batch, "...\n" * 100, **good), TextError),
            (Client(batch, "[pause 99s] Hi.", **good), TextError),
            (Client(batch, "Broken.", **good), InternalError),
        ]
        others = [Client(batch, "Hi.", **good) for _ in range(3)]
        for client, kind in failing:
            with pytest.raises(kind):
                client.end()
        for client in others:
            client.end()
            assert client.samples.tobytes() == expected
        assert batch.load == (0, 0) and batch.stuck() == 0
    with pytest.raises(ArgumentError, match="^temperature: "), toy.open_batch() as batch:
        batch.submit("Hi.", print, temperature="warm")  # type: ignore[arg-type]


def test_what_goes_wrong_in_a_common_step_ends_those_in_it_alone(toy: ChatterboxTurbo, monkeypatch: pytest.MonkeyPatch) -> None:
    with toy.open_batch(2) as batch:
        decoder = toy._pipeline.stage("t3.decoder", "rust")
        real = decoder.open_batch

        class Failing:
            def __init__(self) -> None:
                self._core = real()

            def run(self, seconds: float) -> Any:
                raise ArgumentError("step: refused")

            def __getattr__(self, name: str) -> Any:
                return getattr(self._core, name)

        monkeypatch.setattr(decoder, "open_batch", Failing)
        client = Client(batch, "Hello there.", seed=1, max_tokens=20)
        with pytest.raises(ArgumentError, match="refused"):
            client.end()
        monkeypatch.setattr(decoder, "open_batch", real)
        after = Client(batch, "Hello there.", seed=1, max_tokens=20)
        after.end()
        assert after.samples.tobytes() == toy.generate("Hello there.", seed=1, max_tokens=20).samples.tobytes()


def test_a_request_that_is_given_up_ends_and_leaves_its_row(toy: ChatterboxTurbo) -> None:
    with toy.open_batch(1) as batch:
        endless = Client(batch, "word " * 3000, seed=1, split=Split(attempts=0))
        while batch.load[1] == 0:
            time.sleep(0.001)
        endless.job.cancel()
        after = Client(batch, "Hi.", seed=1, max_tokens=5)
        after.end()
        assert batch.load == (0, 0)
        assert endless.events.empty() or isinstance(endless.events.get(), Chunk)


def test_rows_that_step_are_interrupted_after_a_step(toy: ChatterboxTurbo) -> None:
    decoder, voice = toy._pipeline.stage("t3.decoder", "rust"), toy.builtin_voice
    request = {"prefix": decoder.prefix_of(voice), "text_ids": np.arange(5), "seed": 1, "max_tokens": 1000}
    request |= GenerationOptions(repetition_penalty=1.0).sampler.for_core()
    rows = decoder.open_batch()
    assert rows.admit(7, request) == [] and len(rows) == 1 and not rows.leave(8)
    rows.interrupt()
    assert rows.run(1e9) == [] and len(rows) == 1
    timer = threading.Timer(0.02, rows.interrupt)
    timer.start()
    assert rows.run(1e9) == [] and len(rows) == 1, "it ran to its end"
    timer.join()
    [(key, tokens, seconds)] = rows.run(1e9)
    assert key == 7 and len(tokens) == 1001 and seconds > 0 and len(rows) == 0
    prompt = (voice.speaker_embedding, voice.t3_prompt_tokens, request["text_ids"])
    alone = decoder.generate(*prompt, GenerationOptions(repetition_penalty=1.0).sampler, 1000, seed=1)
    assert np.array_equal(tokens, alone)
    assert rows.run(1.0) == [] and rows.admit(1, request) == [] and rows.leave(1) and len(rows) == 0
    assert isinstance(rows.admit(2, request | {"max_tokens": 10**6})[0][1], ArgumentError)


def test_a_book_leaves_room_for_a_short_text(toy: ChatterboxTurbo) -> None:
    """A text of one segment that comes while a book is spoken is over before the book has had four more segments."""
    with toy.open_batch(2) as batch:
        book = Client(
            batch,
            "A sentence of some length stands here. " * 40,
            seed=1,
            max_tokens=30,
            split=Split(longest=60, first=60, attempts=0),
        )
        while not isinstance(book.next(), Chunk):
            pass
        before = book.chunks[-1].segment
        short = Client(batch, "Hi.", seed=1, max_tokens=10)
        short.end()
        while not book.events.empty():
            book.next()
        assert book.chunks[-1].segment - before <= 4
        book.job.cancel()


def test_sound_that_nobody_takes_is_not_made(toy: ChatterboxTurbo) -> None:
    with toy.open_batch(2, ahead=1.0) as batch:
        lazy = Client(batch, LONG * 4, greedy=False, seed=1, max_tokens=30, watermark=None)
        other = Client(batch, "Hi.", seed=1, max_tokens=10)
        other.end()
        limit, still = time.monotonic() + LIMIT, 0
        while still < 20 and time.monotonic() < limit:  # until nothing can be done any more
            time.sleep(0.01)
            still = 0 if any(thread._busy for thread in batch._threads) else still + 1
        while not lazy.events.empty():
            lazy.next()
        ahead = sum(len(chunk) for chunk in lazy.chunks) / 24_000
        assert 1.0 <= ahead < 1.0 + 4.5, "a window of the vocoder is 4 s at most"
        assert batch.stuck() == 0 and lazy.events.empty()
        lazy.job.took(sum(len(chunk) for chunk in lazy.chunks))
        lazy.greedy = True
        lazy.end()
        assert lazy.samples.tobytes() == toy.generate(LONG * 4, seed=1, max_tokens=30, watermark=None).samples.tobytes()


def test_no_more_wait_than_may(toy: ChatterboxTurbo) -> None:
    with toy.open_batch(1, waiting=2, ahead=0.5) as batch:
        clients = [Client(batch, "word " * 500, greedy=False, seed=1) for _ in range(3)]
        with pytest.raises(BusyError, match="3 requests"):
            batch.submit("Hi.", print)
        assert 1 <= batch.retry_after <= 120
        clients[0].job.cancel()
        limit = time.monotonic() + LIMIT
        while batch.load[0] == 3 and time.monotonic() < limit:
            time.sleep(0.001)
        Client(batch, "Hi.", seed=1, max_tokens=5)


def test_closing_ends_all_requests(toy: ChatterboxTurbo) -> None:
    batch = toy.open_batch(2)
    clients = [Client(batch, "word " * 500, seed=1, max_tokens=30) for _ in range(4)]
    clients[0].next()
    batch.close()
    for client in clients:
        with pytest.raises(CancelledError):
            client.end()
    with pytest.raises(CancelledError):
        batch.submit("Hi.", print)
    batch.close()


def test_an_engine_that_hangs_is_found_out(toy: ChatterboxTurbo, monkeypatch: pytest.MonkeyPatch) -> None:
    held, go_on = threading.Event(), threading.Event()
    turn = open_batch.Job.turn

    def hang(job: Job) -> None:
        held.set()
        go_on.wait(LIMIT)
        turn(job)

    monkeypatch.setattr(open_batch.Job, "turn", hang)
    with toy.open_batch() as batch:
        assert batch.stuck() == 0
        client = Client(batch, "Hi.", seed=1, max_tokens=5)
        assert held.wait(LIMIT)
        first = batch.stuck()
        time.sleep(0.05)
        assert batch.stuck() >= first + 0.05
        go_on.set()
        client.end()


@pytest.mark.parametrize("name", ["_t3_round", "_s3gen_round"])
def test_an_engine_that_has_ended_says_so(toy: ChatterboxTurbo, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def broken(batch: OpenBatch) -> bool:
        if batch.load[0]:
            raise MemoryError
        return False

    monkeypatch.setattr(OpenBatch, name, broken)
    with toy.open_batch() as batch:
        client = Client(batch, "Hi.")
        with pytest.raises(InternalError, match="MemoryError"):
            client.end()
        for thread in batch._threads:
            thread.join(LIMIT)
        assert batch.stuck() == float("inf")
        with pytest.raises(CancelledError):
            batch.submit("Hi.", print)
