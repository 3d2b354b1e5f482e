"""Texts of several segments: joined from what each gives alone, spoken again where they went wrong, told in the result."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from toy_model import TOY

from chatterbox_turbo_rs import ChatterboxTurbo, Speech, Split
from chatterbox_turbo_rs.cli.main import main
from chatterbox_turbo_rs.engine import draws, long_text, verdict
from chatterbox_turbo_rs.engine.joins import FRAME, KEPT, LONGEST, Edges
from chatterbox_turbo_rs.engine.pronounce import pronounced
from chatterbox_turbo_rs.engine.segments import SLACK
from chatterbox_turbo_rs.engine.speed import stretch
from chatterbox_turbo_rs.errors import ArgumentError, CancelledError, TextError

TEXT = "The first sentence is here, and it says little. [pause 250ms] So is the second one. " * 4 + "\n\nA new paragraph."
FEW = {"max_tokens": 12, "seed": 5}
ONCE = Split(attempts=0)


def test_a_short_text_is_not_touched(toy):
    text = "Hello there.\n\nIt is me. " + "x" * 256
    assert len(text) == 280
    whole, never = toy.generate(text, **FEW), toy.generate(text, **FEW, split="never")
    assert np.array_equal(whole.samples, never.samples)
    [only] = whole.segments
    assert (only.text, only.start, only.end, only.seed, only.attempts) == (text, 0.0, whole.seconds, 5, 1)


def test_a_long_text_is_its_segments_joined(toy):
    speech = toy.generate(TEXT, **FEW, split=ONCE)
    plan = toy.segments(TEXT, seed=5)
    assert [s.text for s in plan] == [s.text for s in speech.segments] and len(plan) > 4
    parts = []
    for segment, told in zip(plan, speech.segments):
        alone = toy.generate(segment.text, seed=segment.seed, max_tokens=12)
        edges = Edges()
        parts += [edges.feed(alone.samples), edges.finish()]
        rate = speech.sample_rate
        assert (told.start * rate, told.end * rate) == (sum(map(len, parts[:-2])), sum(map(len, parts)))
        parts.append(np.zeros(round(segment.pause_after * rate), np.float32))
    assert np.array_equal(speech.samples, np.concatenate(parts))
    assert speech.watermarked and speech.seed == 5 and speech.finish_reason == "length"
    assert len(speech.tokens) == sum(s.tokens for s in speech.segments) + 3 * len(plan)


def test_no_segment_is_longer_than_what_the_model_speaks_well(toy, tmp_path, capsys, monkeypatch):
    """However the text is asked for; by an explicit ``"never"`` alone it is spoken in one go."""
    config = json.loads((Path(TOY) / "config.json").read_text())
    config["text"]["longest"] = 40
    limited = shutil.copytree(TOY, tmp_path / "limited")
    (limited / "config.json").write_text(json.dumps(config))
    tts = ChatterboxTurbo.from_pretrained(limited, precision="f32")
    text = "One short sentence. And then another one that is longer. The last is this."
    assert len(toy.segments(text)) == 1
    for split in (None, Split(longest=200, first=200)):
        plan = [segment.text for segment in tts.segments(text, seed=5, split=split)]
        assert len(plan) > 1 and all(len(one) <= 40 + SLACK for one in plan)
    few = {"seed": 5, "max_tokens": 6, "split": ONCE}
    spoken = tts.generate(text, **few)
    assert [one.text for one in spoken.segments] == plan
    assert np.array_equal(np.concatenate([chunk.samples for chunk in tts.stream(text, **few)]), spoken.samples)
    assert np.array_equal(tts.generate_many([text], seeds=[5], max_tokens=6, split=ONCE)[0].samples, spoken.samples)
    assert len(tts.generate(text, seed=5, max_tokens=6, split="never").segments) == 1
    shorter = Split(longest=30, first=20)
    assert tts.segments(text, seed=5, split=shorter) == toy.segments(text, seed=5, split=shorter)

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for model, expected in ((str(limited), plan), ("~/limited", plan), ("turbo", [text]), ("nowhere/model", [text])):
        assert main(["say", text, "--dry-run", "--json", "--model", model]) == 0
        assert [segment["text"] for segment in json.loads(capsys.readouterr().out)] == expected
    book = tmp_path / "book.txt"
    book.write_text(text)
    quick = ["--precision", "f32", "--seed", "5", "--max-tokens", "6", "--attempts", "0"]
    arguments = ["book", str(book), "--model", str(limited), "--json", *quick]
    assert main([*arguments, "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["chapters"][0]["segments"] == len(plan)
    assert main([*arguments, "-o", str(tmp_path / "book.wav")]) == 0
    assert json.loads(capsys.readouterr().out)["segments"] == len(plan)
    spoken.save(tmp_path / "expected.wav")
    assert np.array_equal(*(soundfile.read(tmp_path / f"{name}.wav")[0] for name in ("book", "expected")))


def test_it_is_the_same_however_it_is_asked_for(toy):
    speech = toy.generate(TEXT, **FEW, split=ONCE)
    others = ["Short.", TEXT, TEXT + " More of it."]
    many = toy.generate_many(others, seeds=[1, 5, 6], max_tokens=12, batch=3, split=ONCE)
    assert np.array_equal(many[1].samples, speech.samples) and many[1].segments == speech.segments
    assert np.array_equal(many[0].samples, toy.generate("Short.", seed=1, max_tokens=12).samples)
    found = dict(toy.iter_many(others, seeds=[1, 5, 6], max_tokens=12, batch=2, split=ONCE))
    assert np.array_equal(found[1].samples, speech.samples)
    loop = toy.generate(TEXT, **FEW, split=ONCE, backends="t3.sampler=python")
    assert np.array_equal(loop.samples, speech.samples), "one segment after the other"


def test_a_segment_that_went_wrong_is_spoken_again(toy):
    text = "The first sentence is here. [pause 1s] And another one."
    speech = toy.generate(text, **FEW, split=Split(attempts=2))
    first = draws.derived(5, 0)
    seeds = [first, *(draws.derived(first, k, long_text.ATTEMPT) for k in (1, 2))]
    tries = [toy.generate("The first sentence is here.", seed=seed, max_tokens=12).segments[0] for seed in seeds]
    assert all(found.faults for found in tries), "random weights do not stop"
    kept = min(tries, key=lambda found: len(found.faults))
    told = speech.segments[0]
    assert (told.seed, told.faults, told.attempts) == (kept.seed, kept.faults, 3)
    assert "no stop" in told.faults


def test_the_best_attempt_stays_and_the_first_good_one_ends_them():
    options = long_text.GenerationOptions(seed=1, split=Split(attempts=3))
    text = "One. [pause 1s] Two."
    taken: list[Speech] = []
    pieces = long_text.Pieces(long_text.Many([text], None, [1], 16, "raise"), options, lambda index, result: taken.append(result))
    assert pieces.many.texts == ["One.", "Two."]

    def spoken(value: float, seed: int, *faults) -> Speech:
        segment = long_text.SpokenSegment("One.", 0.0, 0.1, 3, seed, faults=faults)
        return Speech(np.full(2400, value, np.float32), 24_000, seed, None, segments=(segment,))

    seeds = [pieces.again(0, spoken(0.1, 1, "no stop", "stuck")), pieces.again(0, spoken(0.2, 2, "stuck"))]
    assert seeds == [draws.derived(1, k, long_text.ATTEMPT) for k in (1, 2)]
    assert pieces.again(1, spoken(0.3, 3)) is None
    pieces.take(1, spoken(0.3, 3))
    assert pieces.again(0, spoken(0.4, 4, "stuck", "cut end")) is not None
    assert pieces.again(0, last := spoken(0.5, 5, "no stop")) is None, "three times again"
    pieces.take(0, last)
    [speech] = taken
    assert [(s.seed, s.attempts, s.faults) for s in speech.segments] == [(2, 4, ("stuck",)), (3, 1, ())]
    assert speech.samples[1200] == np.float32(0.2)


def test_verdicts():
    good = np.arange(60) % 7
    assert verdict.of_tokens(good, "stop", 20, 80, 9) == ()
    assert verdict.of_tokens(good, "length", 20, 80, 9) == ("no stop",)
    assert verdict.of_tokens(good, "stop", 21, 84, 9) == ("too short",)
    assert verdict.of_tokens(good, "stop", 80, 80, 9) == (), "a token for each character"
    assert verdict.of_tokens(np.concatenate([good, np.full(25, 3)]), "stop", 20, 80, 9) == ("stuck",)
    assert verdict.of_tokens(np.concatenate([good, np.full(24, 8)]), "stop", 20, 80, 9) == ()
    assert verdict.of_tokens(np.full(25, 9), "stop", 5, 20, 9) == ("stuck",)
    assert verdict.of_tokens(np.zeros(0, np.int64), "stop", 5, 20, 9) == ("too short",)
    mel = np.log(np.concatenate([np.full((40, 80), 1.0), np.full((4, 80), 0.05), np.full((6, 80), 1e-5)]))
    assert verdict.of_mel(mel, 6) == ()
    assert verdict.of_mel(np.delete(mel, range(40, 44), 0), 6) == ("cut end",)


@pytest.mark.parametrize("lead", [0, 1, LONGEST, LONGEST + 1, 80])
@pytest.mark.parametrize("tail", [0, 1, LONGEST, LONGEST + 1, 80])
def test_edges_are_cut_alike_in_chunks_of_any_size(lead, tail):
    rng = np.random.default_rng(lead * 100 + tail)
    loud = rng.uniform(-0.5, 0.5, 20 * FRAME)
    loud[8 * FRAME : 12 * FRAME] = 0  # silence inside stays
    sound = np.concatenate([np.zeros(lead * FRAME), loud, np.zeros(tail * FRAME)]).astype(np.float32)
    edges = Edges()
    whole = np.concatenate([edges.feed(sound), edges.finish()])
    cut = lambda frames: frames if frames <= LONGEST else KEPT  # noqa: E731
    assert len(whole) == (20 + cut(lead) + cut(tail)) * FRAME
    middle = slice((cut(lead) + 1) * FRAME, (cut(lead) + 19) * FRAME)
    assert np.array_equal(whole[middle], loud[FRAME : 19 * FRAME].astype(np.float32))
    assert abs(whole[0]) < 1e-3 and abs(whole[-1]) < 1e-3
    for _ in range(20):
        chunked, at, parts = Edges(), 0, []
        while at < len(sound):
            step = int(rng.integers(1, 3000))
            parts.append(chunked.feed(sound[at : at + step]))
            at += step
        assert np.array_equal(np.concatenate([*parts, chunked.finish()]), whole)


def test_edges_of_next_to_nothing():
    for size in (0, 1, FRAME - 1, FRAME, FRAME + 1):
        for value in (0.0, 0.5):
            edges = Edges()
            assert len(edges.feed(np.full(size, value, np.float32))) + len(edges.finish()) == size


def test_subtitles(toy):
    speech = toy.generate(TEXT, **FEW, split=ONCE)
    srt, vtt = speech.subtitles("srt"), speech.subtitles("vtt")
    times = re.findall(r"(\d\d):(\d\d):(\d\d),(\d{3}) --> (\d\d):(\d\d):(\d\d),(\d{3})", srt)
    told = [(s.start, s.end) for s in speech.segments]
    seconds = [tuple(int(h) * 3600 + int(m) * 60 + int(s) + int(ms) / 1000 for h, m, s, ms in (t[:4], t[4:])) for t in times]
    np.testing.assert_allclose(seconds, told, atol=5.1e-4)
    assert vtt.startswith("WEBVTT\n\n1\n00:00:00.000 --> ")
    marked = replace(speech, segments=(replace(speech.segments[0], text="a <b> & \n--> c", start=3599.9996, end=3600.0),))
    assert marked.subtitles("vtt") == "WEBVTT\n\n1\n01:00:00.000 --> 01:00:00.000\na &lt;b&gt; &amp; --&gt; c\n"
    with pytest.raises(ArgumentError, match="expected 'srt' or 'vtt', got 'ass'"):
        speech.subtitles("ass")


def pitch(samples: np.ndarray) -> float:
    """The median fundamental frequency in Hz of 50 ms windows with a clear period."""
    found = []
    for at in range(0, len(samples) - 1200, 600):
        x = samples[at : at + 1200] - samples[at : at + 1200].mean()
        r = np.correlate(x, x, "full")[1199:]
        lag = 60 + int(np.argmax(r[60:400]))
        if r[0] > 0.5 and r[lag] > 0.5 * r[0] and 60 < lag < 399:
            a, b, c = r[lag - 1 : lag + 2]
            found.append(24_000 / (lag + 0.5 * (a - c) / (a - 2 * b + c)))
    return float(np.median(found))


@pytest.mark.parametrize("speed", [0.5, 0.8, 1.25, 2.0])
def test_speed_keeps_the_pitch(speed, data):
    samples, rate = soundfile.read(data / "clips" / "short.flac", dtype="float32")
    samples = samples if samples.ndim == 1 else samples[:, 0]
    assert rate == 24_000
    faster = stretch(samples, speed)
    assert len(faster) == round(len(samples) / speed)
    assert abs(pitch(faster) / pitch(samples) - 1) < 0.01
    assert abs(np.sqrt(np.mean(faster**2)) / np.sqrt(np.mean(samples**2)) - 1) < 0.1
    assert stretch(samples, 1.0) is samples


def test_speed_of_speech(toy):
    speech, faster = toy.generate("Hello there.", **FEW), toy.generate("Hello there.", **FEW, speed=1.6)
    assert len(faster) == round(len(speech) / 1.6)
    assert toy.detect_watermark(faster) > 0.5
    for bad in (0.49, 2.01, float("nan"), "fast", True):
        with pytest.raises(ArgumentError, match="speed: expected a number"):
            toy.generate("a", speed=bad)


def test_pronounce(toy):
    words = {"Nguyen": "win", "SQL": "sequel", "SQL Server": "sequel server", "C++": "C plus plus"}
    text = "Nguyen's SQL, MySQL and SQL Server; sql in C++."
    assert pronounced(text, words) == "win's sequel, MySQL and sequel server; sql in C plus plus."
    asked, other = toy.generate("Mr. Nguyen.", **FEW, pronounce=words), toy.generate("Mr. win.", **FEW)
    assert np.array_equal(asked.samples, other.samples)
    assert asked.segments[0].text == "Mr. Nguyen." and asked.text == "Mr. win."
    for bad in ("Nguyen=win", {"a": 1}, {"": "x"}, {" a": "x"}):
        with pytest.raises(ArgumentError, match="pronounce: expected"):
            toy.generate("a", pronounce=bad)


def test_it_can_be_stopped_between_two_segments(toy):
    heard = []

    def progress(stage: str, done: int, total: int) -> bool:
        heard.append((stage, done, total))
        return not (stage == "segments" and done == 2)

    with pytest.raises(CancelledError):
        toy.generate(TEXT, **FEW, split=ONCE, progress=progress)
    assert [done for stage, done, _ in heard if stage == "segments"] == [1, 2]


def test_bad_texts_and_limits(toy):
    with pytest.raises(TextError, match="expected words"):
        toy.generate("[pause 1s]")
    bad, good = toy.generate_many(["[pause 90s] x", "Fine."], seeds=1, max_tokens=3, errors="return")
    assert isinstance(bad, TextError) and good.seconds > 0
    for split in ("always", None, 280):
        with pytest.raises(ArgumentError, match="split: expected 'auto', 'never' or a Split"):
            toy.generate("a", split=split)
    for split in ("auto", "", 280):
        with pytest.raises(ArgumentError, match="split: expected a Split or None"):
            toy.segments("a", split=split)
