"""Long text as segments: limits, marks, seeds; Python and Rust cut alike."""

from __future__ import annotations

import random

import pytest

from chatterbox_turbo_rs import Split, _core
from chatterbox_turbo_rs.engine import draws
from chatterbox_turbo_rs.engine.segments import SLACK, segments
from chatterbox_turbo_rs.errors import ArgumentError, TextError

PROSE = (
    "Dr. J. R. Smith vs. U.S. Steel was decided at 3.5 p.m. on a Tuesday, in front of 1,204 people. "
    '"Is it over?" she asked. "Yes! No." He left... Then, after a while, came the others; nobody had called them. '
    "It cost $3.50 [sigh] or 1 000 000 crowns: too much! Well [laugh] that is what they said, and who would know better — "
    "certainly not the man at the door.\n\nThe next day it rained. «Bonjour. Ça va?» dit-il. 这是第一句。这是第二句！好吗？\r\n"
    "Wrapped lines\ngo on, and do not\nend a sentence. A heading\nThe text under it.\n\n* * *\n\nשלום עולם. مرحبا بالعالم.\n"
)


def rust(text: str, seed: int, split: Split) -> list[tuple]:
    limits = (split.first, split.longest, split.sentence_pause, split.paragraph_pause, split.language)
    return _core.text_segments(text, seed, *limits)


def tuples(found) -> list[tuple]:
    return [(s.text, s.pause_after, s.seed, s.start_of_paragraph) for s in found]


def words(text: str) -> str:
    return "".join(text.split())


def random_texts(count: int):
    rng = random.Random(7)
    alphabet = [
        *"abcdeé.,;:!?—… \n",
        "\r\n",
        " ",
        " ",
        "1",
        "23",
        "Dr.",
        "[laugh]",
        "[pause 0.5s]",
        "[pause:30ms]",
        '"',
        "“",
        "字",
        "。",
        "，",
    ]
    alphabet += [
        "e\u0301",
        "\u2028",
        "\xa0",
        "[",
        "]",
        "\n\n",
        "J.",
        "U.S.",
        "👍🏽",
        "אב",
        "word",
        "another",
        "…",
        "(",
        ")",
        "%",
        "-",
    ]
    for _ in range(count):
        yield "".join(rng.choice(alphabet) for _ in range(rng.randint(0, 900)))


@pytest.mark.parametrize(
    "split",
    [Split(), Split(first=20, longest=20), Split(longest=50), Split(first=40, longest=60, sentence_pause=0, paragraph_pause=2)],
)
def test_python_and_rust_cut_alike_and_nothing_is_lost(split):
    for number, text in enumerate([PROSE, PROSE * 5, "a" * 5000, "word " * 2000, *random_texts(150)]):
        try:
            found = segments(text, seed=number, split=split)
        except TextError as error:
            with pytest.raises(TextError) as also:
                rust(text, number, split)
            assert str(also.value) == str(error)
            continue
        assert tuples(found) == rust(text, number, split)
        if len(found) > 1:
            spoken = words("".join(s.text for s in found))
            # pauses, and lines that nobody can speak, are all that may be missing
            rest = iter(words(text))
            assert all(character in rest for character in spoken)
            assert [c for c in spoken if c.isalpha() and c not in "pausem"] == [
                c for c in words(text) if c.isalpha() and c not in "pausem"
            ]
            assert all(len(s.text) <= split.longest + SLACK for s in found)
            assert all(s.text == s.text.strip() for s in found)
            assert found[-1].pause_after == 0 or "pause" in text


def test_up_to_the_limit_a_text_is_left_alone():
    for text in ("", " ", "...", "A.\n\nB. ", "x" * 280, "[pause it]"):
        assert tuples(segments(text, seed=5)) == [(text, 0.0, 5, True)]
    assert len(segments("x" * 281)) == 2


def test_prose():
    found = segments(PROSE, seed=3)
    text = [s.text for s in found]
    assert text[0] == "Dr. J. R. Smith vs. U.S. Steel was decided at 3.5 p.m. on a Tuesday, in front of 1,204 people."
    assert text[1].startswith('"Is it over?"') and len(text[1]) > 100
    assert [s.text for s in found if s.start_of_paragraph] == [
        text[0],
        "The next day it rained. «Bonjour. Ça va?» dit-il. 这是第一句。这是第二句！好吗？",
        "Wrapped lines\ngo on, and do not\nend a sentence. A heading",
        "The text under it.",
        "שלום עולם. مرحبا بالعالم.",
    ]
    assert [s.pause_after for s in found][-2:] == [0.5, 0.0]
    assert "* * *" not in text


def test_a_long_sentence_is_cut_behind_clauses_then_between_words():
    clauses = "the house at the end of the long road was empty, " * 12
    assert all(s.text.endswith(",") for s in segments(clauses)[:-1])
    plain = "one house at the end of the long road was empty and " * 12
    found = segments(plain)
    assert " ".join(s.text for s in found) == plain.strip()
    assert all(s.pause_after == 0 for s in found), "a reader does not pause between two words"
    assert len(found[0].text) <= 100
    assert min(len(s.text) for s in found[1:]) > 150, "pieces are about equally long"


def test_no_cut_inside_tags_numbers_and_abbreviations():
    text = "so we met Mr. Brown and paid 1 000 000 to Prof. Dr. Green [clear throat] at No. 5 or e.g. later " * 30
    for limit in range(20, 80):
        for segment in segments(text, split=Split(first=20, longest=limit)):
            assert segment.text.count("[") == segment.text.count("]")
            assert not segment.text.endswith(("Mr.", "Prof.", "Dr.", "No.", "e.g.", " 1", "1 000"))
            assert not segment.text.startswith(("000", "throat"))


def test_no_short_rest_stays_alone():
    for size in range(240, 300):
        text = "A" + "b" * (size - 2) + ". " + "No."
        assert [len(s.text) for s in segments(text, split=Split(first=280))] == [size + 4] or size > 280
    rest = segments("A sentence of some length stands here, and it goes on. " * 5 + "I do.", split=Split(first=280))
    assert min(len(s.text) for s in rest) >= 20


def test_pauses_are_exact():
    found = segments(
        "[pause 1s]One. [pause 0.5s] Two[pause:500ms]three [PAUSE: 2 s][pause 250ms]\n\n[pause 3 s]Four.[pause 1s]", seed=1
    )
    assert [(s.text, s.pause_after) for s in found] == [("", 1), ("One.", 0.5), ("Two", 0.5), ("three", 5.25), ("Four.", 1)]
    assert [s.start_of_paragraph for s in found] == [True, True, False, False, True]


def test_the_first_segment_is_never_longer_than_the_others_may_be():
    assert Split(longest=50) == Split(first=50, longest=50)
    with pytest.raises(ArgumentError, match="split.first: expected a whole number from 20 to 1000, got 1001"):
        Split(first=1001)


def test_seeds_are_derived():
    found = segments(PROSE * 3, seed=2**64 - 1)
    assert [s.seed for s in found] == [draws.derived(2**64 - 1, i) for i in range(len(found))]
    assert found[0].seed == 2**64 - 1
    assert len({s.seed for s in found}) == len(found)


def test_bad_input():
    for text in ("." * 300, "[pause 1s]", " \n" * 200, "* [pause 3s] *"):
        with pytest.raises(TextError, match="expected words"):
            segments(text)
    with pytest.raises(TextError, match=r"\[pause 61s\]: expected a pause of at most 60 s"):
        segments("a [pause 61s] b")
    for bad in (
        {"longest": 19},
        {"first": 19},
        {"first": 1001},
        {"first": True},
        {"attempts": 10},
        {"sentence_pause": -1},
        {"paragraph_pause": float("nan")},
        {"language": "no such"},
    ):
        with pytest.raises(ArgumentError, match=f"split.{next(iter(bad))}"):
            Split(**bad)


def test_a_megabyte_takes_linear_time():
    text = PROSE * 2000
    assert len(text) > 1_000_000
    found = segments(text)
    assert max(len(s.text) for s in found) <= 300
    assert len(segments("x" * 1_000_000)) == -(-(1_000_000 - 100) // 280) + 1
