"""Compares a candidate with a reference's recording, stage by stage.

``isolated`` feeds every stage of the candidate with the reference's recorded input of that stage; ``chained`` compares the two
recordings, in which every stage was fed by the one before, from the clip's file and the text to the watermarked samples, so
that errors may add up. A stage that cannot be loaded gives a row with the reason.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..constants import ENCODER_RATE, HOP, SAMPLE_RATE
from ..engine import conversion, draws, token_loop
from .cases import Cases, Clip, Text
from .recording import OF_A_CLIP, Recording, Take
from .rows import Row, fill

Load = Callable[[str], Any]
FADED = 960
"""Samples that the vocoder fades in."""
SOURCE = (ENCODER_RATE, conversion.MIN_SECONDS)
"""What ``reference.load`` makes of a conversion's source: its rate and least length."""
HARMONICS = 9
"""Of the vocoder's source, the fundamental among them: the official package has no other number."""

# Row, inputs and output in a clip's or a source's recording; "@t3", "@s3gen" and "@source" in the names of arrays tell the uses apart.
CLIP_ROWS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("reference.loudness", ("reference.loudness/in.samples",), "reference.loudness/out.samples"),
    ("reference.resample@w16", ("reference.resample/in.samples",), "reference.resample/out.w16"),
    ("reference.resample@r16", ("reference.resample/in.samples",), "reference.resample/out.r16"),
    ("voice_encoder.mel", ("voice_encoder.mel/in.w16",), "voice_encoder.mel/out.mel"),
    ("voice_encoder.embedding", ("voice_encoder.embedding/in.mel",), "voice_encoder.embedding/out.embedding"),
    ("s3tokenizer.mel", ("s3tokenizer.mel@s3gen/in.samples",), "s3tokenizer.mel@s3gen/out.mel"),
    ("s3tokenizer.mel", ("s3tokenizer.mel@t3/in.samples",), "s3tokenizer.mel@t3/out.mel"),
    ("s3tokenizer.mel", ("s3tokenizer.mel@source/in.samples",), "s3tokenizer.mel@source/out.mel"),
    ("s3tokenizer.tokens", ("s3tokenizer.tokens@s3gen/in.mel",), "s3tokenizer.tokens@s3gen/out.ids"),
    ("s3tokenizer.tokens", ("s3tokenizer.tokens@t3/in.mel",), "s3tokenizer.tokens@t3/out.ids"),
    ("s3tokenizer.tokens", ("s3tokenizer.tokens@source/in.mel",), "s3tokenizer.tokens@source/out.ids"),
    ("speaker_encoder.fbank", ("speaker_encoder.fbank/in.r16",), "speaker_encoder.fbank/out.fbank"),
    ("speaker_encoder.xvector", ("speaker_encoder.xvector/in.fbank",), "speaker_encoder.xvector/out.xvector"),
    ("s3gen.prompt_mel", ("s3gen.prompt_mel/in.samples",), "s3gen.prompt_mel/out.mel"),
    ("s3gen.prompt_mel@float64", ("s3gen.prompt_mel/in.samples",), "s3gen.prompt_mel/out.mel_float64"),
)


class Comparison:
    """Collects the rows of one reference and one candidate. ``load(key)`` gives the candidate's stage or raises."""

    def __init__(
        self, reference: Recording, name: str, load: Load, cases: Cases, only: Sequence[str] = (), device: str = "cpu"
    ) -> None:
        self.reference, self.cases = reference, cases
        self.only = tuple(only)
        """Stages and prefixes of stages that are looked at; all without any."""
        self.pair = (reference.party, name)
        self.device = device
        self._load = load
        self._stages: dict[str, Any] = {}
        self.rows: list[Row] = []

    def stage(self, key: str) -> Any:
        """The candidate's stage, or the exception that says why there is none."""
        if key not in self._stages:
            try:
                self._stages[key] = self._load(key)
            except Exception as error:
                self._stages[key] = error
        return self._stages[key]

    def add(self, mode: str, stage: str, case: str, reference: Any, candidate: Any, **options: Any) -> Row:
        """Records a row of two values that are there."""
        levels = options.pop("levels", None)
        row = Row(self.pair, mode, stage, case, device=self.device, **options)
        if self.wanted(stage):
            self.rows.append(row)
        return fill(row, reference, candidate, levels)

    def wanted(self, stage: str) -> bool:
        """Whether rows of ``stage`` (with or without ``@part``) are looked at."""
        key = stage.partition("@")[0]
        return not self.only or any(key == prefix or key.startswith(f"{prefix}.") for prefix in self.only)

    def run(
        self, stage: str, case: str, reference: Any, call: Callable[[Any], Any], seconds: float | None, **options: Any
    ) -> Any:
        """Calls the candidate's stage on the reference's input and records; None when it cannot run or raises."""
        if not self.wanted(stage):
            return None
        levels = options.pop("levels", None)
        row = Row(self.pair, "isolated", stage, case, seconds=(seconds, None), device=self.device, **options)
        self.rows.append(row)
        found = self.stage(stage.partition("@")[0])
        if isinstance(found, Exception):
            row.missing = f"{type(found).__name__}: {found}"
            return None
        try:
            started = time.perf_counter()
            candidate = call(found)
            row.seconds = (seconds, time.perf_counter() - started)
        except Exception as error:
            row.wrong = [f"{type(error).__name__}: {error}"]
            return None
        fill(row, reference, candidate, levels)
        return candidate

    def isolated(self) -> None:
        """Every stage of the candidate on the reference's inputs."""
        for clip in self.cases.clips:
            take = self.reference.clips[clip.name]
            self._read(clip, clip.name, take)
            self._clip(clip.name, take)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the warning about a long text is the text stage's own test
            for sentence, take in self.reference.sentences.items():
                self._sentence(sentence, take)
            for text in self.cases.texts:
                self._text(text, self.reference.texts[text.name])
        for case in self.cases.conversions:
            take = self.reference.conversions[case.name]
            self._read(self.cases.clip(case.source), case.name, take, *SOURCE)
            self._clip(case.name, take)
            self._sound(case.name, case.seed, take)

    def _read(self, clip: Clip, case: str, take: Take, *wanted: Any) -> None:
        stage, _ = load_row(clip, *wanted)
        expected, seconds = take.arrays["reference.load/out.samples"], take.seconds.get("reference.load")
        self.run(stage, case, expected, lambda s: s(str(clip.path), *wanted), seconds)

    def _clip(self, name: str, take: Take) -> None:
        pair: list[np.ndarray] = []
        for row, inputs, output in CLIP_ROWS:
            if output not in take.arrays:
                continue
            stage, _, part = row.partition("@")
            case = case_of(name, output)
            seconds = take.seconds.get(output.partition("/")[0])

            def call(found: Any) -> Any:
                arguments = [take.arrays[i] for i in inputs]
                if stage != "reference.resample":
                    return found(*arguments)
                if part == "w16":
                    pair[:] = found(*arguments)
                return pair[0 if part == "w16" else 1]

            levels = take.arrays.get(output.replace("out.ids", "out.levels")) if output.endswith("out.ids") else None
            found = self.run(row, case, take.arrays[output], call, seconds, levels=levels)
            if stage == "s3tokenizer.mel" and found is not None:
                self.add("isolated", "s3tokenizer.mel@range", case, mel_range(take.arrays[output]), mel_range(found))

    def _sentence(self, sentence: str, take: Take) -> None:
        case = repr(sentence if len(sentence) <= 40 else f"{sentence[:40]}…")
        normalized = take.texts["text.normalize/out"]
        self.run("text.normalize", case, normalized, lambda s: s(sentence), take.seconds.get("text.normalize"))
        ids = take.arrays["text.tokenize/out.ids"]
        self.run("text.tokenize", case, ids, lambda s: s(normalized), take.seconds.get("text.tokenize"))

    def _text(self, text: Text, take: Take) -> None:
        name, ref = text.name, take.arrays
        self._sentence_of(text, take)
        self._t3(text, take)
        raw = ref["t3.sampler/out.tokens"]
        config = {"vocab": token_count(ref), "silence_token": int(ref["s3gen.encoder/in.ids"][-1])}
        kept = ref["s3gen.encoder/in.ids"][-len(token_loop.keep_speech(raw, config)) :]
        self.run("t3.decoder@filter", name, kept, lambda d: keep(d, raw, config), None)
        self._sound(name, text.seed, take)

    def _sound(self, name: str, seed: int, take: Take) -> None:
        """From tokens to marked samples."""
        ref, seconds = take.arrays, take.seconds
        self.run(
            "s3gen.encoder",
            name,
            ref["s3gen.encoder/out.mu"],
            lambda s: s(ref["s3gen.encoder/in.ids"]),
            seconds.get("s3gen.encoder"),
        )
        flow = [ref[f"s3gen.flow/in.{i}"] for i in ("mu", "xvector", "prompt_mel")]
        noise = draws.normals(seed, draws.FLOW, 0, len(flow[0]), flow[0].shape[1])
        self.run("s3gen.flow", name, ref["s3gen.flow/out.mel"], lambda s: s(*flow, noise), seconds.get("s3gen.flow"))
        self._vocoder(name, seed, take)
        marked = ref["watermark/out.samples"]
        self.run("watermark", name, marked, lambda s: s(ref["watermark/in.samples"]), seconds.get("watermark"))

    def _sentence_of(self, text: Text, take: Take) -> None:
        normalized, ids = take.texts["text.normalize/out"], take.arrays["text.tokenize/out.ids"]
        self.run("text.normalize", text.name, normalized, lambda s: s(text.text), take.seconds.get("text.normalize"))
        self.run("text.tokenize", text.name, ids, lambda s: s(normalized), take.seconds.get("text.tokenize"))

    def _t3(self, text: Text, take: Take) -> None:
        """Teacher-forced logits, then the sampler on the reference's logits."""
        ref = take.arrays
        tokens, logits = ref["t3.sampler/out.tokens"], ref["t3.decoder/out.logits"]

        def decode(decoder: Any) -> np.ndarray:
            drawn = with_stop(tokens, len(logits), decoder.stop_token)
            session = decoder.start(*(ref[f"t3.decoder/in.{i}"] for i in ("speaker", "prompt", "text")), len(logits))
            return np.stack([session.prefill(), *(session.step(int(token)) for token in drawn[: len(logits) - 1])])

        self.run("t3.decoder", text.name, logits, decode, take.seconds.get("t3.decoder"))
        start, stop = logits.shape[1] - 2, logits.shape[1] - 1
        drawn = with_stop(tokens, len(logits), stop)

        def sample(sampler: Any) -> np.ndarray:
            history = [np.array([start], np.int64), *(drawn[:i] for i in range(1, len(logits)))]
            uniforms = draws.uniforms(text.seed, draws.T3, 0, len(logits))
            steps = [sampler(row, seen, text.sampler(), float(u)) for row, seen, u in zip(logits, history, uniforms)]
            return np.array([token for token in steps if token is not None], np.int64)

        self.run("t3.sampler", text.name, drawn, sample, take.seconds.get("t3.sampler"))

    def _vocoder(self, name: str, seed: int, take: Take) -> None:
        """f0, excitation and decoder with the reference's f0 and excitation: no rounding error adds up here. Then the whole."""
        ref = take.arrays
        mel, f0, source, samples = (ref[f"s3gen.vocoder/{n}"] for n in ("in.mel", "out.f0", "out.source", "out.samples"))
        phases = draws.phases(seed, HARMONICS)
        noise = draws.normals(seed, draws.NOISE, 0, HOP * len(mel), HARMONICS)
        self.run("s3gen.vocoder@f0", name, f0, lambda s: s.f0(mel), None)
        self.run("s3gen.vocoder@source", name, source, lambda s: s.source(f0, phases, noise), None)
        # The fade-in is part of the stage, but not of its decoder.
        self.run("s3gen.vocoder@decoder", name, samples[FADED:], lambda s: s.samples_from_source(mel, source)[FADED:], None)
        seconds = take.seconds.get("s3gen.vocoder")
        whole = self.run("s3gen.vocoder@spectrum", name, samples, lambda s: s(mel, phases, noise), seconds)
        if whole is not None:
            self.add("isolated", "s3gen.vocoder@fade", name, samples[:FADED], whole[:FADED])

    def chained(self, candidate: Recording) -> None:
        """The two recordings against each other."""
        for clip in self.cases.clips:
            a, b = self.reference.clips[clip.name], candidate.clips[clip.name]
            self._chained_clip(clip, clip.name, a, b)
            self.add("chained", "voice.prompt_ids", clip.name, a.arrays["voice/out.prompt_ids"], b.arrays["voice/out.prompt_ids"])
            frames = [
                np.array([len(t.arrays["s3gen.prompt_mel/out.mel"]), len(t.arrays["voice/out.prompt_ids"])]) for t in (a, b)
            ]
            self.add("chained", "voice.frames_and_ids", clip.name, *frames)
        for text in self.cases.texts:
            self._chained_text(text.name, self.reference.texts[text.name], candidate.texts[text.name])
        for case in self.cases.conversions:
            a, b = self.reference.conversions[case.name], candidate.conversions[case.name]
            self._chained_clip(self.cases.clip(case.source), case.name, a, b, *SOURCE)
            self._chained_sound(case.name, a, b)

    def _chained_clip(self, clip: Clip, name: str, a: Take, b: Take, *wanted: Any) -> None:
        stage, note = load_row(clip, *wanted)
        key = "reference.load/out.samples"
        self.add("chained", stage, name, a.arrays[key], b.arrays[key], seconds=times(a, b, "reference.load"))
        for row, _, output in CLIP_ROWS:
            if output not in a.arrays or row.endswith("@float64"):
                continue
            levels = a.arrays.get(output.replace("out.ids", "out.levels")) if output.endswith("out.ids") else None
            options = {"seconds": times(a, b, output.partition("/")[0]), "levels": levels, "note": note}
            self.add("chained", row, case_of(name, output), a.arrays[output], b.arrays[output], **options)
            note = ""

    def _chained_text(self, name: str, a: Take, b: Take) -> None:
        normal = "text.normalize/out"
        self.add("chained", "text.normalize", name, a.texts[normal], b.texts[normal], seconds=times(a, b, "text.normalize"))
        ids = "text.tokenize/out.ids"
        self.add("chained", "text.tokenize", name, a.arrays[ids], b.arrays[ids], seconds=times(a, b, "text.tokenize"))
        loop = [sum(t.seconds.get(k, 0.0) for k in ("t3.decoder", "t3.sampler")) for t in (a, b)]
        tokens = "t3.sampler/out.tokens"
        self.add("chained", "t3.loop", name, a.arrays[tokens], b.arrays[tokens], seconds=(loop[0], loop[1]))
        if "t3.loop/out.in_core" in b.arrays:
            self.add("chained", "t3.loop@in_core", name, a.arrays[tokens], b.arrays["t3.loop/out.in_core"])
        ids = "s3gen.encoder/in.ids"
        self.add("chained", "t3.decoder@filter", name, a.arrays[ids], b.arrays[ids])
        self._chained_sound(name, a, b)
        if "stream/out.samples" in b.arrays:
            own = [b.arrays[f"{way}/out.samples"] for way in ("end_to_end", "stream")]
            self.add("chained", "stream", name, *own, note=f"{self.pair[1]}: streamed beside generate")

    def _chained_sound(self, name: str, a: Take, b: Take) -> None:
        def add(stage: str, array: str, seconds: str | None = None) -> None:
            self.add(
                "chained", stage, name, a.arrays[array], b.arrays[array], seconds=times(a, b, seconds or stage.partition("@")[0])
            )

        add("s3gen.encoder", "s3gen.encoder/out.mu")
        for what in ("xvector", "prompt_mel"):
            add(f"s3gen.flow@{what}", f"s3gen.flow/in.{what}", "none")
        add("s3gen.flow", "s3gen.flow/out.mel")
        add("s3gen.vocoder@f0", "s3gen.vocoder/out.f0", "none")
        add("s3gen.vocoder@spectrum", "s3gen.vocoder/out.samples")
        self.add(
            "chained",
            "end_to_end@spectrum",
            name,
            *(t.arrays["end_to_end/out.samples"] for t in (a, b)),
            seconds=times(a, b, "total"),
        )


def load_row(clip: Clip, to: int = SAMPLE_RATE, *_: Any) -> tuple[str, str]:
    """The row of ``reference.load``, and what there is to say of the chain behind it."""
    if clip.single_stage(to):
        return "reference.load", ""
    return "reference.load@multistage", "the chain starts from the reference's samples: soxr's multi-stage filter differs"


def case_of(name: str, output: str) -> str:
    """A clip or conversion, and where a stage has two uses for a clip, which it is."""
    use = output.partition("/")[0].partition("@")[2]
    return f"{name}, for {use}" if use in OF_A_CLIP else name


def times(a: Take, b: Take, key: str) -> tuple[float | None, float | None]:
    return a.seconds.get(key), b.seconds.get(key)


def mel_range(mel: np.ndarray) -> np.ndarray:
    """What normalising did to a log-mel: its largest and smallest value and the share of values at the floor, float32 [3]."""
    return np.array([mel.max(), mel.min(), np.mean(mel == mel.min())], np.float32)


def with_stop(tokens: np.ndarray, steps: int, stop: int) -> np.ndarray:
    """The tokens as they were drawn: the loop takes a final stop token off."""
    return np.append(tokens, stop) if steps == len(tokens) + 1 else tokens


def token_count(arrays: Mapping[str, np.ndarray]) -> int:
    """Speech tokens that S3Gen knows: T3's vocabulary without start and stop."""
    return arrays["t3.decoder/out.logits"].shape[1] - 2


def keep(decoder: Any, tokens: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """The filter: inside Rust where the decoder has it, the pipeline's otherwise."""
    return decoder.keep_speech(tokens) if hasattr(decoder, "keep_speech") else token_loop.keep_speech(tokens, config)
