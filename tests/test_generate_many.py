"""Many texts at once: what each alone gives, in order, in any number of rows; errors of single texts; progress and stopping."""

from __future__ import annotations

import inspect
import threading
import time

import numpy as np
import pytest
from toy_model import TOY

from chatterbox_turbo_rs import ChatterboxTurbo, Speech, Voice
from chatterbox_turbo_rs.engine import registry
from chatterbox_turbo_rs.errors import (
    ArgumentError,
    BatchError,
    CancelledError,
    ChatterboxError,
    FileError,
    TextError,
    UnsupportedAudioError,
    VoiceError,
)
from chatterbox_turbo_rs.stages.t3.sampler import SamplerParameters

TEXTS = ["Hello there.", "Good [laugh] morning to you all.", "One, two, three.", "And so on.", "Yes?", "No!", "The end of it."]
SHORT = {"max_tokens": 24, "watermark": None}
LONE_SURROGATE = "a\udcffb"


def bits(results) -> list[bytes]:
    return [speech.samples.tobytes() for speech in results]


@pytest.fixture(scope="module")
def other_voice(toy, clip):
    return toy.voice(clip)


@pytest.fixture(scope="module", params=["f32", "auto"])
def tts(request, toy):
    return toy if request.param == "f32" else ChatterboxTurbo.from_pretrained(TOY)


@pytest.fixture(scope="module")
def alone(tts, other_voice):
    """Every text by itself, every other one in another voice."""
    voices = [other_voice if index % 2 else None for index in range(len(TEXTS))]
    return voices, [tts.generate(text, voice=v, seed=50 + i, **SHORT) for i, (text, v) in enumerate(zip(TEXTS, voices))]


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_samples_are_those_of_each_text_alone(tts, alone, batch):
    voices, expected = alone
    assert len(set(bits(expected))) == len(TEXTS)
    found = tts.generate_many(TEXTS, voices, 50, batch=batch, **SHORT)
    assert bits(found) == bits(expected)
    for one, many in zip(expected, found):
        assert isinstance(many, Speech)
        np.testing.assert_array_equal(many.tokens, one.tokens)
        assert (many.seed, many.text, many.watermarked, many.plan) == (one.seed, one.text, False, one.plan)
        assert many.timings.keys() == one.timings.keys() and all(seconds >= 0 for seconds in many.timings.values())


def test_parameters_reach_every_text(toy):
    options = {"temperature": 1.3, "top_k": 50, "top_p": 0.8, "repetition_penalty": 1.5, "max_tokens": 12}
    found = toy.generate_many(TEXTS[:3], seeds=[9, 9, 2**64 - 1], **options)
    assert bits(found) == bits(toy.generate(text, seed=seed, **options) for text, seed in zip(TEXTS, [9, 9, 2**64 - 1]))
    assert all(speech.watermarked for speech in found)
    assert bits(toy.generate_many(TEXTS[:3], seeds=[9, 9, 2**64 - 1], **SHORT)) != bits(found)


def test_every_request_has_its_own_parameters_and_limit(toy, other_voice):
    """Through the core, which takes more than the API gives it."""
    decoder = toy._pipeline.stage("t3.decoder", "rust")
    requests = []
    for index, limit in enumerate([30, 2, 9, 0, 17, 9, 1]):
        parameters = SamplerParameters(0.5 + index / 2, 1000 - 100 * index, 1.0 - index / 10, 1.0 + index / 5)
        voice = other_voice if index % 2 else toy.builtin_voice
        inputs = voice.speaker_embedding, voice.t3_prompt_tokens[: 9 * index], np.arange(3 + index)
        requests.append((inputs, parameters, limit, 70 + index))
    expected = [decoder.generate(*inputs, parameters, limit, seed=seed) for inputs, parameters, limit, seed in requests]
    mappings = [
        {"prefix": decoder.prefix(*voice), "text_ids": ids, **parameters.for_core(), "max_tokens": limit, "seed": seed}
        for (*voice, ids), parameters, limit, seed in requests
    ]
    for rows, order in {2: [1, 2, 3, 4, 0, 6, 5], 7: [3, 6, 1, 2, 5, 4, 0]}.items():
        found = {}
        decoder._core.generate_many(iter(mappings), lambda index, tokens, seconds: found.update({index: tokens}), rows=rows)
        assert list(found) == order
        assert all(np.array_equal(found[index], tokens) for index, tokens in enumerate(expected))
    assert {len(tokens) for tokens in expected} == {31, 3, 10, 1, 18, 2}
    with pytest.raises(ArgumentError, match="rows: expected at least 1, got 0"):
        decoder._core.generate_many(mappings, print, rows=0)
    with pytest.raises(ArgumentError, match=r"text_ids: expected int64 \[n\], got list"):
        decoder._core.generate_many([{**mappings[0], "text_ids": [1, 2]}], print, rows=2)
    with pytest.raises(TypeError, match="T3Prefix"):
        decoder._core.generate_many([{**mappings[0], "prefix": None}], print, rows=2)
    with pytest.raises(KeyError, match="seed"):
        decoder._core.generate_many([{name: value for name, value in mappings[0].items() if name != "seed"}], print, rows=2)


def test_one_voice_for_all_in_every_form(toy, clip, other_voice, tmp_path):
    other_voice.save(tmp_path / "v.safetensors")
    expected = bits(toy.generate(text, voice=other_voice, seed=3 + i, **SHORT) for i, text in enumerate(TEXTS[:2]))
    path = tmp_path / "v.safetensors"
    for voices in (other_voice, path, str(path), clip, [clip, path], (str(path), other_voice)):
        assert bits(toy.generate_many(TEXTS[:2], voices, 3, **SHORT)) == expected, voices


def test_a_clip_is_prepared_once(clip):
    prepared = []
    ChatterboxTurbo.from_pretrained(TOY).generate_many(
        TEXTS[:4], [clip, str(clip), None, clip], 3, progress=lambda *report: prepared.append(report), max_tokens=2
    )
    assert prepared.count(("s3gen.prompt_mel", 1, 1)) == 1


def test_seeds_are_drawn_and_recorded(toy):
    found = toy.generate_many(["Hello."] * 3, **SHORT)
    assert len({speech.seed for speech in found}) == 3
    again = toy.generate_many(["Hello."] * 3, seeds=[speech.seed for speech in found], **SHORT)
    assert bits(again) == bits(found)
    assert [speech.seed for speech in toy.generate_many(TEXTS[:3], seeds=np.int64(7), **SHORT)] == [7, 8, 9]
    assert [speech.seed for speech in toy.generate_many(TEXTS[:3], seeds=np.array([5, 4, 3]), **SHORT)] == [5, 4, 3]


def test_texts_of_any_ordered_kind(toy):
    expected = bits(toy.generate_many(TEXTS[:3], seeds=3, **SHORT))
    for texts in (tuple(TEXTS[:3]), (text for text in TEXTS[:3]), np.array(TEXTS[:3])):
        assert bits(toy.generate_many(texts, seeds=iter([3, 4, 5]), **SHORT)) == expected
    assert toy.generate_many([], progress=lambda *_: 1 / 0) == toy.generate_many(iter(()), [], []) == []


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("Hello.",), {}, r"texts: expected several texts \(generate speaks one\), got str"),
        ((b"Hello.",), {}, "texts: expected several texts .*, got bytes"),
        ((None,), {}, "texts: .*, got NoneType"),
        (({"a": 1},), {}, "texts: .*, got dict"),
        (({"a", "b"},), {}, "texts: .*, got set"),
        ((np.array("a"),), {}, "texts: .*, got ndarray"),
        ((["a", 3],), {}, r"texts\[1\]: expected str, got int"),
        ((np.array([["a"], ["b"]]),), {}, r"texts\[0\]: expected str, got ndarray"),
        ((["a", "b"], [None]), {}, "voices: expected one for each of 2 texts, got 1"),
        ((["a", "b"], 3), {}, "voices: expected a voice, a path, None, or one of these for each text, got int"),
        ((["a", "b"], [None, 3]), {}, r"voices\[1\]: expected a Voice, a path or None, got int"),
        ((["a", "b"], None, [1, 2, 3]), {}, "seeds: expected one for each of 2 texts, got 3"),
        ((["a", "b"], None, -1), {}, "seeds: expected a whole number from 0 to .*, got -1"),
        (
            (["a", "b"], None, 2**64 - 1),
            {},
            "seeds: expected a whole number from 0 to 18446744073709551614, got 18446744073709551615",
        ),
        ((["a", "b"], None, 1.0), {}, "seeds: expected a whole number .*, got 1.0"),
        ((["a", "b"], None, True), {}, "seeds: expected a whole number .*, got True"),
        ((["a", "b"], None, "1"), {}, "seeds: expected a whole number, one for each text, or None, got str"),
        ((["a", "b"], None, [1, None]), {}, r"seeds\[1\]: expected a whole number .*, got None"),
        ((["a", "b"], None, [1, 2**64]), {}, r"seeds\[1\]: expected a whole number"),
        ((["a"],), {"batch": 0}, "batch: expected a whole number from 1 to 1024, got 0"),
        ((["a"],), {"batch": 1.5}, "batch: expected a whole number"),
        ((["a"],), {"errors": "ignore"}, "errors: expected 'raise', 'return', got 'ignore'"),
        ((["a"],), {"finished": 3}, "finished: expected a callable .*, got int"),
        ((["a"],), {"temperature": float("nan")}, "temperature: expected a finite number, got nan"),
        ((["a"],), {"max_tokens": 1001}, "max_tokens: expected a whole number from 1 to 1000"),
        ((["a"],), {"watermark": "x"}, "watermark: expected 'perth', None, got 'x'"),
        ((["a"],), {"progress": 3}, "progress: expected"),
        ((["a"],), {"cancel": 3}, "cancel: expected"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(toy, arguments, options, message):
    def started(index, result):
        pytest.fail("it began to work")

    with pytest.raises(ArgumentError, match=message):
        toy.generate_many(*arguments, **{"finished": started, **options})


def test_errors_stand_in_the_places_of_their_texts(tts, other_voice, tmp_path):
    texts = [TEXTS[0], LONE_SURROGATE, TEXTS[1], TEXTS[2], TEXTS[3], TEXTS[4]]
    (tmp_path / "bad.wav").write_bytes(b"text")
    stranger = Voice(
        **{name: getattr(other_voice, name) for name in Voice.__dataclass_fields__ if name not in ("xvector", "metadata")},
        xvector=np.zeros(7, np.float32),
    )
    voices = [None, None, tmp_path / "absent.wav", None, tmp_path / "bad.wav", stranger]
    seen = {}
    found = tts.generate_many(texts, voices, 3, batch=2, errors="return", finished=seen.__setitem__, **SHORT)
    assert [type(result) for result in found] == [Speech, TextError, FileError, Speech, UnsupportedAudioError, VoiceError]
    assert list(map(id, found)) == [id(seen[index]) for index in range(6)]
    assert "U+DCFF" in str(found[1]) and "absent.wav" in str(found[2])
    for index in (0, 3):
        assert bits([found[index]]) == bits([tts.generate(texts[index], seed=3 + index, **SHORT)])
    with pytest.raises(BatchError, match=r"^4 of 6 texts failed; texts\[1\]: text: ") as caught:
        tts.generate_many(texts, voices, 3, **SHORT)
    assert [type(result) for result in caught.value.results] == [type(result) for result in found]
    assert bits([caught.value.results[3]]) == bits([found[3]])
    assert isinstance(caught.value.__cause__, TextError) and isinstance(caught.value, ChatterboxError)


@pytest.mark.parametrize("plan", ["rust", "rust,t3.sampler=python"])
def test_an_error_within_t3_and_behind_it_is_that_of_its_text(toy, monkeypatch, plan):
    """Ids that no table has, and a sound that fails."""
    pipeline = toy._pipeline
    tokenize, vocode = pipeline.stage("text.tokenize", "rust"), pipeline.stage("s3gen.vocoder", "rust")
    calls = []

    def ids(text):
        found = tokenize(text)
        return found + 10**6 if "morning" in text else found

    def fails_once(mel, phases, noise, callback=None):
        calls.append(len(mel))
        if len(calls) == 2:
            raise ArgumentError("mel: no")
        return vocode(mel, phases, noise)

    monkeypatch.setitem(pipeline._stages, ("text.tokenize", "rust"), ids)
    monkeypatch.setitem(pipeline._stages, ("s3gen.vocoder", "rust"), fails_once)
    found = toy.generate_many(TEXTS, seeds=3, batch=1, errors="return", backends=plan, **SHORT)
    assert [index for index, result in enumerate(found) if isinstance(result, Speech)] == [0, 3, 4, 5, 6]
    assert str(found[1]).startswith("text_ids: expected ids from 0 to") and str(found[2]) == "mel: no"


def test_a_voice_that_all_share_fails_at_once(toy, tmp_path):
    with pytest.raises(FileError, match=r"absent\.wav"):
        toy.generate_many(TEXTS, tmp_path / "absent.wav", errors="return", finished=lambda *_: pytest.fail("it began"))


@pytest.mark.parametrize("key", ["text.tokenize", "t3.sampler", "t3.decoder", "s3gen.flow", "watermark"])
def test_a_stage_in_python(toy, key):
    if reason := registry.missing(key, "python"):
        pytest.skip(reason)
    options = {"max_tokens": 6, "backends": f"rust,{key}=python"}
    found = toy.generate_many(TEXTS[:3], seeds=3, batch=2, **options)
    expected = [toy.generate(text, seed=3 + index, **options) for index, text in enumerate(TEXTS[:3])]
    assert bits(found) == bits(expected)
    assert all(many.plan[key] == "python" and many.timings.keys() == one.timings.keys() for many, one in zip(found, expected))


def test_progress_of_all_texts(toy):
    reports: list[tuple[str, int, int]] = []
    toy.generate_many(
        [*TEXTS[:6], LONE_SURROGATE], seeds=3, batch=2, errors="return", progress=lambda *r: reports.append(r), **SHORT
    )
    assert [report for report in reports if report[0] == "texts"] == [("texts", done, 7) for done in range(1, 8)]
    t3 = [report for report in reports if report[0] == "t3"]
    assert {total for _, _, total in t3} == {6 * 25} and [done for _, done, _ in t3] == sorted(done for _, done, _ in t3)
    assert t3[-1] == ("t3", 150, 150)
    assert sum(report == ("s3gen.vocoder", 1, 1) for report in reports) == 6


def test_times_of_t3_add_up_to_what_it_took(toy):
    toy.generate_many(TEXTS, seeds=3, **SHORT)
    started = time.perf_counter()
    found = toy.generate_many(TEXTS * 3, seeds=3, batch=4, max_tokens=100, watermark=None)
    taken = time.perf_counter() - started
    total = sum(sum(speech.timings.values()) for speech in found)
    assert 0.5 * taken < total < taken


@pytest.mark.parametrize("plan", ["rust", "rust,t3.sampler=python"])
def test_an_event_stops_it_in_the_middle(toy, plan):
    cancel, done = threading.Event(), []

    def finished(index, speech):
        done.append(index)
        if len(done) == 2:
            cancel.set()

    with pytest.raises(CancelledError):
        toy.generate_many(TEXTS, seeds=3, batch=2, finished=finished, cancel=cancel, backends=plan, **SHORT)
    assert len(done) == 2
    assert len(toy.generate("Hello.", seed=1, **SHORT))


def test_it_is_stopped_soon_while_t3_runs(toy):
    cancel, reached, outcome = threading.Event(), threading.Event(), []

    def work():
        try:
            outcome.append(toy.generate_many(TEXTS * 20, seeds=3, cancel=cancel, progress=watch, max_tokens=1000))
        except CancelledError as error:
            outcome.append(error)

    def watch(stage, done, total):
        if stage == "t3" and done:
            reached.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert reached.wait(30)
    started = time.perf_counter()
    cancel.set()
    thread.join(30)
    assert isinstance(outcome[0], CancelledError) and time.perf_counter() - started < 1


@pytest.mark.parametrize("plan", ["rust", "rust,t3.sampler=python"])
@pytest.mark.parametrize("stage", ["text.tokenize", "t3", "s3gen.flow", "texts", "finished"])
def test_what_a_callback_raises_comes_out_as_it_is(toy, stage, plan):
    """Also where it is an error of this package: it is not that of a text."""
    for raised in (ArgumentError("mine"), KeyboardInterrupt(), ZeroDivisionError()):

        def fail(at, done, total, raised=raised):
            if at == stage:
                raise raised

        def finished(index, result, raised=raised):
            if stage == "finished":
                raise raised

        with pytest.raises(type(raised)) as caught:
            toy.generate_many(TEXTS[:3], seeds=3, progress=fail, finished=finished, errors="return", backends=plan, **SHORT)
        assert caught.value is raised


def test_a_callback_stops_it_by_returning_false(toy):
    with pytest.raises(CancelledError, match=r"cancelled during texts \(1 of 7\)"):
        toy.generate_many(TEXTS, seeds=3, progress=lambda stage, done, total: stage != "texts", **SHORT)


def test_threads_that_share_a_model(toy):
    expected = [bits(toy.generate_many(TEXTS, seeds=seed, **SHORT)) for seed in range(3)]
    found: dict[int, list[bytes]] = {}
    work = [
        threading.Thread(
            target=lambda seed=seed: found.update({seed: bits(toy.generate_many(TEXTS, seeds=seed, batch=3, **SHORT))})
        )
        for seed in range(3)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join(60)
    assert [found.get(seed) for seed in range(3)] == expected


def test_its_arguments_are_those_of_generate():
    one, many = (inspect.signature(method).parameters for method in (ChatterboxTurbo.generate, ChatterboxTurbo.generate_many))
    assert list(many)[:7] == ["self", "texts", "voices", "seeds", "batch", "errors", "finished"]
    shared = [name for name in one if name not in ("self", "text", "voice", "seed")]
    assert list(many)[7:] == shared
    assert all(many[name] == one[name] for name in shared)
    assert many["batch"].default == 16 and many["errors"].default == "raise"
