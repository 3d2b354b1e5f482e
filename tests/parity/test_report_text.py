"""The report in the terminal and as Markdown: the checklist in order, all that failed, and nothing that data could break."""

from __future__ import annotations

import re

import pytest
import synthetic_report

from chatterbox_turbo_rs.parity.report import markdown, parity_table, terminal
from chatterbox_turbo_rs.parity.report.markdown import prose


def lines_with(text: str, *parts: str) -> list[str]:
    return [line for line in text.splitlines() if all(part in line for part in parts)]


def test_the_terminal_shows_the_checklist_in_its_structure() -> None:
    text = terminal(synthetic_report.failing())
    boxes = [line for line in text.splitlines() if re.match(r" *\[[x ~]\] ", line)]
    assert [line.split(":")[0] for line in boxes] == [
        "[~] note",
        "[ ] FAIL",
        "[ ] FAIL",
        "[ ] FAIL",
        "    [ ] FAIL",
        "    [~] missing",
        "[ ] FAIL",
        "[x] Watermarking",
        "[x] Other rows",
    ]
    assert boxes[0].startswith("[~] note: Model Files: Both load the same model files (`t3_turbo_v1.safetensors`")
    assert boxes[3] == "[ ] FAIL: Voice Encoder Conditioning"
    assert "= 2 rows of t3_config, the worst is FAIL." in text
    sections = re.findall(r"^(.+)\n=+$", text, re.MULTILINE)
    assert sections == [*synthetic_report.CHECKLIST, "Further comparisons"]


def test_the_terminal_shows_one_line_for_every_stage_with_its_worst_row() -> None:
    report = synthetic_report.passing()
    text = terminal(report)
    (line,) = lines_with(text, "official → rust", "isolated", "s3gen.flow")
    worst = max((r for r in report["rows"] if r["stage"] == "s3gen.flow"), key=lambda r: r["used"])
    assert f"{worst['figures']['relative_rms']:.2e}" in line and "(of 2)" in line
    assert "rel rms ≤ 1e-05" in line and " ok " in line and line.endswith("1.00 s  0.500 s")
    assert len(lines_with(text, "2 settings", "equal")) == 3
    every = terminal(report, every=True)
    assert len(lines_with(every, "s3gen.flow")) == 12
    assert len(lines_with(every, "t3.layers", "= 24")) == 3
    assert not lines_with(text, "FAIL")


def test_the_lines_of_the_terminal_are_aligned() -> None:
    text = terminal(synthetic_report.failing())
    (head, *_) = lines_with(text, "comparison", "max abs", "prefix")
    at = head.index("tolerance")
    rows = lines_with(text, "official → rust  ")
    assert len(rows) == 10
    for row in rows:
        assert row[at - 2 : at] == "  " and (row[at] != " " or "missing" in row), row
    assert len({line for line in text.splitlines() if line.strip().startswith("comparison  ")}) == 1


def test_the_terminal_ends_with_failures_missing_layers_and_the_sum() -> None:
    text = terminal(synthetic_report.failing())
    assert text.count("\nFAIL: official → rust, ") == 5
    assert "FAIL: official → rust, isolated voice_encoder.mel, short: shape or dtype differs: [120, 80] / [119, 80]" in text
    assert "missing: official → rust, isolated voice_encoder.embedding: python: torch is not installed" in text
    assert "note: official → rust, isolated watermark, plain: the detector of the other side finds it" in text
    assert "Layers of s3gen.encoder, python → rust; first difference: flow.encoder.encoders.3" in text
    assert lines_with(text, "flow.encoder.up_embed", "only in python")
    assert text.endswith("11 rows, 5 failed, 1 missing; isolated and chained, 75.2 s\n")


def test_hostile_texts_do_not_reach_the_terminal() -> None:
    text = terminal(synthetic_report.hostile(), every=True) + terminal(synthetic_report.hostile())
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    assert "nan" in text and "inf" in text


def test_markdown_has_the_checklist_and_its_tables() -> None:
    text = markdown(synthetic_report.failing())
    assert text.startswith("# Chatterbox Turbo: Python vs. Rust Feature Parity\n")
    assert "- [x] **Watermarking**: The Python implementation applies an audio watermark using the `perth` library." in text
    assert "- [ ] **FAIL**: **Voice Encoder Conditioning**\n    - [ ] **FAIL**: **Mel spectrogram**" in text
    assert "Both load the **same** model files (`t3_turbo_v1.safetensors`" in text
    assert lines_with(text, "| s3gen.flow |", "| 2.53e-02 |", "| **FAIL** |")
    assert lines_with(text, "| s3gen.flow | 0.500 s | 0.250 s | 0.167 s |")
    for heading in ("## Failed", "## Missing", "## Notes", "## Layers of s3gen.encoder", "## Times"):
        assert heading in text


def test_every_markdown_table_has_as_many_cells_in_every_line() -> None:
    for report in (synthetic_report.passing(), synthetic_report.failing(), synthetic_report.hostile()):
        for text in (markdown(report), parity_table(report)):
            tables = re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE)
            assert tables
            for table in tables:
                counts = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
                assert len(counts) == 1, table


def test_hostile_texts_are_no_markup_in_markdown() -> None:
    for text in (markdown(synthetic_report.hostile()), parity_table(synthetic_report.hostile())):
        assert "<script" not in text and "</script" not in text and "&lt;script>" in text
        outside_code = re.sub(r"(?<![\\`])`[^`\n]+`(?!`)", "", text)
        assert not re.search(r"(?<!\\)\]\(", outside_code), "a picture would be loaded"
        assert "\x1b" not in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("`a|b` **c** [d](e)", r"`a\|b` **c** \[d\](e)"),
        ("```![a](b)`", r"\`\`\`!\[a\](b)\`"),
        ("\\`![a](b)`", r"\\\`!\[a\](b)\`"),
        ("<img src=x>", "&lt;img src=x>"),
    ],
)
def test_prose_keeps_code_and_strong_text_alone(text: str, expected: str) -> None:
    assert prose(text) == expected


def test_the_parity_table_has_one_line_for_every_box() -> None:
    lines = parity_table(synthetic_report.passing()).splitlines()
    assert lines[0] == "| checklist item | official → python | official → rust | python → rust |"
    table = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ")[1:] for line in lines[2:]}
    assert list(table) == [
        "Model Files",
        "T3 Model Configuration",
        "Text Tokenization",
        "Voice Encoder Conditioning: Mel spectrogram",
        "Voice Encoder Conditioning: Speaker embedding",
        "Inference Logic",
        "Watermarking",
    ]
    assert table["T3 Model Configuration"] == ["2 settings identical"] * 3
    assert table["Text Tokenization"] == ["identical"] * 3
    assert table["Voice Encoder Conditioning: Mel spectrogram"] == ["rel 1e-7 (limit 1e-6)"] * 3
    assert table["Inference Logic"] == ["rel 5e-7 (limit 1e-5)"] * 3


def test_the_parity_table_names_what_is_wrong() -> None:
    text = parity_table(synthetic_report.failing())
    assert lines_with(text, "T3 Model Configuration", "| **FAIL** 1 of 2 settings differ |")
    assert lines_with(text, "Mel spectrogram", r"| **FAIL** shapes \[120, 80\] / \[119, 80\] |")
    assert lines_with(text, "Speaker embedding", "| not measured |")
    assert lines_with(text, "Inference Logic", "| **FAIL** not finite: 1 |")
    assert lines_with(text, "Text Tokenization", "| **FAIL** 12 of 60 equal |")
    assert lines_with(text, "Model Files", "| 1 of 1 settings differ (see note) |")


@pytest.mark.parametrize("change", ["seconds", "date", "figures"])
def test_the_parity_table_stays_when_only_the_run_is_another(change: str) -> None:
    report = synthetic_report.passing()
    before = parity_table(report)
    if change == "date":
        report["machine"].update(date="2031-01-01", cpu="another")
    for row in report["rows"]:
        if change == "seconds":
            row["seconds"] = [12.0, None]
        elif change == "figures" and row["figures"] and row["figures"]["relative_rms"]:
            row["figures"]["relative_rms"] *= 1 + 1e-4
    assert parity_table(report) == before


def test_boxes_of_one_title_are_told_apart_in_the_parity_table() -> None:
    report = synthetic_report.passing()
    report["sections"][0]["boxes"][1]["title"] = "Inference Logic"
    text = parity_table(report)
    assert "| Model Loading &amp; Configuration: Inference Logic |" in text and "| S3Gen Model: Inference Logic |" in text
