"""Reports made up for the tests of the renderers, with figures from the real comparison: one that passes, one with every kind of trouble."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from chatterbox_turbo_rs.parity.metrics import compare
from chatterbox_turbo_rs.parity.tolerances import describe, judge, limits, margin

PARTIES = ("official", "python", "rust")
COMPARISONS = [["official", "python"], ["official", "rust"], ["python", "rust"]]
HOSTILE = "<script>alert('x')</script>\n| \x1b[31m![a](http://evil.example/p.png) `\"&"
# id, parent, title, the checklist's words
CHECKLIST = {
    "1. Model Loading & Configuration": [
        ("model_files", None, "Model Files", "Both load the **same** model files (`t3_turbo_v1.safetensors`, `ve.safetensors`)."),
        ("t3_config", None, "T3 Model Configuration", "All hyperparameters for the T3 model are identical."),
    ],
    "2. Text Processing": [
        ("text_tokenize", None, "Text Tokenization", "The same tokenizer and vocabulary are used, with identical settings."),
    ],
    "3. Audio Processing & Conditioning": [
        (
            "ve_mel",
            "Voice Encoder Conditioning",
            "Mel spectrogram",
            "Mel spectrogram calculation for the Voice Encoder is identical.",
        ),
        ("ve_embedding", "Voice Encoder Conditioning", "Speaker embedding", "Speaker embedding generation is identical."),
    ],
    "5. S3Gen Model (Speech Token-to-Waveform Synthesis)": [
        ("s3gen_inference", None, "Inference Logic", "The core inference/synthesis logic is identical."),
    ],
    "6. Final Output Processing": [
        ("watermark", None, "Watermarking", "The Python implementation applies an audio watermark using the `perth` library."),
    ],
}
RNG = np.random.default_rng(11)
MEL = (RNG.standard_normal((120, 80)) - 6).astype(np.float32)
WAVE = (0.1 * RNG.standard_normal(57600)).astype(np.float32)
LOGITS = (3 * RNG.standard_normal(6563)).astype(np.float32)
TOKENS = RNG.integers(0, 6561, 60)


def near(array: np.ndarray, relative: float = 1e-7) -> np.ndarray:
    """The array with noise of about this relative size; the same every time."""
    noise = np.random.default_rng(5).standard_normal(array.shape)
    return (array * (1 + relative * noise)).astype(array.dtype)


def row(box: str, comparison: list[str], mode: str, stage: str, case: str, a: Any, b: Any, **more: Any) -> dict[str, Any]:
    """A row with the real figures and verdict of two arrays."""
    figures, allowed = compare(a, b), limits(stage, mode)
    wrong = judge(figures, allowed)
    used = margin(figures, allowed)
    return {
        **empty_row(box, comparison, mode, stage, case),
        "verdict": "FAIL" if wrong else "ok",
        "figures": figures.as_dict(),
        "tolerance": describe(allowed),
        "used": used if np.isfinite(used) else None,
        "wrong": wrong,
        **more,
    }


def setting(box: str, comparison: list[str], stage: str, a: Any, b: Any, **more: Any) -> dict[str, Any]:
    """A row that compares a setting."""
    wrong = [] if a == b else [f"{comparison[0]} has {a}, {comparison[1]} has {b}"]
    base = empty_row(box, comparison, "loaded", stage, "")
    return {**base, "values": [a, b], "tolerance": "exact", "wrong": wrong, "verdict": "FAIL" if wrong else "ok", **more}


def empty_row(box: str, comparison: list[str], mode: str, stage: str, case: str) -> dict[str, Any]:
    """A row with nothing in it yet."""
    nothing = {"figures": None, "values": None, "used": None, "missing": None}
    place = {"box": box, "comparison": comparison, "mode": mode, "stage": stage, "case": case}
    return {**place, **nothing, "verdict": "ok", "tolerance": "", "wrong": [], "note": "", "seconds": [0.5, 0.25]}


def finish(rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """The report of these rows."""
    order = ("ok", "note", "missing", "FAIL")
    sections = []
    for title, lines in CHECKLIST.items():
        boxes = []
        for key, parent, name, text in lines:
            own = [i for i, each in enumerate(rows) if each["box"] == key]
            verdict = max((rows[i]["verdict"] for i in own), key=order.index, default="missing")
            answer = f"{len(own)} rows of {key}, the worst is {verdict}."
            boxes.append(
                {"id": key, "parent": parent, "title": name, "text": text, "verdict": verdict, "answer": answer, "rows": own}
            )
        sections.append({"title": title, "boxes": boxes})
    failed, missing = (sum(each["verdict"] == verdict for each in rows) for verdict in ("FAIL", "missing"))
    return {
        "format": 1,
        "title": "Chatterbox Turbo: Python vs. Rust Feature Parity",
        "model": {"name": "demo", "files": {"t3_turbo_v1.safetensors": {"bytes": 1234567, "sha256": "ab" * 32}}},
        "machine": {
            "platform": "Linux-6.1",
            "cpu": "x86",
            "features": ["avx2", "avx512f"],
            "threads": 2,
            "python": "3.11.7",
            "date": "2026-11-23",
        },
        "parties": {
            "official": {"versions": {"chatterbox-tts": "0.1.7", "torch": "2.13.0"}},
            "python": {"versions": {"torch": "2.13.0"}},
            "rust": {"versions": {"chatterbox-turbo": "0.1.0"}},
        },
        "comparisons": COMPARISONS,
        "sections": sections,
        "rows": rows,
        "times": {party: {"t3.decoder": 1.5 / (i + 1), "s3gen.flow": 0.5 / (i + 1)} for i, party in enumerate(PARTIES)},
        "taps": None,
        "summary": {"rows": len(rows), "failed": failed, "missing": missing, "seconds": 75.2, "isolated": True, "chained": True},
        **more,
    }


def passing() -> dict[str, Any]:
    """Everything within its limits; as JSON gives it back."""
    rows = []
    for pair in COMPARISONS:
        rows.append(setting("model_files", pair, "files.ve.safetensors", "ab" * 32, "ab" * 32))
        rows += [setting("t3_config", pair, f"t3.{key}", value, value) for key, value in (("layers", 24), ("hidden_size", 1024))]
        rows.append(row("text_tokenize", pair, "isolated", "text.tokenize", "plain", TOKENS, TOKENS.copy()))
        rows += [row("ve_mel", pair, "isolated", "voice_encoder.mel", case, MEL, near(MEL)) for case in ("short", "long")]
        rows.append(row("ve_embedding", pair, "isolated", "voice_encoder.embedding", "short", LOGITS[:256], near(LOGITS[:256])))
        for mode in ("isolated", "chained"):
            rows += [row("s3gen_inference", pair, mode, "s3gen.flow", case, MEL, near(MEL, 5e-7)) for case in ("plain", "tags")]
        rows.append(row("watermark", pair, "isolated", "watermark", "plain", WAVE, near(WAVE)))
    return json.loads(json.dumps(finish(rows)))


def failing() -> dict[str, Any]:
    """Wrong numbers, other shapes, NaN, a setting that differs, a stage that is missing, a difference that is meant, and taps."""
    pair = ["official", "rust"]
    broken = MEL.copy()
    broken[3, 4] = np.nan
    wrong_tokens = np.concatenate([TOKENS[:12], TOKENS[12:] + 1])
    rows = [
        setting(
            "model_files",
            pair,
            "files.tokenizer.json",
            "base repository",
            "turbo repository",
            verdict="note",
            note="as the checklist says",
        ),
        setting("t3_config", pair, "t3.layers", 24, 23),
        setting("t3_config", pair, "t3.hidden_size", 1024, 1024),
        row("text_tokenize", pair, "isolated", "text.tokenize", "plain", TOKENS, wrong_tokens),
        row("ve_mel", pair, "isolated", "voice_encoder.mel", "short", MEL, MEL[:-1]),
        row("ve_mel", pair, "isolated", "voice_encoder.mel", "long", MEL, near(MEL)),
        {
            **empty_row("ve_embedding", pair, "isolated", "voice_encoder.embedding", ""),
            "verdict": "missing",
            "missing": "python: torch is not installed",
            "seconds": [None, None],
        },
        row("s3gen_inference", pair, "isolated", "s3gen.flow", "plain", MEL, near(MEL, 1e-3)),
        row("s3gen_inference", pair, "chained", "s3gen.flow", "plain", MEL, broken),
        row(
            "watermark", pair, "isolated", "watermark", "plain", WAVE, near(WAVE), note="the detector of the other side finds it"
        ),
        row("nowhere", pair, "chained", "end_to_end@spectrum", "plain", MEL, near(MEL)),
    ]
    taps = {
        "stage": "s3gen.encoder",
        "comparison": ["python", "rust"],
        "first": "flow.encoder.encoders.3",
        "rows": [
            {"name": "flow.encoder.embed", "verdict": "ok", "max_abs": 1e-7, "relative_rms": 2e-8, "tolerance": "relative_rms ≤ 1e-05"},
            {"name": "flow.encoder.encoders.3", "verdict": "FAIL", "max_abs": 0.5, "relative_rms": None, "tolerance": "relative_rms ≤ 1e-05"},
            {"name": "flow.encoder.up_embed", "verdict": "only in python", "max_abs": None, "relative_rms": None, "tolerance": ""},
        ],
    }  # fmt: skip
    return finish(rows, taps=taps)


def hostile() -> dict[str, Any]:
    """Every text is an attack on the renderer, every figure may be NaN or infinite."""
    found = failing()
    for each in found["rows"]:
        each.update(stage=HOSTILE, case=HOSTILE, note=HOSTILE, tolerance=HOSTILE, wrong=[HOSTILE], mode=HOSTILE)
        each["comparison"] = ["official", HOSTILE]
        if each["values"] is not None:
            each["values"] = [HOSTILE, {HOSTILE: [HOSTILE]}]
        if each["figures"] is not None:
            each["figures"].update(max_abs=float("nan"), relative_rms=float("inf"), shapes=HOSTILE)
            each["used"] = float("nan")
    for section in found["sections"]:
        section["title"] = HOSTILE
        for box in section["boxes"]:
            box.update(id=HOSTILE, title=HOSTILE, text=HOSTILE * 2, answer=HOSTILE)
            box["parent"] = box["parent"] and HOSTILE + "parent"
    for tap in found["taps"]["rows"]:
        tap.update(name=HOSTILE, tolerance=HOSTILE)
    found["taps"].update(stage=HOSTILE, first=HOSTILE, comparison=["python", HOSTILE])
    found.update(
        title=HOSTILE,
        comparisons=[["official", HOSTILE]],
        model={"name": HOSTILE, "files": {HOSTILE: {"bytes": 1, "sha256": HOSTILE}}},
        machine={HOSTILE: HOSTILE, "features": [HOSTILE]},
        parties={HOSTILE: {"versions": {HOSTILE: HOSTILE}, HOSTILE: [HOSTILE]}},
        times={HOSTILE: {HOSTILE: 1.0}, "b": {}},
    )
    return found


def plots(title: str = "plain") -> dict[str, Any]:
    """Every kind of plot: equal lengths, other lengths, empty sides, numbers that are not finite."""
    pair = ["official", "rust"]
    bad_mel, bad_wave = near(MEL), near(WAVE)
    bad_mel[5:9, 20] = np.nan
    bad_wave[1000:3000] = np.inf
    arrays = {
        "mels": [(MEL, near(MEL)), (MEL, bad_mel[:-20]), (MEL, np.zeros((0, 80), np.float32)), (np.zeros(0), np.zeros(0))],
        "waveforms": [(WAVE, near(WAVE)), (WAVE, bad_wave[:-7000]), (np.zeros(0, np.float32), WAVE), (np.zeros(9), np.zeros(9))],
        "logits": [
            (LOGITS, near(LOGITS)),
            (LOGITS, LOGITS[:100] + 1),
            (np.zeros(0), np.zeros(0)),
            (np.full(9, np.nan), np.zeros(9)),
        ],
        "tokens": [(TOKENS, TOKENS), (TOKENS, np.append(TOKENS[:20], [1, 2, 3])), (TOKENS[:0], TOKENS), (TOKENS[:0], TOKENS[:0])],
    }
    more = {"waveforms": {"rate": 24000}}
    return {
        kind: [{"title": title, "comparison": pair, "reference": a, "candidate": b, **more.get(kind, {})} for a, b in pairs]
        for kind, pairs in arrays.items()
    }
