"""What the parties are given: the same every time, and what the checklist needs of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from chatterbox_turbo_rs.checkpoint import config
from chatterbox_turbo_rs.engine import draws
from chatterbox_turbo_rs.errors import AudioError
from chatterbox_turbo_rs.parity import cases, official_party


def frames(path: Path) -> int:
    info = soundfile.info(path)
    return info.frames * 24000 // (info.samplerate * 480)


def test_the_two_cuts_have_an_even_and_an_odd_number_of_frames(tmp_path: Path) -> None:
    whole, odd = cases.quick(tmp_path).clips
    assert frames(whole.path) == 300 and frames(odd.path) == 299
    assert whole.single_stage() and odd.single_stage(16_000)
    samples, rate = soundfile.read(odd.path, dtype="float32")
    assert np.array_equal(samples, soundfile.read(whole.path, dtype="float32")[0][: len(samples)]) and len(samples) > 5 * rate


def test_a_clip_that_is_too_short_is_refused(tmp_path: Path, data: Path) -> None:
    with pytest.raises(AudioError, match=r"short.flac: expected a clip of at least 5.1 s, found 5.01 s"):
        cases.quick(tmp_path, data / "clips" / "short.flac")


def test_the_stop_token_is_drawn_where_a_case_says() -> None:
    for step in (0, 6):
        seed = cases.seed_that_stops(step)
        uniform = draws.uniforms(seed, draws.T3, step, 1)[0]
        assert int(uniform * 6563) == 6562
        assert all(int(u * 6563) < 6562 for u in draws.uniforms(seed, draws.T3, 0, step))


@pytest.mark.parametrize("kind", ["quick", "thorough"])
def test_cases_cover_the_rules(kind: str, tmp_path: Path, data: Path) -> None:
    clips = [data / "clips" / f"{name}.flac" for name in ("short", "stereo", "long")]
    given = cases.quick(tmp_path) if kind == "quick" else cases.thorough(clips)
    names = [text.name for text in given.texts]
    assert len(set(names)) == len(names) and {"empty", "greedy", "narrow", "unfiltered", "stops", "stop_first"} <= set(names)
    assert {text.clip for text in given.texts} == {clip.name for clip in given.clips}
    assert any(text.parameters.get("top_k") == 1 for text in given.texts)
    assert "" in given.sentences and len(given.sentences) >= 40
    assert given.conversions and {case.clip for case in given.conversions} <= {clip.name for clip in given.clips}
    assert len({case.name for case in given.conversions} | set(names)) == len(given.conversions) + len(names)
    assert len({case.seed for case in given.conversions}) == len(given.conversions)
    if kind == "thorough":
        assert max(len(text.text) for text in given.texts) > 5000 and max(text.max_tokens for text in given.texts) >= 200


def test_a_job_is_the_same_every_time(tmp_path: Path) -> None:
    settings, given = config.builtin("turbo"), cases.quick(tmp_path)
    found = []
    for name in ("a", "b"):
        directory = tmp_path / name
        directory.mkdir()
        official_party.write_job(directory, tmp_path, settings, given)
        found.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())})
    assert found[0] == found[1] and len(found[0]) == 1 + len(given.texts) + len(given.conversions)
    job = json.loads((tmp_path / "a" / "job.json").read_text("utf-8"))
    assert [text["name"] for text in job["texts"]] == [text.name for text in given.texts]
    assert [case["name"] for case in job["conversions"]] == ["odd as speech", "odd as odd"]
    assert {case["source"] for case in job["conversions"]} == {str(tmp_path / "odd.wav")}


def test_draws_are_those_of_the_pipeline() -> None:
    text = cases.Text("x", "x", "speech", 5, 9)
    arrays = cases.arrays(text, 250, 80, 9)
    assert np.array_equal(arrays["uniforms"], draws.uniforms(9, draws.T3, 0, 6))
    assert np.array_equal(arrays["flow"][:7], draws.normals(9, draws.FLOW, 0, 7, 80))
    assert arrays["noise"].shape == (480 * 2 * 9, 9) and arrays["phases"][0] == 0.0


def test_short_clips_are_converted_into_every_voice(tmp_path: Path) -> None:
    """Of longer ones the whole chain says nothing, and the official package would not cut what conversion does."""
    for name, seconds in (("short", cases.CONVERTED), ("long", cases.CONVERTED + 0.05)):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(round(8_000 * seconds)), 8_000)
    given = cases.thorough([tmp_path / "short.wav", tmp_path / "long.wav"])
    assert [case.name for case in given.conversions] == ["short as long"]
