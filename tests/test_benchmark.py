"""The command ``bench``: what it measures and where, its table and JSON, and one line for bad input."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from toy_model import TOY

from chatterbox_turbo_rs import errors
from chatterbox_turbo_rs.bench import fresh_process, measure
from chatterbox_turbo_rs.bench.table import table
from chatterbox_turbo_rs.cli.bench import reached
from chatterbox_turbo_rs.cli.main import main
from chatterbox_turbo_rs.engine import devices, registry

ROOT = Path(__file__).resolve().parents[1]
TINY = ["--seconds", "0.2,0.4", "--threads", "1,2", "--repeat", "2"]
GENERATING = ["text.normalize", "text.tokenize", "t3", "s3gen.encoder", "draws", "s3gen.flow", "s3gen.vocoder", "watermark"]


def bench(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["bench", *map(str, arguments)])
    return (code, *capsys.readouterr())


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON of a tiny run of the toy with everything else at its default but the lengths."""
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    assert main(["bench", "--model", TOY, *TINY, "--json", str(path)]) == 0
    return json.loads(path.read_text("utf-8"))


def test_the_json_says_what_was_measured_and_where(result):
    assert result["device"] == devices.resolve("auto", "auto", registry.resolve())
    assert result["format"] == 1 and result["model"] == "toy" and result["repeat"] == 2
    assert result["machine"]["cpu"] and isinstance(result["machine"]["features"], list)
    assert result["package"] and "max_tokens" in result["lengths"]
    assert [(run["threads"], run["seconds"]) for run in result["runs"]] == [(1, 0.2), (1, 0.4), (2, 0.2), (2, 0.4)]
    for run in result["runs"]:
        assert "batch" not in run
        assert set(run["plan"]) == set(registry.TABLE)
        assert list(run["stages"]) == GENERATING
        assert "s3tokenizer.tokens" in run["voice"]["stages"] and "t3" not in run["voice"]["stages"]


def test_lengths_are_forced_and_the_numbers_fit_together(result):
    for run in result["runs"]:
        assert run["tokens"] == round(25 * run["seconds"]) and run["audio_seconds"] == pytest.approx(run["seconds"] + 0.12)
        times = [run["end_to_end"], run["voice"], run["t3_prefill"], *run["stages"].values(), *run["voice"]["stages"].values()]
        for value in times:
            first, *later = value["runs"]
            assert len(later) == 2 and min(value["runs"]) >= 0
            assert (value["first"], value["best"]) == (first, min(later)) and value["best"] <= value["median"]
        total = run["end_to_end"]["runs"][1]
        assert sum(stage["runs"][1] for stage in run["stages"].values()) + run["outside_stages"]["runs"][1] == pytest.approx(
            total
        )
        assert run["outside_stages"]["best"] >= 0
        assert run["real_time_factor"]["best"] == pytest.approx(run["end_to_end"]["best"] / run["audio_seconds"])
        assert run["tokens_per_second"]["best"] == pytest.approx(run["tokens"] / run["stages"]["t3"]["best"])
        voice = sum(stage["runs"][1] for stage in run["voice"]["stages"].values())
        assert 0 < voice <= run["voice"]["runs"][1]
        read = run["t3_step_memory"]
        assert read["share"] == pytest.approx(read["bytes"] / run["memory_bytes_per_second"] / run["t3_step"]["best"])
        assert read["bytes"] > 0 and 1e8 < run["memory_bytes_per_second"] < 1e13
        assert run["load"] > 0


@pytest.mark.skipif(measure.peak_bytes() is None, reason="this system does not tell a process's peak of memory")
def test_memory_only_grows(result):
    for run in result["runs"]:
        peaks = list(run["peak_bytes"].values())
        assert list(run["peak_bytes"]) == ["start", "load", "voice", "first", "later"]
        assert peaks == sorted(peaks) and 5_000_000 < peaks[0] < peaks[-1]


@pytest.mark.skipif(measure.peak_bytes() is None, reason="this system does not tell a process's peak of memory")
def test_memory_is_that_of_the_process_alone():
    own = fresh_process.call(f"{__name__}:peak_before_and_after", 0, 1)
    held = bytearray(400_000_000)
    held[::4096] = b"x" * len(held[::4096])
    before, after = fresh_process.call(f"{__name__}:peak_before_and_after", 100_000_000, 1)
    assert len(held) and before < own[0] + 100_000_000, "the peak is inherited"
    assert after - before > 90_000_000


def peak_before_and_after(size: int) -> list[int | None]:
    before = measure.peak_bytes()
    held = b"x" * size
    return [before, measure.peak_bytes()] if len(held) == size else []


def test_a_process_gets_its_threads_and_keeps_its_output_apart(capfd):
    assert fresh_process.call(f"{__name__}:threads_and_noise", {}, 3) == ["3", "3", 3]
    assert fresh_process.call(f"{__name__}:threads_and_noise", {}, 1) == ["1", "1", 1]
    assert "noise" not in "".join(capfd.readouterr())


def threads_and_noise(_: Any) -> list[Any]:
    print("noise")
    os.write(1, b"noise")
    from chatterbox_turbo_rs import _core

    return [os.environ["RAYON_NUM_THREADS"], os.environ["OMP_NUM_THREADS"], _core.build_info()["threads"]]


def fails(how: str) -> None:
    if how == "ours":
        raise errors.VoiceError("the voice is bad")
    if how == "exits":
        os._exit(7)
    raise ZeroDivisionError("by zero")


def test_errors_of_a_process_arrive():
    with pytest.raises(errors.VoiceError, match="^the voice is bad$"):
        fresh_process.call(f"{__name__}:fails", "ours", 1)
    with pytest.raises(errors.InternalError, match="code 7: it said nothing"):
        fresh_process.call(f"{__name__}:fails", "exits", 1)
    with pytest.raises(errors.InternalError, match="code 1: ZeroDivisionError: by zero"):
        fresh_process.call(f"{__name__}:fails", "other", 1)


def test_the_table_has_every_number(result):
    text = table(result)
    assert "\n1 thread " in text and "\n2 threads " in text
    assert result["machine"]["cpu"] in text and result["package"] in text and result["lengths"] in text
    assert text.count("0.32 s of sound") == text.count("0.52 s of sound") == 2
    for run in result["runs"]:
        for stage in [*run["stages"].values(), run["end_to_end"]]:
            assert f"{stage['first']:.3f}" in text and f"{stage['median']:.3f}" in text
    assert {"reading alone, of their time", "real-time factor", "T3 tokens a second", "peak memory, MB"} <= {
        line[:34].strip() for line in text.splitlines()
    }
    assert max(map(len, text.splitlines()[5:])) <= 120


def test_the_table_says_so_where_memory_is_unknown(result):
    runs = [{**run, "peak_bytes": dict.fromkeys(run["peak_bytes"])} for run in result["runs"]]
    lines = table({**result, "runs": runs}).splitlines()
    assert all(line.split()[-1] == "–" for line in lines if "memory" in line or ", added" in line)


def test_texts_together_beside_one_alone(capsys):
    arguments = ["--model", TOY, "--seconds", "0.2,0.4", "--threads", "2", "--repeat", "2", "--batch", "3", "--json", "-"]
    code, out, _ = bench(capsys, *arguments)
    assert code == 0
    result = json.loads(out)
    text = table(result)
    for run in result["runs"]:
        batch = run["batch"]
        assert batch["texts"] == 3 and batch["audio_seconds"] == pytest.approx(3 * run["audio_seconds"])
        assert list(batch["stages"]) == GENERATING
        for turn in range(3):
            taken = batch["end_to_end"]["runs"][turn]
            assert batch["real_time_factor"]["runs"][turn] == pytest.approx(taken / batch["audio_seconds"])
            assert 0.5 * taken < sum(stage["runs"][turn] for stage in batch["stages"].values()) < taken
            factors = [batch[name]["runs"][turn] for name in ("real_time_factor", "one_by_one")]
            assert batch["ratio"]["runs"][turn] == pytest.approx(factors[0] / factors[1])
        assert list(run["peak_bytes"])[-1] == "batch"
        assert f"{batch['ratio']['median']:.3f}" in text and f"{batch['end_to_end']['first']:.3f}" in text
    assert "\n3 texts together, end to end" in text and "\n  batch, added" in text


def test_a_stream_beside_the_whole(capsys):
    code, out, _ = bench(capsys, "--model", TOY, "--seconds", "1.5", "--threads", "2", "--repeat", "2", "--stream", "--json", "-")
    assert code == 0
    result = json.loads(out)
    [run] = result["runs"]
    stream, text = run["stream"], table(result)
    for turn in range(3):
        first, whole, once = (stream[name]["runs"][turn] for name in ("first", "end_to_end", "offline"))
        assert 0 < first < whole and stream["waited"]["runs"][turn] >= 0
        assert stream["ratio"]["runs"][turn] == pytest.approx(whole / once)
    assert list(run["peak_bytes"])[-1] == "stream"
    assert f"{stream['first']['median']:.3f}" in text and "\nstreamed, first sound" in text and "\n  stream, added" in text


def test_json_on_standard_output_and_a_named_side(capsys):
    arguments = [
        "--model",
        TOY,
        "--seconds",
        "0.2",
        "--threads",
        "1",
        "--repeat",
        "1",
        "--backends",
        "rust,text=python",
        "--json",
        "-",
    ]
    code, out, err = bench(capsys, *arguments, "--clip", ROOT / "tests" / "data" / "clips" / "short.flac")
    assert code == 0 and err == "chatterbox-turbo: 0.2 s on 1 thread\n"
    (run,) = json.loads(out)["runs"]
    assert run["plan"]["text.tokenize"] == "python" and run["plan"]["t3.decoder"] == "rust"
    assert "(python)" in table(json.loads(out))


@pytest.mark.parametrize(
    ("code", "arguments", "parts"),
    [
        (2, ["--seconds", "0"], ["--seconds", "from 0.08 to 40", "'0'"]),
        (2, ["--seconds", "2,,10"], ["--seconds", "''"]),
        (2, ["--seconds", "nan"], ["--seconds", "'nan'"]),
        (2, ["--seconds", "41"], ["--seconds", "'41'"]),
        (2, ["--threads", "1.5"], ["--threads", "a whole number from 1", "'1.5'"]),
        (2, ["--threads", "0"], ["--threads", "'0'"]),
        (2, ["--repeat", "0"], ["--repeat", "'0'"]),
        (2, ["--repeat", "1,2"], ["--repeat", "one number", "'1,2'"]),
        (2, ["--batch", "0"], ["--batch", "from 1 to 1024", "'0'"]),
        (2, ["--batch", "1,2"], ["--batch", "one number", "'1,2'"]),
        (1, ["--json", "no/such/folder/x.json"], ["--json", "no directory"]),
        (1, ["--json", "."], ["--json", "found a directory"]),
        (1, ["--clip", "absent.wav"], ["absent.wav", "no such file"]),
        (2, ["--backends", "fast"], ["backends", "'fast'"]),
        (1, ["--model", "/no/such/model"], ["/no/such/model"]),
        (2, ["--precision", "f99", "--seconds", "0.2"], ["precision", "'f99'"]),
        (2, ["--device", "abacus", "--seconds", "0.2"], ["device", "abacus"]),
    ],
)
def test_bad_input_is_one_line(capsys, code, arguments, parts):
    found, out, err = bench(capsys, *arguments)
    *progress, line = err.splitlines()
    assert (found, out) == (code, "") and line.startswith("chatterbox-turbo"), err
    assert all(text.startswith("chatterbox-turbo: 0.2 s on 1") for text in progress), err
    assert all(part in line for part in parts), err


def test_a_seed_that_stops_too_soon_is_replaced(monkeypatch):
    answers = {1: {"stopped": 3}, 2: {"stopped": 4}, 3: {"seed": 3}}
    monkeypatch.setattr(fresh_process, "call", lambda function, job, threads: answers[job["seed"]])
    assert reached({"seconds": 2}, 1) == {"seed": 3}
    monkeypatch.setattr(fresh_process, "call", lambda function, job, threads: {"stopped": job["seed"]})
    with pytest.raises(errors.ChatterboxError, match="--seconds 2: .* after 1, 2, 3, 4, 5, 6, 7, 8 tokens"):
        reached({"seconds": 2}, 1)


def test_a_run_that_stops_too_soon_is_not_measured(monkeypatch):
    job = {
        "model": TOY,
        "revision": None,
        "device": "auto",
        "precision": "auto",
        "backends": None,
        "clip": None,
        "repeat": 1,
        "seconds": 0.4,
    }
    monkeypatch.setattr(measure, "tokens_of", lambda seconds: 8)
    speak = measure.ChatterboxTurbo.generate
    shorter = lambda tts, text, **options: speak(tts, text, **{**options, "max_tokens": 5})  # noqa: E731
    monkeypatch.setattr(measure.ChatterboxTurbo, "generate", shorter)
    assert measure.run({**job, "seed": 1}) == {"stopped": 6}


@pytest.mark.parametrize("seconds", [0.08, 1, 2, 10, 30, 40])
def test_texts_take_longer_than_the_length(seconds):
    text = measure.text_of(seconds)
    assert 20 * seconds <= len(text) <= 20 * seconds + 32
    assert text[0] == "T" and text[-1] == "." and "  " not in text


def test_the_stopwatch_adds_up_the_calls_of_a_stage(monkeypatch):
    times = iter([0.0, 1.0, 1.5, 3.5, 4.0, 4.25])
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(times))
    watch = measure.Stopwatch()
    for stage, done in (("a", 0), ("a", 1), ("b", 0), ("b", 1), ("a", 0), ("a", 1)):
        watch(stage, done, 1)
    assert watch.seconds == {"a": 1.25, "b": 2.0}
