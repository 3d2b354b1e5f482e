"""Runs one of our parties over clips and texts and keeps what every stage took and gave, and how long it took.

The pipeline is the product's own (``pipeline.py``), with stages that remember. Names and layouts are those that the official
package's recording has (``official/recording.py``): ``<stage key>/<in or out>.<name>``, arrays time first. ``s3tokenizer.*``
runs twice for a clip: for S3Gen (from r16) and for T3 (from w16), told apart as ``s3tokenizer.mel@s3gen`` and ``@t3``; of a
conversion's source it is ``@source``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..checkpoint.resources import Resources
from ..constants import ENCODER_RATE, HOP
from ..engine import conversion, draws, registry, stream, token_loop
from ..engine.devices import NETWORKS
from ..engine.pipeline import Pipeline, Run
from ..options import GenerationOptions, StreamOptions
from ..plan import Plan
from ..stages.t3.sampler import SamplerParameters
from ..voice import Voice
from .cases import Cases, Clip, Conversion, Text

# Stage -> names of its inputs and outputs that are kept.
ARRAYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "text.tokenize": ((), ("ids",)),
    "reference.load": ((), ("samples",)),
    "reference.loudness": (("samples",), ("samples",)),
    "reference.resample": (("samples",), ("w16", "r16")),
    "voice_encoder.mel": (("w16",), ("mel",)),
    "voice_encoder.embedding": (("mel",), ("embedding",)),
    "s3tokenizer.mel": (("samples",), ("mel",)),
    "s3tokenizer.tokens": (("mel",), ("ids",)),
    "speaker_encoder.fbank": (("r16",), ("fbank",)),
    "speaker_encoder.xvector": (("fbank",), ("xvector",)),
    "s3gen.prompt_mel": (("samples",), ("mel",)),
    "s3gen.encoder": (("ids",), ("mu",)),
    "s3gen.flow": (("mu", "xvector", "prompt_mel"), ("mel",)),
    "s3gen.vocoder": (("mel",), ("samples",)),
    "watermark": (("samples",), ("samples",)),
}
TWICE = ("s3tokenizer.mel", "s3tokenizer.tokens")
OF_A_CLIP: tuple[str, ...] = ("s3gen", "t3")
OF_A_SOURCE: tuple[str, ...] = ("source",)
"""What these are used for, in their order."""


@dataclass
class Take:
    """Arrays, texts and seconds of one clip, text or conversion."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add_time(self, key: str, seconds: float) -> None:
        self.seconds[key] = self.seconds.get(key, 0.0) + seconds


@dataclass
class Recording:
    """What one party did: a ``Take`` for every clip, text, sentence and conversion, and the party's description of itself."""

    party: str
    clips: dict[str, Take] = field(default_factory=dict)
    texts: dict[str, Take] = field(default_factory=dict)
    sentences: dict[str, Take] = field(default_factory=dict)
    conversions: dict[str, Take] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    hyperparameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    digests: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    taps: list[tuple[str, np.ndarray]] = field(default_factory=list)


class Recorder(Pipeline):
    """The pipeline of one plan whose stages write into ``take``."""

    def __init__(self, resources: Resources, plan: Plan) -> None:
        super().__init__(resources)
        self.plan = plan
        self.take = Take()
        self.uses = OF_A_CLIP
        self.load_result: np.ndarray | None = None
        """Samples that the chain goes on with instead of its own ``reference.load``'s."""

    def raw(self, key: str) -> Any:
        """The stage itself; nothing is kept."""
        return super().stage(key, self.plan[key])

    def unwatched(self) -> Pipeline:
        """A pipeline of the same stages that keeps nothing."""
        pipeline = Pipeline(self.resources)
        pipeline._once, pipeline._stages = self._once, self._stages
        return pipeline

    def stage(self, key: str, implementation: str) -> Any:
        stage = super().stage(key, implementation)
        if key == "text.normalize":
            return self._text(stage)
        return self._watched(key, stage) if key in ARRAYS else stage

    def _text(self, stage: Callable[[str], str]) -> Callable[[str], str]:
        def call(text: str) -> str:
            started = time.perf_counter()
            result = stage(text)
            self.take.add_time("text.normalize", time.perf_counter() - started)
            self.take.texts |= {"text.normalize/in": text, "text.normalize/out": result}
            return result

        return call

    def _watched(self, key: str, stage: Any) -> Callable[..., Any]:
        names_in, names_out = ARRAYS[key]

        def keep(arguments: tuple[Any, ...], result: Any, seconds: float) -> None:
            take, at = self.take, key
            if key in TWICE:
                at = next(f"{key}@{use}" for use in self.uses if f"{key}@{use}/out.{names_out[0]}" not in take.arrays)
            take.add_time(at, seconds)
            for name, value in zip(names_in, arguments):
                take.arrays[f"{at}/in.{name}"] = np.array(value)
            for name, value in zip(names_out, result if len(names_out) > 1 else (result,)):
                take.arrays[f"{at}/out.{name}"] = value
            if key == "s3tokenizer.tokens":
                take.arrays[f"{at}/out.levels"] = stage.pre_codes(*arguments)  # [tokens, 8], before rounding

        class Watched:
            @staticmethod
            def __call__(*arguments: Any) -> Any:
                started = time.perf_counter()
                result = stage(*arguments)
                keep(arguments, result, time.perf_counter() - started)
                return self.load_result if key == "reference.load" and self.load_result is not None else result

            @staticmethod
            def of_all(inputs: list[Any]) -> list[Any]:
                started = time.perf_counter()
                results = stage.of_all(inputs)
                seconds = (time.perf_counter() - started) / len(inputs)
                for one, result in zip(inputs, results):
                    keep((one,), result, seconds)
                return results

        return Watched()

    def tokens(
        self, run: Run, voice: Voice, text_ids: np.ndarray, parameters: SamplerParameters, seed: int, max_tokens: int
    ) -> np.ndarray:
        """The loop in Python, so that logits are seen; where both T3 stages are Rust, the loop inside Rust as well."""
        decoder, sampler, take = self.raw("t3.decoder"), self.raw("t3.sampler"), self.take
        prompt = (voice.speaker_embedding, voice.t3_prompt_tokens, text_ids)
        take.arrays |= {f"t3.decoder/in.{n}": np.array(v) for n, v in zip(("speaker", "prompt", "text"), prompt)}
        logits: list[np.ndarray] = []

        def timed(key: str, call: Callable[..., Any]) -> Callable[..., Any]:
            def run(*arguments: Any) -> Any:
                started = time.perf_counter()
                result = call(*arguments)
                take.add_time(key, time.perf_counter() - started)
                if key == "t3.decoder":
                    logits.append(result)
                return result

            return run

        class Watched:
            start_token, stop_token = decoder.start_token, decoder.stop_token

            @staticmethod
            def start(*arguments: Any) -> Any:
                session = decoder.start(*arguments)
                return type(
                    "Session", (), {n: staticmethod(timed("t3.decoder", getattr(session, n))) for n in ("prefill", "step")}
                )

        def uniform(step: int) -> float:
            return float(draws.uniforms(seed, draws.T3, step, 1)[0])

        tokens = token_loop.generate(Watched(), timed("t3.sampler", sampler), *prompt, parameters, uniform, max_tokens)
        take.arrays["t3.decoder/out.logits"] = np.stack(logits)
        take.arrays["t3.sampler/out.tokens"] = tokens
        if self.plan["t3.decoder"] == self.plan["t3.sampler"] == "rust":
            take.arrays["t3.loop/out.in_core"] = decoder.generate(*prompt, parameters, max_tokens, seed=seed)
        return tokens


def record(
    recorder: Recorder, name: str, cases: Cases, start: Recording | None = None, note: Callable[[str], None] = print
) -> Recording:
    """Runs everything. ``start`` gives the samples with which the chain of a clip begins whose rate soxr filters in stages."""
    recording = Recording(name)
    voices: dict[str, Voice] = {}
    for clip in cases.clips:
        note(f"{name}: clip {clip.name}")
        recorder.take = take = recording.clips[clip.name] = Take()
        voices[clip.name] = _clip(recorder, clip, start)
        take.seconds["total"] = sum(take.seconds.values())
    for text in cases.texts:
        note(f"{name}: text {text.name}")
        recorder.take = take = recording.texts[text.name] = Take()
        _text(recorder, text, voices[text.clip])
        take.seconds["total"] = sum(take.seconds.values())
    for case in cases.conversions:
        note(f"{name}: conversion {case.name}")
        recorder.take = take = recording.conversions[case.name] = Take()
        _conversion(recorder, case, cases.clip(case.source), voices[case.clip], start)
        take.seconds["total"] = sum(take.seconds.values())
    for sentence in cases.sentences:
        recorder.take = recording.sentences[sentence] = Take()
        run = Run(recorder, recorder.plan, None)
        with quiet():
            run("text.tokenize", run("text.normalize", sentence))
    return recording


def _clip(recorder: Recorder, clip: Clip, start: Recording | None) -> Voice:
    recorder.uses, recorder.load_result = OF_A_CLIP, None
    if start is not None and not clip.single_stage():
        recorder.load_result = start.clips[clip.name].arrays["reference.load/out.samples"]
    voice = recorder.voice(str(clip.path), recorder.plan)
    recorder.take.arrays["voice/out.prompt_ids"] = np.array(voice.s3gen_prompt_tokens)
    return voice


def _text(recorder: Recorder, text: Text, voice: Voice) -> None:
    take = recorder.take
    with quiet():
        options = GenerationOptions(text.seed, max_tokens=text.max_tokens, **dataclasses.asdict(text.sampler()))
        speech = recorder.generate(text.text, voice, recorder.plan, options)
        if text.streamed:
            chunks = stream.speak(
                recorder.unwatched(), text.text, voice, recorder.plan, options, StreamOptions(), lambda *_: None
            )
            take.arrays["stream/out.samples"] = np.concatenate([chunk.samples for chunk in chunks])
    _vocoder(recorder, text.seed)
    take.arrays["end_to_end/out.samples"] = speech.samples


def _conversion(recorder: Recorder, case: Conversion, source: Clip, voice: Voice, start: Recording | None) -> None:
    take = recorder.take
    recorder.uses, recorder.load_result = OF_A_SOURCE, None
    if start is not None and not source.single_stage(ENCODER_RATE):
        recorder.load_result = start.conversions[case.name].arrays["reference.load/out.samples"]
    run = Run(recorder, recorder.plan, None)
    speech = conversion.convert(run, conversion.load(run, str(source.path)), voice, case.seed, watermark=True)
    _vocoder(recorder, case.seed)
    take.arrays["end_to_end/out.samples"] = speech.samples


def _vocoder(recorder: Recorder, seed: int) -> None:
    """Keeps the vocoder's f0 and excitation as well."""
    arrays, vocoder = recorder.take.arrays, recorder.raw("s3gen.vocoder")
    mel, harmonics = arrays["s3gen.vocoder/in.mel"], recorder.config["s3gen"]["vocoder"]["harmonics"] + 1
    f0 = vocoder.f0(mel)
    noise = draws.normals(seed, draws.NOISE, 0, HOP * len(mel), harmonics)
    arrays["s3gen.vocoder/out.f0"] = f0
    arrays["s3gen.vocoder/out.source"] = vocoder.source(f0, draws.phases(seed, harmonics), noise)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings: that about a long text is the text stage's own test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def plan_of(party: str) -> Plan:
    """Every stage on one side. Raises ``BackendError`` that names what is missing."""
    return registry.resolve(party)


def describe(recorder: Recorder) -> Mapping[str, dict[str, Any]]:
    """Stage -> hyper-parameters, as the loaded networks report them."""
    return {key: recorder.raw(key).hyperparameters() for key in NETWORKS}
