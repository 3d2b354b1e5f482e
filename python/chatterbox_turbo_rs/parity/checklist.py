"""The parity checklist: its 25 leaf boxes in order and in its words, and the rows that answer each.

Source: ``feature_checklist.md`` of babybirdprd/chatterbox at aebbc8b, the document whose ticks were set by reading code. A box
is ``ok`` when all its rows are, ``FAIL`` when one failed, ``missing`` when one could not be measured.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .rows import Row


@dataclass(frozen=True)
class Box:
    """``rows`` are patterns of stages (``s3gen.vocoder@*``), with ``mode:`` before them where only one mode belongs here."""

    id: str
    section: str
    parent: str | None
    title: str
    text: str
    rows: tuple[str, ...]


_1, _2 = "1. Model Loading & Configuration", "2. Text Processing"
_3, _4 = "3. Audio Processing & Conditioning", "4. T3 Model (Text-to-Speech Token Generation)"
_5, _6 = "5. S3Gen Model (Speech Token-to-Waveform Synthesis)", "6. Final Output Processing"
_VOICE, _S3, _GEN = "Voice Encoder Conditioning", "S3Tokenizer Conditioning", "S3Gen Conditioning"

BOXES: tuple[Box, ...] = (
    Box(
        "model_files",
        _1,
        None,
        "Model Files",
        "Both implementations load the exact same core model files (`t3_turbo_v1.safetensors`, `s3gen_meanflow.safetensors`, "
        "`ve.safetensors`) from the `ResembleAI/chatterbox-turbo` repository. (Note: The Rust implementation loads `tokenizer.json` "
        "from the base `ResembleAI/chatterbox` repo, while Python uses the tokenizer from the `chatterbox-turbo` repo. This is a "
        "potential point of divergence.)",
        ("files.*", "digest.*"),
    ),
    Box(
        "t3_configuration",
        _1,
        None,
        "T3 Model Configuration",
        "All hyperparameters for the T3 model are identical. The Python implementation dynamically sets the config to match the "
        "Rust version's hardcoded values (hidden_size: 1024, layers: 24, heads: 16, etc.).",
        ("config.t3.*",),
    ),
    Box(
        "s3gen_configuration",
        _1,
        None,
        "S3Gen Model Configuration",
        "All hyperparameters for the S3Gen model and its sub-modules (CFM, vocoder, etc.) are identical. Both implementations use "
        "hardcoded but matching values.",
        ("config.s3gen.*", "config.speaker_encoder.*"),
    ),
    Box(
        "voice_encoder_configuration",
        _1,
        None,
        "Voice Encoder Configuration",
        "All hyperparameters for the Voice Encoder are identical, using the same configuration defaults in both implementations.",
        ("config.voice_encoder.*",),
    ),
    Box(
        "s3tokenizer_configuration",
        _1,
        None,
        "S3Tokenizer Configuration",
        "All hyperparameters for the S3Tokenizer are identical. Both point to the same underlying tokenizer model configuration.",
        ("config.s3tokenizer.*",),
    ),
    Box(
        "text_normalization",
        _2,
        None,
        "Text Normalization",
        "The text normalization/cleanup logic is identical. Both `punc_norm` in Python and `normalize_text` in Rust implement the "
        "exact same set of rules for punctuation replacement and capitalization.",
        ("text.normalize",),
    ),
    Box(
        "text_tokenization",
        _2,
        None,
        "Text Tokenization",
        "The same tokenizer and vocabulary are used, with identical settings. Both implementations utilize a standard "
        "`tokenizer.json` from the Hugging Face repository, ensuring consistent tokenization.",
        ("text.tokenize",),
    ),
    Box(
        "reference_audio_loading",
        _3,
        None,
        "Reference Audio Loading",
        "Reference audio is loaded and handled identically.",
        ("reference.load", "reference.load@*"),
    ),
    Box(
        "resampling",
        _3,
        None,
        "Resampling",
        "Resampling to 16kHz and 24kHz is performed with the same method and quality.",
        ("reference.resample@*",),
    ),
    Box(
        "voice_encoder_mel",
        _3,
        _VOICE,
        "Mel spectrogram",
        "Mel spectrogram calculation for the Voice Encoder is identical (FFT size, hop size, mels, etc.).",
        ("voice_encoder.mel",),
    ),
    Box(
        "speaker_embedding",
        _3,
        _VOICE,
        "Speaker embedding",
        "Speaker embedding generation is identical.",
        ("voice_encoder.embedding",),
    ),
    Box(
        "s3tokenizer_mel",
        _3,
        _S3,
        "Mel spectrogram",
        "Mel spectrogram calculation for the S3Tokenizer is identical.",
        ("s3tokenizer.mel",),
    ),
    Box(
        "s3tokenizer_normalization",
        _3,
        _S3,
        "Normalization",
        "Spectrogram normalization and processing are identical.",
        ("s3tokenizer.mel@range",),
    ),
    Box("prompt_tokens", _3, _S3, "Prompt tokens", "Prompt token generation is identical.", ("s3tokenizer.tokens",)),
    Box(
        "s3gen_mel",
        _3,
        _GEN,
        "Mel spectrogram",
        "Mel spectrogram calculation for S3Gen conditioning is identical.",
        ("s3gen.prompt_mel", "s3gen.prompt_mel@*"),
    ),
    Box(
        "s3gen_mel_processing",
        _3,
        _GEN,
        "Processing and padding",
        "Spectrogram processing and padding are identical.",
        ("voice.*",),
    ),
    Box("t3_architecture", _4, None, "Model Architecture", "The T3 model architecture is a 1:1 match.", ("t3.decoder",)),
    Box(
        "t3_inference",
        _4,
        None,
        "Inference Logic",
        "The core inference/generation loop is identical.",
        ("t3.loop", "t3.loop@*"),
    ),
    Box(
        "parameter_handling",
        _4,
        None,
        "Parameter Handling",
        "Generation parameters (temperature, top_p, top_k, repetition_penalty) are applied in the same way.",
        ("t3.sampler",),
    ),
    Box(
        "speech_token_filtering",
        _4,
        None,
        "Speech Token Filtering",
        "The logic for filtering out-of-vocabulary or invalid speech tokens is identical.",
        ("t3.decoder@filter",),
    ),
    Box(
        "s3gen_architecture",
        _5,
        None,
        "Model Architecture",
        "The S3Gen model architecture is a 1:1 match.",
        (
            "isolated:s3gen.encoder",
            "isolated:s3gen.flow",
            "isolated:s3gen.vocoder@f0",
            "isolated:s3gen.vocoder@source",
            "isolated:s3gen.vocoder@decoder",
        ),
    ),
    Box(
        "s3gen_inference",
        _5,
        None,
        "Inference Logic",
        "The core inference/synthesis logic is identical.",
        (
            "chained:s3gen.encoder",
            "chained:s3gen.flow",
            "s3gen.vocoder@spectrum",
            "s3gen.vocoder@fade",
            "chained:s3gen.vocoder@f0",
        ),
    ),
    Box(
        "conditioning_application",
        _5,
        None,
        "Conditioning Application",
        "Speaker embeddings and prompt features are applied in the same manner.",
        ("speaker_encoder.*", "s3gen.flow@*"),
    ),
    Box(
        "loudness_normalization",
        _6,
        None,
        "Loudness Normalization",
        "Both implementations perform loudness normalization to a target of -27 LUFS. The Python version uses the `pyloudnorm` "
        "library, while the Rust version uses a custom RMS-based implementation. While the goal is the same, the underlying "
        "algorithms may produce slightly different results.",
        ("reference.loudness", "reference.loudness@*"),
    ),
    Box(
        "watermarking",
        _6,
        None,
        "Watermarking",
        "The Python implementation applies an audio watermark using the `perth` library, while the Rust implementation does not. "
        "This is a deliberate feature difference.",
        ("watermark", "watermark@*", "end_to_end@*", "stream"),
    ),
)
OPEN = ("model_files", "loudness_normalization", "watermarking")
"""The boxes that the document leaves unticked, with a difference that it states: they are answered with numbers."""


def belongs(row: Row, box: Box) -> bool:
    """Whether a row answers a box."""
    for pattern in box.rows:
        mode, _, stage = pattern.rpartition(":")
        if fnmatch.fnmatchcase(row.stage, stage) and mode in ("", row.mode):
            return True
    return False


def sections(rows: Sequence[Row], answers: Mapping[str, str]) -> list[dict[str, Any]]:
    """The checklist with verdicts, answers and the numbers of its rows; ``answers`` are more sentences by box."""
    found: list[dict[str, Any]] = []
    for box in BOXES:
        if not found or found[-1]["title"] != box.section:
            found.append({"title": box.section, "boxes": []})
        numbers = [number for number, row in enumerate(rows) if belongs(row, box)]
        own = [rows[number] for number in numbers]
        sentence = " ".join(filter(None, [answer(own), answers.get(box.id, "")]))
        found[-1]["boxes"].append(
            {"id": box.id, "parent": box.parent, "title": box.title, "text": box.text}
            | {"verdict": verdict(own), "answer": sentence, "rows": numbers}
        )
    return found


def verdict(rows: Sequence[Row]) -> str:
    """The worst verdict; ``missing`` without rows."""
    kinds = {row.verdict for row in rows}
    return "FAIL" if "FAIL" in kinds else "missing" if "missing" in kinds or not kinds - {"note"} else "ok"


def answer(rows: Sequence[Row]) -> str:
    """One clause for each comparison: how many rows, how many are exact, and the row that uses most of its limit."""
    clauses = []
    for pair in dict.fromkeys(row.comparison for row in rows):
        own = [row for row in rows if row.comparison == pair]
        failed = [row for row in own if row.verdict == "FAIL"]
        missing = sum(row.verdict == "missing" for row in own)
        text = f"{pair[0]} → {pair[1]}: {len(own)} rows"
        if failed:
            text += f", {len(failed)} failed ({failed[0].stage}, {failed[0].case}: {failed[0].wrong[0]})"
        if missing:
            text += f", {missing} not measured"
        measured = [row for row in own if row.used is not None]
        if measured and not failed:
            text += f", {figure(max(measured, key=lambda row: row.used or 0.0))}"
        elif not failed and not missing:
            text += ", all equal"
        clauses.append(text)
    return "; ".join(clauses) + ("." if clauses else "")


def figure(row: Row) -> str:
    """The figure of a row that uses most of its limit."""
    f = row.figures
    assert f is not None
    if row.allowed.get("exact"):
        return "all exact" if f.exact else "not exact"
    shares = {
        n: getattr(f, n) / limit for n, limit in row.allowed.items() if n in ("max_abs", "mean_abs", "peak", "relative_rms")
    }
    name = max(shares, key=lambda n: shares[n]) if shares else "worst_cosine"
    words = {"max_abs": "largest difference", "mean_abs": "mean difference", "peak": "largest difference by the peak"}
    unit = " dB" if row.stage.endswith("@spectrum") else ""
    label = words.get(name, "relative rms" if name == "relative_rms" else "cosine")
    return f"worst {label} {getattr(f, name):.1e}{unit} of {row.allowed[name]:g} allowed ({row.stage}, {row.case}, {row.mode})"
