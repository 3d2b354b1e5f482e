"""What a release consists of: the files, the workflows that build them, the program that listens to the real weights."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy_model import TOY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TAG = "v1.2.3"
CHANGES = "# Changelog\n\n## 1.2.3 (1 May 2030)\n"
FILES = [
    "chatterbox_turbo_rs-1.2.3.tar.gz",
    *(
        f"chatterbox_turbo_rs-1.2.3-cp310-abi3-{platform}.whl"
        for platform in (
            "manylinux_2_28_x86_64",
            "manylinux_2_28_aarch64",
            "musllinux_1_2_x86_64",
            "musllinux_1_2_aarch64",
            "macosx_11_0_arm64",
            "macosx_10_12_x86_64",
            "win_amd64",
        )
    ),
]


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text("utf-8"))


def test_the_files_of_a_release() -> None:
    from check_release import faults

    assert faults(FILES, TAG, CHANGES) == []
    assert faults(FILES[:-1], TAG, CHANGES) == ["Windows x86_64: expected one file of version 1.2.3, found 0"]
    assert faults([*FILES, "notes.txt"], TAG, CHANGES) == ["notes.txt: not expected in release v1.2.3"]
    assert len(faults(FILES, "v1.2.4", CHANGES)) == 2 * len(FILES) + 1
    for changes in ("", "## 1.2.30\n", "## 1.2.3 (unreleased)\n"):
        assert faults(FILES, TAG, changes) == ["CHANGELOG.md: expected a section '## 1.2.3' that is not said to be unreleased"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit_with_their_version(path: Path) -> None:
    used = re.findall(r"uses: (\S+)(.*)", path.read_text("utf-8"))
    assert used
    for action, comment in used:
        if not action.startswith("./"):
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", action) and re.fullmatch(r" # v\d+(\.\d+\.\d+)?", comment), (
                action
            )


def test_publishing_waits_for_everything_else() -> None:
    jobs = load("wheels.yml")["jobs"]
    assert set(jobs["publish"]["needs"]) == set(jobs) - {"publish"}
    assert jobs["checks"]["uses"] == "./.github/workflows/checks.yml" and "workflow_call" in load("checks.yml")[True]


def test_every_python_that_is_named_speaks() -> None:
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["classifiers"]
    named = [line.rpartition(" ")[2] for line in classifiers if re.search(r":: 3\.\d+$", line)]
    jobs = load("wheels.yml")["jobs"]
    commands = [step.get("run", "") for step in jobs["speak"]["steps"]]
    assert f"tools/check_pythons.sh dist pythons {' '.join(named)}" in commands
    assert jobs["speak-musl"]["strategy"]["matrix"]["python"] == named
    built = {row["wheel"] for row in jobs["build"]["strategy"]["matrix"]["include"]} | {"manylinux-x86_64"}
    spoken = {row["wheel"] for row in jobs["speak"]["strategy"]["matrix"]["include"]}
    assert spoken | {f"musllinux-{row['name']}" for row in jobs["speak-musl"]["strategy"]["matrix"]["arch"]} == built


@pytest.mark.parametrize(
    ("spoken", "heard", "errors"),
    [
        ("The boat was drifting.", "the boat was drifting", 0),
        ("The boat was drifting.", "The goat was drifting", 1),
        ("The boat was drifting.", "boat was slowly drifting", 2),
        ("The boat was drifting.", "", 4),
        ("The boat.", "a b c d", 4),
    ],
)
def test_wrong_words_are_counted(spoken: str, heard: str, errors: int) -> None:
    from hear import word_errors, words

    assert word_errors(words(spoken), words(heard)) == errors


def test_ten_sentences_are_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On the toy, with recognisers that hear everything, and nothing."""
    import hear

    by_file = {f"{number:02}.wav": sentence for number, sentence in enumerate(hear.SENTENCES, 1)}
    monkeypatch.setattr(hear, "recogniser", lambda name: lambda path: by_file[path.name] if name == "good" else "")
    monkeypatch.setattr(hear, "SENTENCES", hear.SENTENCES[:3])
    assert hear.main([TOY, str(tmp_path / "sound"), "--recogniser", "good", "--markdown", str(tmp_path / "heard.md")]) == 0
    assert sorted(path.name for path in (tmp_path / "sound").iterdir()) == ["01.wav", "02.wav", "03.wav"]
    text = (tmp_path / "heard.md").read_text("utf-8")
    assert "\n0 of 36 words wrong (0.0%; at most 10%)." in text and text.count(hear.SENTENCES[0]) == 2
    assert hear.main([TOY, str(tmp_path / "sound"), "--recogniser", "deaf"]) == 1
    assert "36 of 36 words wrong" in capsys.readouterr().out
    assert hear.main([TOY, str(tmp_path / "sound"), "--recogniser", "none"]) == 0
    assert "Nobody listened." in capsys.readouterr().out
