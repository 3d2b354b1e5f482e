"""``tools/demo_model/quality.py``, with listeners that hear everything and nothing: what is counted, and when it fails."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from toy_model import TOY

TOOLS = Path(__file__).resolve().parents[1] / "tools" / "demo_model"


@pytest.fixture
def quality(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, whose listener is deaf and whose sentences are short."""
    monkeypatch.syspath_prepend(TOOLS)
    import listener
    import quality

    monkeypatch.setattr(listener, "transcript", lambda samples: "")
    monkeypatch.setattr(listener, "mos", lambda samples: 3.0)
    monkeypatch.setattr(quality, "MAX_TOKENS", 8)
    return quality


@pytest.mark.parametrize(
    ("spoken", "heard", "errors"),
    [
        ("It cost $42, didn’t it?", "it cost forty two didn't it", 1),
        ("Room 305 is grey.", "room three hundred five is gray", 0),
        ("The boat was drifting.", "the goat drifting", 2),
        ("The boat.", "", 2),
    ],
)
def test_wrong_words_are_counted(quality: ModuleType, spoken: str, heard: str, errors: int) -> None:
    listener = quality.listener
    assert listener.errors(listener.words(spoken), listener.words(heard)) == errors


def test_a_model_that_is_not_understood_fails(quality: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", TOY, "--sentences", "2", "--json", str(tmp_path / "q.json"), "--sounds", str(tmp_path)]
    assert quality.main(arguments) == 0
    assert quality.main([*arguments, "--most-errors", "0.99"]) == 1
    assert "100.0% of the model's words wrong; at most 99.0% may be" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "q.json").read_text("utf-8"))
    assert (row["name"], row["sentences"], row["stopped"], row["mos"]) == ("model", 2, 0, [3.0, 3.0])
    assert row["errors"] == row["words"] == 23 and row["seconds"] == pytest.approx(2 * (9 + 3) / 25)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["00.flac", "01.flac"]


def test_a_model_that_is_understood_passes(
    quality: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = iter(quality.SENTENCES.read_text("utf-8").splitlines())
    monkeypatch.setattr(quality.listener, "transcript", lambda samples: next(said).upper())
    assert quality.main(["--model", TOY, "--sentences", "2", "--most-errors", "0"]) == 0
    assert "| model | 0.0 % | 3.00 | 0 of 2 | – |" in capsys.readouterr().out


def test_the_share_of_errors_is_that_of_speech(quality: ModuleType) -> None:
    with pytest.raises(SystemExit) as stopped:
        quality.main(["--no-speech", "--most-errors", "0.5"])
    assert stopped.value.code == 2
