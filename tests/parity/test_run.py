"""The parity program from end to end at tiny size: Python against Rust, the official package, taps, exit codes, no PyTorch."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_model import TOY

from chatterbox_turbo_rs.checkpoint import config
from chatterbox_turbo_rs.cli.main import main
from chatterbox_turbo_rs.engine import registry
from chatterbox_turbo_rs.errors import ArgumentError, BackendError
from chatterbox_turbo_rs.parity import cases, report
from chatterbox_turbo_rs.parity.recording import NETWORKS
from chatterbox_turbo_rs.parity.run import Options, Parity, to_json

WITHOUT = registry.missing("t3.decoder", "python") or registry.missing("watermark", "python")
needs_torch = pytest.mark.skipif(WITHOUT is not None, reason=str(WITHOUT))
needs_official = pytest.mark.skipif(importlib.util.find_spec("chatterbox") is None, reason="chatterbox-tts is not installed here")


@pytest.fixture(scope="module")
def options(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Options:
    work = tmp_path_factory.mktemp("run")
    settings = config.read(tiny_checkpoint / "config.json")
    return Options(tiny_checkpoint, settings, cases.quick(work), work, note=lambda _: None)


@pytest.fixture(scope="module")
def found(options: Options) -> tuple[dict[str, Any], dict[str, Any]]:
    return Parity(options).run()


@pytest.fixture(scope="module")
def few(options: Options) -> Options:
    """One clip and one short text, isolated."""
    given = options.cases
    text = replace(given.texts[0], clip="odd", max_tokens=12)
    return replace(options, cases=cases.Cases(given.clips[1:], [text], given.sentences[:2]), modes=("isolated",))


@needs_torch
def test_both_sides_agree_in_all_25_boxes(found: tuple[dict[str, Any], dict[str, Any]]) -> None:
    result, _ = found
    boxes = [box for section in result["sections"] for box in section["boxes"]]
    assert {box["id"]: box["verdict"] for box in boxes} == {box["id"]: "ok" for box in boxes} and len(boxes) == 25
    assert result["summary"]["failed"] == result["summary"]["missing"] == 0
    assert all(row["box"] for row in result["rows"]), "a row without a box"
    assert all(box["answer"] for box in boxes)
    stages = {row["stage"].partition("@")[0] for row in result["rows"]}
    assert set(registry.TABLE) <= stages
    for mode in ("loaded", "isolated", "chained"):
        assert any(row["mode"] == mode for row in result["rows"])
    assert set(result["times"]) == {"python", "rust"} and set(result["times"]["rust"]) == set(registry.TABLE)


@needs_torch
def test_the_loop_stops_where_a_case_says(found: tuple[dict[str, Any], dict[str, Any]]) -> None:
    lengths = {row["case"]: row["figures"]["length"] for row in found[0]["rows"] if row["stage"] == "t3.loop"}
    assert lengths["stops"] == 6 and lengths["stop_first"] == 9 and lengths["greedy"] == 61


@needs_torch
def test_conversions_are_measured_like_texts(options: Options, found: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """From the source's file to the marked samples, isolated and chained; nothing of T3."""
    assert [case.name for case in options.cases.conversions] == ["odd as speech", "odd as odd"]
    sound = {"s3gen.encoder", "s3gen.flow", "s3gen.vocoder@f0", "s3gen.vocoder@spectrum"}
    wanted = {"reference.load", "s3tokenizer.mel", "s3tokenizer.tokens"} | sound
    more = {"isolated": {"watermark", "s3gen.vocoder@decoder"}, "chained": {"end_to_end@spectrum", "s3gen.flow@prompt_mel"}}
    for case in options.cases.conversions:
        for mode, own in more.items():
            rows = [row for row in found[0]["rows"] if (row["case"], row["mode"]) == (case.name, mode)]
            stages = {row["stage"] for row in rows}
            assert wanted | own <= stages and not any(stage.startswith(("t3", "text")) for stage in stages)
            lengths = {row["stage"]: row["figures"]["length"] for row in rows}
            assert lengths["s3tokenizer.tokens"] == 150 and lengths["reference.load"] == 95_840


@needs_torch
def test_a_report_has_four_forms(found: tuple[dict[str, Any], dict[str, Any]]) -> None:
    result, plots = found
    assert json.loads(to_json(result))["summary"]["failed"] == 0
    assert "25" not in report.terminal(result)[:10] and report.markdown(result).count("[x]") >= 25
    page = report.html(result, plots)
    assert page.startswith("<!doctype html>") and page.count("data:image/png;base64") >= 3
    assert len(report.parity_table(result).splitlines()) == 27
    assert len(plots["tokens"]) == 4 and plots["mels"][0]["reference"].shape[1] == 80


@needs_torch
@pytest.mark.parametrize("stage", NETWORKS)
def test_taps_agree_on_both_sides(few: Options, stage: str) -> None:
    result = Parity(replace(few, taps=stage, stages=(stage,))).run()[0]["taps"]
    rows = result["rows"]
    compared = [row for row in rows if row["verdict"] in ("ok", "FAIL")]
    assert result["first"] is None and len(compared) >= 2
    # T3's last block gives the prefill's last row alone, so that this tap is not there in Rust.
    only = [row["name"] for row in rows if row not in compared]
    assert only == ([f"tfmr.h.{few.config['t3']['layers'] - 1}#1"] if stage == "t3.decoder" else [])


@needs_torch
def test_taps_name_the_layer_of_an_error(few: Options) -> None:
    """An error in one block: the blocks before it agree, and it is the first that does not."""

    def changed(stage: Any) -> Any:
        import torch

        block = stage.module.decoder["estimator"].mid_blocks[1][1][0]
        with torch.no_grad():
            block.norm1.weight.mul_(1.001)
        return stage

    planted = replace(few, taps="s3gen.flow", stages=("s3gen.flow",), replaced={"s3gen.flow": changed})
    result = Parity(planted).run()[0]
    assert result["taps"]["first"] == "flow.decoder.estimator.mid_blocks.1.1.0#1"
    before = [row["verdict"] for row in result["taps"]["rows"]]
    assert "FAIL" not in before[: before.index("FAIL")] and before.index("FAIL") > 5
    assert "flow.decoder.estimator.mid_blocks.1.1.0#1" in report.terminal(result)


@needs_official
@needs_torch
def test_three_parties(options: Options) -> None:
    given = replace(options.cases, texts=[t for t in options.cases.texts if t.name in ("tags", "stops")])
    three = replace(
        options, cases=given, parties=("official", "python", "rust"), official_python=Path(sys.executable), taps="s3gen.encoder"
    )
    result = Parity(three).run()[0]
    assert result["comparisons"] == [["official", "python"], ["official", "rust"], ["python", "rust"]]
    failed = [(row["comparison"], row["stage"], row["case"], row["wrong"]) for row in result["rows"] if row["verdict"] == "FAIL"]
    assert not failed and result["summary"]["missing"] == 0
    assert result["taps"]["comparison"] == ["official", "rust"] and result["taps"]["first"] is None


def test_without_pytorch_the_other_stages_are_compared(few: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks' rows say what is missing; the run goes on."""
    real = registry.missing
    lacking = (*NETWORKS, "watermark")
    monkeypatch.setattr(
        registry, "missing", lambda key, name: "no torch here" if name == "python" and key in lacking else real(key, name)
    )
    result = Parity(few).run()[0]
    assert result["comparisons"] == [["rust", "python"]] and result["summary"]["failed"] == 0
    verdicts = {row["stage"].partition("@")[0]: row["verdict"] for row in result["rows"]}
    assert all(verdicts[key] == ("missing" if key in lacking else "ok") for key in registry.TABLE)
    assert "no torch here" in report.terminal(result)


def test_the_command_says_what_is_wrong(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = str(data / "clips" / "short.flac")
    for code, arguments, says in (
        (2, ["--parties", "python,ggml"], "--parties: expected some of official, python, rust, got 'ggml'"),
        (2, ["--parties", "rust"], "parties: expected at least two of official, python, rust, got rust"),
        (2, ["--stages", "t4"], "--stages: unknown stage 't4'"),
        (2, ["--taps", "text.normalize", "--parties", "python,rust"], "--taps: expected one of voice_encoder.embedding"),
        (1, ["--official-python", str(tmp_path / "none")], "none: No such file or directory"),
        (1, ["--clip", str(tmp_path / "none.wav")], "none.wav: no such file"),
        (2, ["--clip", short, "--clip", short], "--clip: expected one clip, or several with --thorough"),
        (1, ["--clip", short], "expected a clip of at least 5.1 s, found 5.01 s"),
        (2, ["--reuse"], "--reuse: expected --work DIR"),
        (1, ["--html", str(tmp_path / "no" / "x.html")], "cannot be written: no directory"),
    ):
        assert main(["parity", *arguments]) == code, arguments
        assert says in capsys.readouterr().err, arguments


def test_an_environment_without_the_package_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("chatterbox") is not None:
        pytest.skip("chatterbox-tts is installed here: the environment without it is the other run's")
    assert main(["parity", "--official-python", sys.executable]) == 1
    assert "cannot import the official package: ModuleNotFoundError" in capsys.readouterr().err


@needs_torch
def test_the_command_writes_its_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {name: tmp_path / f"report.{name}" for name in ("json", "md", "html")}
    arguments = ["--json", str(files["json"]), "--markdown", str(files["md"]), "--html", str(files["html"])]
    assert (
        main(["parity", "--model", TOY, "--parties", "python,rust", "--stages", "text,t3", "--mode", "isolated", *arguments]) == 0
    )
    assert "T3 Model" in capsys.readouterr().out
    assert json.loads(files["json"].read_text("utf-8"))["summary"]["failed"] == 0
    assert files["html"].read_text("utf-8").startswith("<!doctype html>") and "[x]" in files["md"].read_text("utf-8")


@needs_torch
def test_a_failed_row_is_exit_code_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from chatterbox_turbo_rs.stages.text.normalize import python

    monkeypatch.setattr(python, "create", lambda resources: lambda text: f"{text}!")
    arguments = ["parity", "--model", TOY, "--parties", "python,rust", "--stages", "text.normalize", "--mode", "isolated"]
    assert main(arguments) == 1
    assert "FAIL" in capsys.readouterr().out


def test_parties_that_cannot_be_had(options: Options) -> None:
    with pytest.raises(BackendError, match="official: the official package cannot be imported here; pass --official-python PATH"):
        Parity(replace(options, parties=("official", "rust"))).run()
    with pytest.raises(ArgumentError, match="--taps: expected one of"):
        Parity(replace(options, taps="watermark"))
