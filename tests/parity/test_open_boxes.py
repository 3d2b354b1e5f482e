"""The figures of the checklist's open boxes: worked out by hand on made-up stages, and sane on the real ones."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chatterbox_turbo_rs.checkpoint.resources import Resources
from chatterbox_turbo_rs.engine import registry
from chatterbox_turbo_rs.errors import ArgumentError, AudioError, CheckpointError
from chatterbox_turbo_rs.parity import open_boxes

ROOT = Path(__file__).parents[2]
CONFIG = json.loads((ROOT / "python/chatterbox_turbo_rs/config/turbo.json").read_text())
RESOURCES = Resources(ROOT / "tests/data/tokenizer", CONFIG)
IDS = {"[STOP]": 0, "[UNK]": 1, "[SPACE]": 2, "b": 3, "[sigh]": 4, "é": 5, "a": 64, "[START]": 255, "[laugh]": 50275}


def says(found: dict[str, Any], *parts: str) -> None:
    json.dumps(found, allow_nan=False)
    text = open_boxes.sentence(found)
    assert text.endswith(".") and "\n" not in text
    for part in parts:
        assert part in text, text


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A small tokenizer.json in the base model's form; "a" and "[laugh]" have Turbo's ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocab=IDS, merges=[], unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([token for token in IDS if token.startswith("[")])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def load(name: str) -> np.ndarray:
    return np.asarray(registry.load("reference.load", "rust", RESOURCES)(str(ROOT / f"tests/data/clips/{name}.flac")))


def test_tokenizers_side_by_side(base: Path) -> None:
    # Normalised: "Ab a." and "[laugh]." - "A" and "." are unknown to the base vocabulary above.
    found = open_boxes.tokenizer_source(RESOURCES, base, ["ab a", "[laugh]"])
    assert (found["turbo_size"], found["base_size"], found["tags"]) == (50276, 9, 19)
    assert found["shared"] == len({" ", "b", "[sigh]", "é", "a", "[laugh]"})
    assert found["shared_with_same_id"] == len({"a", "[laugh]"})
    assert found["base_ids_with_another_meaning"] == 7
    assert found["turbo_mean_tokens"] == 2.5
    assert found["base"] == {
        "sentences_with_other_ids": 2,
        "mean_tokens": 3.5,
        "tokens": 7,
        "tokens_with_another_meaning": 5,
        "unknown_tokens": 3,
    }
    assert found["base_without_space"]["tokens"] == 6
    assert len(found["tags_that_are_no_token"]) == 17 and found["tags_with_another_id"] == ["[sigh]"]
    assert found["example"] == {
        "text": "Ab a.",
        "turbo": [4826, 257, 13],
        "base": [1, 3, 2, 64, 1],
        "base_without_space": [1, 3, 64, 1],
        "turbo_reads_base_as": '"$#a"',
    }
    assert found["sides_agree"] and "rust" in found["sides"]
    says(
        found,
        "share 6 entries",
        "2 under the same id",
        "7 of the base",
        "at 3.5 tokens",
        "(3.0)",
        "instead of 2.5",
        "17 of the tags",
    )


def test_entries_are_compared_as_the_text_that_they_stand_for() -> None:
    turbo, tags = open_boxes._turbo_vocabulary(RESOURCES.directory, 50276)
    assert turbo["é"] == 2634 and turbo[" the"] == 262 and turbo["[clear throat]"] == 50267 and len(tags) == 19
    assert sorted(turbo.values()) == list(range(50276))


def test_sides_that_disagree_are_told(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = registry.load

    def one_side_is_wrong(key: str, side: str, resources: Resources) -> Any:
        stage = real(key, side, resources)
        return (lambda text: stage(text)[:-1]) if (key, side) == ("text.tokenize", "rust") else stage

    monkeypatch.setattr(registry, "load", one_side_is_wrong)
    assert not open_boxes.tokenizer_source(RESOURCES, base, ["ab"])["sides_agree"]


def test_without_the_base_tokenizer_it_says_where_to_get_it(base: Path) -> None:
    found = open_boxes.tokenizer_source(RESOURCES, None)
    assert found["base_file"] is None and found["sentences"] == len(set(open_boxes.SENTENCES)) == 40
    says(found, "50276 entries", "ResembleAI/chatterbox", "--base-tokenizer")
    with pytest.raises(ArgumentError, match="sentences"):
        open_boxes.tokenizer_source(RESOURCES, base, [])
    with pytest.raises(CheckpointError, match="nowhere.json"):
        open_boxes.tokenizer_source(RESOURCES, base.with_name("nowhere.json"))


def test_loudness_gains_are_taken_from_the_output() -> None:
    gains = {"bs1770": 0.5, "rms": 0.25}
    stages = {"python": lambda x, m: x * np.float32(gains[m]), "rust": lambda x, m: x * np.float32(2 * gains[m])}
    samples = np.full(100, 0.5, np.float32)
    found = open_boxes.loudness([("tone", samples), ("none", samples * 0)], stages)
    step = 20 * math.log10(2)
    (row,) = found["clips"]
    assert row["level_db"] == pytest.approx(-step) and row["bs1770_gain_db"] == pytest.approx(-step)
    assert row["difference_db"] == pytest.approx(-step) and found["largest_gain_between_sides_db"] == pytest.approx(step)
    assert found["mean_difference_db"] == found["largest_difference_db"] == pytest.approx(step)
    assert found["silent"] == ["none"] and found["largest_difference_clip"] == "tone"
    with pytest.raises(AudioError, match="python, bs1770: expected sound"):
        open_boxes.loudness([("tone", samples)], {"python": lambda x, m: x * 0})
    with pytest.raises(ArgumentError, match="stages"):
        open_boxes.loudness([("tone", samples)], {})


def test_loudness_of_the_clips() -> None:
    clips = [(name, load(name)) for name in ("short", "stereo", "long")]
    quiet = clips[0][1] * np.float32(10 ** (-43 / 20))  # about -60 dB: 33 dB too quiet, of which the limit allows 20
    found = open_boxes.loudness([*clips, ("quiet", quiet)], open_boxes.sides("reference.loudness", RESOURCES))
    assert found["sides"] == ["python", "rust"] and found["largest_gain_between_sides_db"] < 1e-4
    assert [row["cap_withholds_db"] > 0 for row in found["clips"]] == [False, False, False, True] and found["capped_clips"] == 1
    row = found["clips"][-1]
    assert row["rms_gain_db"] == pytest.approx(20, abs=1e-4) and row["cap_withholds_db"] == pytest.approx(
        -47 - row["level_db"], abs=1e-4
    )
    for row in found["clips"][:-1]:
        assert row["rms_gain_db"] == pytest.approx(-27 - row["level_db"], abs=1e-4)
        assert 0.01 < abs(row["difference_db"]) < 3, row
    says(found, "over 4 clips", "(quiet)", "on 1 of them")


def test_no_clip_with_a_level() -> None:
    found = open_boxes.loudness([], {"rust": lambda x, m: x})
    assert found["mean_difference_db"] is None
    says(found, "No clip")


class Marker:
    """A made-up side: adds ``step`` to every sample and finds a mark where the mean is above it."""

    def __init__(self, step: float) -> None:
        self.step = np.float32(step)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        return samples + self.step

    def detect(self, samples: np.ndarray, rate: int) -> float:
        assert rate == 24_000
        return float(samples.mean() / self.step)


def test_watermark_figures() -> None:
    samples = np.tile(np.array([0.5, -0.5], np.float32), 50)
    found = open_boxes.watermark(samples, {"python": Marker(0.0625), "rust": Marker(0.125)})
    python, rust = found["marked"]["python"], found["marked"]["rust"]
    assert python["snr_db"] == pytest.approx(20 * math.log10(8)) and rust["snr_db"] == pytest.approx(20 * math.log10(4))
    assert found["peak"] == 0.5 and (rust["peak"], rust["largest_difference"]) == (0.625, 0.125)
    assert found["scores"] == {
        "python": {"unmarked": 0.0, "marked": {"python": 1.0, "rust": 2.0}},
        "rust": {"unmarked": 0.0, "marked": {"python": 0.5, "rust": 1.0}},
    }
    assert found["largest_difference_between_sides"] == 0.0625 and found["left_out"] == {}
    says(found, "18.1 / 12.0 dB", "from 0.500 to 0.562 / 0.625", "at most 0.0000", "at least 0.5000")


def test_a_side_left_out_is_named() -> None:
    found = open_boxes.watermark(np.full(50, 0.5, np.float32), {"rust": Marker(0.0625)})
    assert list(found["left_out"]) == ["python"]
    says(found, "python was left out (")


def test_watermark_of_a_clip() -> None:
    stages = open_boxes.sides("watermark", RESOURCES)
    found = open_boxes.watermark(load("short"), stages)
    assert list(found["marked"]) == list(stages) and set(found["left_out"]) == set(registry.IMPLEMENTATIONS) - set(stages)
    for row in found["marked"].values():
        assert 8 < row["snr_db"] < 20 and 0.01 < row["largest_difference"] < 0.5
    for row in found["scores"].values():
        assert row["unmarked"] < 0.1 and min(row["marked"].values()) > 0.9
    assert found["largest_difference_between_sides"] < 1e-4
    says(found)


def test_sentence_refuses_another_dict() -> None:
    with pytest.raises(ArgumentError, match="box: expected tokenizer_source, loudness, watermark"):
        open_boxes.sentence({"box": "other"})
