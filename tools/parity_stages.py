"""Runs the stages of chatterbox-turbo-rs on what the official pipeline recorded, and compares.

``isolated`` feeds every stage with the official input of that stage; ``chained`` feeds each stage with what our stage before
it gave, from the clip's file and the text to the watermarked samples, so that errors may add up. A stage that cannot be loaded
gives a row with the reason; in the chain the official output takes its place, and the row after it says so.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chatterbox_turbo_rs.parity.metrics import Figures, compare, log_spectra
from chatterbox_turbo_rs.parity.tolerances import describe, judge, limits, margin

Arrays = Mapping[str, np.ndarray]
Load = Callable[[str], Any]

# Rates whose ratio to 24 kHz soxr filters in a single stage, so that its filter has a closed form.
SINGLE_STAGE_RATES = (8000, 12000, 16000, 24000, 36000, 48000)
SILENCE, SPEECH_VOCABULARY, START, STOP = 4299, 6561, 6561, 6562


@dataclass
class Row:
    """One comparison of one stage on one clip or text."""

    mode: str
    stage: str
    case: str
    figures: Figures | None = None
    allowed: Mapping[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    missing: str | None = None
    note: str = ""
    seconds: float | None = None
    official_seconds: float | None = None

    @property
    def verdict(self) -> str:
        return "missing" if self.missing else "FAIL" if self.wrong else "ok"

    def as_dict(self) -> dict[str, Any]:
        """For the JSON report."""
        used = margin(self.figures, self.allowed) if self.figures else None
        return {
            "mode": self.mode,
            "stage": self.stage,
            "case": self.case,
            "verdict": self.verdict,
            "figures": self.figures.as_dict() if self.figures else None,
            "tolerance": describe(self.allowed),
            "used": used if used is not None and np.isfinite(used) else None,
            "wrong": self.wrong,
            "missing": self.missing,
            "note": self.note,
            "seconds": self.seconds,
            "official_seconds": self.official_seconds,
        }


class Parity:
    """Collects rows. ``load(key)`` gives our stage or raises; every stage is loaded once."""

    def __init__(self, load: Load, draws: Arrays) -> None:
        self._load, self.draws = load, draws
        self._stages: dict[str, Any] = {}
        self.rows: list[Row] = []

    def stage(self, key: str) -> Any:
        """Our stage, or the exception that says why there is none."""
        if key not in self._stages:
            try:
                self._stages[key] = self._load(key)
            except Exception as error:
                self._stages[key] = error
        return self._stages[key]

    def check(
        self, mode: str, key: str, case: str, reference: Any, call: Callable[[Any], Any], official: float | None, **options: Any
    ) -> Any:
        """Calls our stage, compares and records; gives our output, or the reference where there is none.

        ``part`` names the tolerance's variant, ``levels`` are the official numbers before rounding (explains a near tie).
        """
        row = Row(mode, key, case, official_seconds=official, note=options.get("note", ""))
        self.rows.append(row)
        name = f"{key}@{options['part']}" if options.get("part") else key
        row.stage = name if options.get("part") else key
        stage = self.stage(key)
        if isinstance(stage, Exception):
            row.missing = f"{type(stage).__name__}: {stage}"
            return reference
        try:
            start = time.perf_counter()
            found = call(stage)
            row.seconds = time.perf_counter() - start
        except Exception as error:
            row.wrong = [f"{type(error).__name__}: {error}"]
            return reference
        self.judge(row, name, reference, found, options.get("levels"))
        return found

    def judge(self, row: Row, name: str, reference: Any, found: Any, levels: np.ndarray | None = None) -> None:
        """Fills in a row's figures and verdict."""
        if name.endswith("@spectrum"):
            reference, found = log_spectra(reference, found)
        row.allowed, row.figures = limits(name, row.mode), compare(reference, found)
        row.wrong = judge(row.figures, row.allowed)
        if row.wrong and levels is not None and row.figures.comparable:
            ties = near_ties(np.asarray(reference), np.asarray(found), levels, limits("s3tokenizer.near_tie")["max_abs"])
            if ties is not None:
                row.wrong, row.note = [], f"{ties} tokens differ, each at a number within the near-tie limit of 0.5"

    def clip(self, name: str, path: str, rate: int, ref: Arrays, seconds: Mapping[str, float]) -> dict[str, np.ndarray]:
        """All stages of a reference clip in both modes; gives our voice, from the chain."""
        voice: dict[str, np.ndarray] = {}
        for mode in ("isolated", "chained"):
            voice = self._clip(mode, name, path, rate, ref, seconds)
        return voice

    def _clip(
        self, mode: str, name: str, path: str, rate: int, ref: Arrays, seconds: Mapping[str, float]
    ) -> dict[str, np.ndarray]:
        chained = mode == "chained"

        def check(key: str, reference: Any, call: Callable[[Any], Any], **options: Any) -> Any:
            at = f"{key}@{use}" if (use := options.pop("use", None)) else key
            return self.check(mode, key, f"{name}, for {use}" if use else name, reference, call, seconds.get(at), **options)

        def feed(ours: Any, theirs: str) -> Any:
            return ours if chained else ref[theirs]

        single = rate in SINGLE_STAGE_RATES
        w24 = check("reference.load", ref["reference.load/out.samples"], lambda s: s(path), part=None if single else "multistage")
        note = ""
        if chained and not single:
            w24, note = (
                ref["reference.load/out.samples"],
                "chain starts from the official samples: soxr's multi-stage filter differs",
            )
        w24 = check(
            "reference.loudness",
            ref["reference.loudness/out.samples"],
            lambda s: s(feed(w24, "reference.loudness/in.samples")),
            note=note,
        )
        pair: list[np.ndarray] = []

        def resample(stage: Any) -> np.ndarray:
            pair.extend(stage(feed(w24, "reference.resample/in.samples")))
            return pair[0]

        w16 = check("reference.resample", ref["reference.resample/out.w16"], resample, part="w16")
        r16 = ref["reference.resample/out.r16"]
        if len(pair) == 2:
            r16 = check("reference.resample", r16, lambda _: pair[1], part="r16")
        mel = check("voice_encoder.mel", ref["voice_encoder.mel/out.mel"], lambda s: s(feed(w16, "voice_encoder.mel/in.w16")))
        speaker = check(
            "voice_encoder.embedding",
            ref["voice_encoder.embedding/out.embedding"],
            lambda s: s(feed(mel, "voice_encoder.embedding/in.mel")),
        )
        ids = {}
        for use, samples in (("s3gen", r16), ("t3", w16[:240000])):
            at = f"s3tokenizer.mel@{use}"
            spectrum = check(
                "s3tokenizer.mel",
                ref[f"{at}/out.mel"],
                lambda s: s(feed(samples, f"{at}/in.samples")),
                use=use,
            )
            at = f"s3tokenizer.tokens@{use}"
            ids[use] = check(
                "s3tokenizer.tokens",
                ref[f"{at}/out.ids"],
                lambda s: s(feed(spectrum[:1500], f"{at}/in.mel")),
                use=use,
                levels=ref[f"{at}/out.levels"],
            )
        fbank = check(
            "speaker_encoder.fbank",
            ref["speaker_encoder.fbank/out.fbank"],
            lambda s: s(feed(r16, "speaker_encoder.fbank/in.r16")),
        )
        xvector = check(
            "speaker_encoder.xvector",
            ref["speaker_encoder.xvector/out.xvector"],
            lambda s: s(feed(fbank, "speaker_encoder.xvector/in.fbank")),
        )
        prompt_mel = check(
            "s3gen.prompt_mel", ref["s3gen.prompt_mel/out.mel"], lambda s: s(feed(w24[:240000], "s3gen.prompt_mel/in.samples"))
        )
        check(
            "s3gen.prompt_mel",
            ref["s3gen.prompt_mel/out.mel_float64"],
            lambda s: s(feed(w24[:240000], "s3gen.prompt_mel/in.samples")),
            part="float64",
        )
        # Upstream's rule for a mel that is not twice as long as the tokens: cut the tokens, never the mel.
        cut = ids["s3gen"] if len(prompt_mel) == 2 * len(ids["s3gen"]) else ids["s3gen"][: len(prompt_mel) // 2]
        voice = {"speaker": speaker, "prompt": ids["t3"], "xvector": xvector, "prompt_mel": prompt_mel, "prompt_ids": cut}
        if chained:
            row = Row(mode, "voice.prompt_ids", name)
            self.rows.append(row)
            self.judge(row, "s3tokenizer.tokens", ref["conds/prompt_token"], cut)
        return voice

    def text(self, name: str, job: Mapping[str, Any], voice: Arrays, ref: Arrays, official: Mapping[str, Any]) -> None:
        """All stages of a text in both modes."""
        for mode in ("isolated", "chained"):
            self._text(mode, name, job, voice, ref, official)

    def _text(
        self, mode: str, name: str, job: Mapping[str, Any], voice: Arrays, ref: Arrays, official: Mapping[str, Any]
    ) -> None:
        chained = mode == "chained"
        seconds, texts = official["seconds"], official["texts"]

        def check(key: str, reference: Any, call: Callable[[Any], Any], **options: Any) -> Any:
            return self.check(mode, key, name, reference, call, options.pop("time", seconds.get(key)), **options)

        text = check("text.normalize", texts["text.normalize/out"], lambda s: s(texts["text.normalize/in"]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the warning about a long text is the text stage's own test
            ids = check(
                "text.tokenize", ref["text.tokenize/out.ids"], lambda s: s(text if chained else texts["text.normalize/out"])
            )
        tokens = (
            self._chained_loop(name, job, voice, ids, ref, seconds) if chained else self._isolated_t3(name, job, ref, seconds)
        )

        rows = len(ref["s3gen.flow/in.mu"])
        noise = np.ascontiguousarray(self.draws["flow"][:rows])
        codes = ref["s3gen.encoder/in.ids"]
        if chained:
            kept = tokens[tokens < SPEECH_VOCABULARY]
            codes = np.concatenate([voice["prompt_ids"], kept, np.full(3, SILENCE)])
            noise = np.ascontiguousarray(self.draws["flow"][: 2 * len(codes)])
        mu = check("s3gen.encoder", ref["s3gen.encoder/out.mu"], lambda s: s(codes))
        xvector = voice["xvector"] if chained else ref["s3gen.flow/in.xvector"]
        prompt_mel = voice["prompt_mel"] if chained else ref["s3gen.flow/in.prompt_mel"]
        mel = check(
            "s3gen.flow",
            ref["s3gen.flow/out.mel"],
            lambda s: s(mu if chained else ref["s3gen.flow/in.mu"], xvector, prompt_mel, noise),
        )
        mel = mel if chained else ref["s3gen.vocoder/in.mel"]
        phases, excitation = self.draws["phases"], np.ascontiguousarray(self.draws["noise"][: 480 * len(mel)])
        samples = check("s3gen.vocoder", ref["s3gen.vocoder/out.samples"], lambda s: s(mel, phases, excitation), part="spectrum")
        self._vocoder_parts(check, ref, mel, phases, excitation, chained)
        if not chained:
            check("watermark", ref["watermark/out.samples"], lambda s: s(ref["watermark/in.samples"]))
            return
        watermark = self.stage("watermark")
        row = Row(mode, "end_to_end@spectrum", name, official_seconds=seconds["total"])
        if isinstance(watermark, Exception):
            row.missing = f"{type(watermark).__name__}: {watermark}"
        else:
            start = time.perf_counter()
            marked = watermark(samples)
            ours = sum(r.seconds or 0.0 for r in self.rows if r.mode == mode and r.case == name)
            row.seconds = ours + time.perf_counter() - start
            self.judge(row, row.stage, ref["end_to_end/out.samples"], marked)
        self.rows.append(row)

    @staticmethod
    def _vocoder_parts(
        check: Callable[..., Any], ref: Arrays, mel: np.ndarray, phases: np.ndarray, excitation: np.ndarray, chained: bool
    ) -> None:
        """f0, excitation and decoder of the vocoder, with the official f0 and excitation: no rounding error adds up here."""
        f0, source, faded = (ref[f"s3gen.vocoder/out.{name}"] for name in ("f0", "source", "samples"))
        check("s3gen.vocoder", f0, lambda s: s.f0(mel), part="f0", time=None)
        if not chained:
            check("s3gen.vocoder", source, lambda s: s.source(f0, phases, excitation), part="source", time=None)
        # The fade-in is part of the stage, but not of its decoder.
        check("s3gen.vocoder", faded[960:], lambda s: s.samples_from_source(mel, source)[960:], part="decoder", time=None)

    def _isolated_t3(self, name: str, job: Mapping[str, Any], ref: Arrays, seconds: Mapping[str, float]) -> np.ndarray:
        """Teacher-forced logits, then the sampler on the official logits."""
        tokens, logits = ref["t3.sampler/out.tokens"], ref["t3.decoder/out.logits"]
        drawn = np.append(tokens, STOP) if len(logits) == len(tokens) + 1 else tokens  # upstream takes a final stop away

        def decode(decoder: Any) -> np.ndarray:
            session = decoder.start(*(ref[f"t3.decoder/in.{i}"] for i in ("speaker", "prompt", "text")), max_tokens=len(logits))
            return np.stack([session.prefill(), *(session.step(int(token)) for token in drawn[: len(logits) - 1])])

        self.check("isolated", "t3.decoder", name, logits, decode, seconds.get("t3.decoder"))

        def sample(sampler: Any) -> np.ndarray:
            parameters = _parameters(job)
            steps = [
                sampler(logits[i], drawn[:i] if i else np.array([START]), parameters, float(self.draws["uniforms"][i]))
                for i in range(len(logits))
            ]
            return np.array(steps, np.int64)

        self.check("isolated", "t3.sampler", name, drawn, sample, seconds.get("t3.sampler"))
        return tokens

    def _chained_loop(
        self, name: str, job: Mapping[str, Any], voice: Arrays, ids: np.ndarray, ref: Arrays, seconds: Mapping[str, float]
    ) -> np.ndarray:
        """Upstream's token loop over our decoder and sampler: the first token is not compared with the stop token."""
        reference = ref["t3.sampler/out.tokens"]
        decoder, sampler = self.stage("t3.decoder"), self.stage("t3.sampler")
        row = Row("chained", "t3.loop", name)
        row.official_seconds = seconds.get("t3.decoder", 0.0) + seconds.get("t3.sampler", 0.0)
        self.rows.append(row)
        absent = [s for s in (decoder, sampler) if isinstance(s, Exception)]
        if absent:
            row.missing = f"{type(absent[0]).__name__}: {absent[0]}"
            return reference
        parameters, limit = _parameters(job), int(job["max_gen_len"])
        uniforms = self.draws["uniforms"]
        try:
            start = time.perf_counter()
            session = decoder.start(voice["speaker"], voice["prompt"], ids, max_tokens=limit + 1)
            tokens = [sampler(session.prefill(), np.array([START]), parameters, float(uniforms[0]))]
            for step in range(1, limit + 1):
                token = sampler(session.step(tokens[-1]), np.array(tokens), parameters, float(uniforms[step]))
                if token is None:
                    break
                tokens.append(token)
                if token == STOP:
                    break
            row.seconds = time.perf_counter() - start
        except Exception as error:
            row.wrong = [f"{type(error).__name__}: {error}"]
            return reference
        if tokens[-1] == STOP:
            tokens.pop()
        found = np.array(tokens, np.int64)
        self.judge(row, "t3.loop", reference, found)
        return found


def _parameters(job: Mapping[str, Any]) -> Any:
    from chatterbox_turbo_rs.stages.t3.sampler import SamplerParameters

    defaults = {"temperature": 0.8, "top_k": 1000, "top_p": 0.95, "repetition_penalty": 1.2}
    return SamplerParameters(**{name: job.get(name, value) for name, value in defaults.items()})


def near_ties(reference: np.ndarray, found: np.ndarray, levels: np.ndarray, limit: float) -> int | None:
    """How many tokens differ, when every digit that differs comes from a number within ``limit`` of ±0.5; otherwise None."""
    powers = 3 ** np.arange(levels.shape[1])
    digits = reference[:, None] // powers % 3, found[:, None] // powers % 3
    differ = digits[0] != digits[1]
    if (np.abs(np.abs(levels[differ]) - 0.5) > limit).any() or (np.abs(digits[0] - digits[1]) > 1).any():
        return None
    return int(differ.any(axis=1).sum())
