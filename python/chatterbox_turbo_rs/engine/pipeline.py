"""From text and a reference clip to samples: the stages in order, on whichever side the plan says.

The order, the crops and the filter are those of ``src/chatterbox/tts_turbo.py`` and ``models/s3gen/s3gen.py`` of
resemble-ai/chatterbox at commit 5de7a54. Nothing here computes a signal: that is the stages' work.
"""

from __future__ import annotations

import functools
import inspect
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..audio.source import sort
from ..checkpoint.fingerprint import Fingerprint
from ..checkpoint.resources import Resources
from ..constants import ENCODER_RATE, HOP, SAMPLE_RATE
from ..errors import UnsupportedAudioError
from ..options import GenerationOptions
from ..plan import Plan
from ..speech import Fault, FinishReason, Speech, SpokenSegment
from ..stages.t3.sampler import SamplerParameters
from ..stages.text.tokenize import vocabulary
from ..voice import Voice, describe
from . import draws, registry, token_loop, verdict
from .observer import Callback
from .once import Once
from .pronounce import pronounced
from .speed import stretch

logger = logging.getLogger(__name__)

S3GEN_SECONDS = 10
"""S3Gen sees this much of the reference clip."""
T3_SECONDS = 15
"""T3's prompt tokens come from this much of it."""
NORMALS = 1 << 16
"""Rows of random normals between two looks at the callback."""

READS_CHECKPOINT = (
    "text.tokenize",
    "voice_encoder.embedding",
    "s3tokenizer.mel",
    "s3tokenizer.tokens",
    "speaker_encoder.xvector",
    "t3.decoder",
    "s3gen.encoder",
    "s3gen.flow",
    "s3gen.vocoder",
)
"""Stages that are built when a model is loaded, so that a damaged checkpoint is found before anything is computed."""
READ_BY_TEXT = ("text.tokenize", "t3.decoder")
"""Those of them that voices and conversion do without."""


@dataclass(frozen=True)
class Text:
    """A text as it was ``asked`` for, ``normalized``, and as ``ids`` int64 ``[T]``."""

    asked: str
    normalized: str
    ids: np.ndarray


class Pipeline:
    """The stages of one loaded model. Immutable but for stages that are built on first use; threads may share it."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.config = resources.config
        self._once: Once[Any] = Once()
        self._stages = self._once.values

    @functools.cached_property
    def fingerprint(self) -> Fingerprint:
        """What of the checkpoint voices depend on."""
        return Fingerprint.of(self.resources)

    @functools.cached_property
    def tags(self) -> tuple[str, ...]:
        """What the checkpoint's tokenizer takes for one token each, such as ``[laugh]``, by id; nothing with another tokenizer."""
        if self.resources.options.get("tokenizer") is not None:
            return ()
        return tuple(vocabulary.read(self.resources.directory, self.config["text"]["vocab_size"])[2])

    def stage(self, key: str, implementation: str) -> Any:
        """The implementation of a stage, built once; meanwhile the others are to be had, and an error is not kept."""
        return self._once.get((key, implementation), lambda: registry.load(key, implementation, self.resources))

    def build(self, plan: Plan, watermark: bool = False, t3: bool = True) -> None:
        """Builds the stages that read the checkpoint, and the watermark's if it will be wanted: the first sentence is not to wait.
        Without ``t3`` those that text alone needs are left to be built on first use.

        All threads work on the networks; beside them the others are read by one thread each.
        """
        wanted = [key for key in READS_CHECKPOINT if t3 or key not in READ_BY_TEXT]
        tokenizer, networks = "text.tokenize", [key for key in wanted if key != "text.tokenize"]
        with ThreadPoolExecutor(2) as beside:
            reading = {}
            if tokenizer in wanted:
                reading[tokenizer] = beside.submit(registry.load, tokenizer, plan[tokenizer], self.resources)
            if watermark and plan["watermark"] == "rust" and registry.missing("watermark", "rust") is None:
                reading["watermark"] = beside.submit(registry.load, "watermark", "rust", self.resources)
            for key in networks:
                self.stage(key, plan[key])
        for key, stage in reading.items():
            if key == tokenizer or stage.exception() is None:  # what is wrong with the watermark is said when it is asked for
                self._stages[key, plan[key]] = stage.result()
        _ = self.fingerprint  # now, not at the first voice: by then the files may have changed
        self._tell_cache()

    def _tell_cache(self) -> None:
        """Logs what became of the packed weights (see ``docs/cache.md``): one warning for each thing that is wrong."""
        troubled: dict[str, list[str]] = {}
        for event in self.resources.core.packed() if "core" in vars(self.resources) else ():
            if event["trouble"] is None:
                logger.info("%s: %s", event["network"], "found in the cache" if event["found"] else "packed")
            else:
                troubled.setdefault(event["trouble"], []).append(event["network"])
        for trouble, networks in troubled.items():
            logger.warning("cache of packed weights: %s (%s)", trouble, ", ".join(networks))

    def voice(self, source: Any, plan: Plan, loudness: str | None = "bs1770", callback: Callback | None = None) -> Voice:
        """Prepares a voice from a clip (anything that ``reference.load`` takes) of more than 5 seconds."""
        run = Run(self, plan, callback)
        samples, more = self.clip(run, source)
        raw = samples
        if loudness is not None:
            samples = run("reference.loudness", samples, loudness)
        w16, r16 = run("reference.resample", samples)
        r24 = samples[: S3GEN_SECONDS * SAMPLE_RATE]

        prompt_mel = run("s3gen.prompt_mel", r24)
        xvector = run("speaker_encoder.xvector", run("speaker_encoder.fbank", r16))
        limit = self.config["t3"]["prompt_tokens"]
        s3gen_mel = run("s3tokenizer.mel", r16)
        t3_mel = run("s3tokenizer.mel", w16[: T3_SECONDS * ENCODER_RATE])[: 4 * limit]
        s3gen_tokens, t3_tokens = run.of_all("s3tokenizer.tokens", [s3gen_mel, t3_mel])
        # An odd mel count keeps its last frame; only the tokens are cut to half of it.
        s3gen_tokens = s3gen_tokens[: len(prompt_mel) // 2]
        embedding = run("voice_encoder.embedding", run("voice_encoder.mel", w16))
        return Voice(embedding, t3_tokens, s3gen_tokens, prompt_mel, xvector, describe(self.fingerprint, raw, **more))

    def clip(self, run: Run, source: Any, *wanted: Any) -> tuple[np.ndarray, dict[str, str]]:
        """The clip's samples (``wanted``: their rate and length, unless they are a voice's). Where ``auto`` chose Rust, Python reads
        what Rust does not know: then the plan and the voice's metadata, the second result, say so.
        """
        key, source = "reference.load", sort(source)
        try:
            return run(key, source, *wanted), {}
        except UnsupportedAudioError as error:
            if key not in run.plan.automatic or run.plan[key] != "rust" or registry.missing(key, "python") is not None:
                raise
            logger.info("%s=python: %s", key, error)
        run.plan = run.plan.but(key, "python")
        return run(key, source, *wanted), {key: "python"}

    def generate(
        self, text: str, voice: Voice, plan: Plan, options: GenerationOptions, callback: Callback | None = None
    ) -> Speech:
        """Speaks ``text``: normalise, tokenise, T3's token loop, S3Gen, watermark."""
        voice.check(self.config, self.fingerprint)
        run = Run(self, voice.plan(plan), callback)
        read = self.prepare(run, text, options)
        raw = self.tokens(run, voice, read.ids, options.sampler, options.seed, options.max_tokens)
        return self.sound(run, voice, read, raw, options)

    @staticmethod
    def prepare(run: Run, text: str, options: GenerationOptions) -> Text:
        """The text as T3 reads it."""
        normalized = run("text.normalize", pronounced(text, options.pronounce))
        return Text(text, normalized, run("text.tokenize", normalized))

    def sound(self, run: Run, voice: Voice, text: Text, raw: np.ndarray, options: GenerationOptions) -> Speech:
        """The speech of T3's ``raw`` tokens: filter, S3Gen, pace, watermark."""
        seed, reason = options.seed, token_loop.finish_reason(raw, options.max_tokens)
        tokens = token_loop.keep_speech(raw, self.config["s3gen"])
        mel = self.mel(run, voice, tokens, seed)
        faults = self.faults(text, raw, reason, mel)
        samples = stretch(self.vocode(run, mel, seed), options.speed)
        marked = options.watermark is not None
        if marked:
            samples = run("watermark", samples)
        whole = SpokenSegment(text.asked, 0.0, len(samples) / SAMPLE_RATE, len(raw), seed, faults=faults)
        return Speech(samples, SAMPLE_RATE, seed, run.plan, run.timings, tokens, marked, text.normalized, reason, (whole,))

    def faults(self, text: Text, raw: np.ndarray, reason: FinishReason, mel: np.ndarray) -> tuple[Fault, ...]:
        """What is wrong with T3's ``raw`` tokens of a text, and with their mel."""
        silence = self.config["s3gen"]["silence_token"]
        found = verdict.of_tokens(raw, reason, len(text.ids), len(text.normalized), silence)
        return found + verdict.of_mel(mel, 2 * token_loop.SILENCE_TOKENS)

    def mel(self, run: Run, voice: Voice, tokens: np.ndarray, seed: int) -> np.ndarray:
        """The mel of the tokens that were kept, two frames each (one fewer in all, where the prompt has an odd number)."""
        mu = run("s3gen.encoder", np.concatenate([voice.s3gen_prompt_tokens, tokens]))
        noise = run.normals("s3gen.flow", seed, draws.FLOW, len(mu), self.config["s3gen"]["mels"])
        return run("s3gen.flow", mu, voice.xvector, voice.s3gen_prompt_mel, noise)

    def excitation(self, run: Run, seed: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
        """What the vocoder draws for ``frames``: phases and noise."""
        harmonics = self.config["s3gen"]["vocoder"]["harmonics"] + 1
        noise = run.normals("s3gen.vocoder", seed, draws.NOISE, HOP * frames, harmonics)
        return draws.phases(seed, harmonics), noise

    def vocode(self, run: Run, mel: np.ndarray, seed: int) -> np.ndarray:
        """The vocoder: ``[F, 80]`` to 480 F samples."""
        return run("s3gen.vocoder", mel, *self.excitation(run, seed, len(mel)))

    def steps(
        self, run: Run, voice: Voice, text_ids: np.ndarray, parameters: SamplerParameters, seed: int, max_tokens: int
    ) -> Iterator[int]:
        """The raw tokens of the loop one by one, as they are drawn, the stop token included."""
        decoder, sampler = (self.stage(key, run.plan[key]) for key in ("t3.decoder", "t3.sampler"))
        if run.plan["t3.decoder"] == "rust":
            session = decoder.start_from(decoder.prefix_of(voice), text_ids, max_tokens)
        else:
            session = decoder.start(voice.speaker_embedding, voice.t3_prompt_tokens, text_ids, max_tokens)

        def uniform(step: int) -> float:
            return float(draws.uniforms(seed, draws.T3, step, 1)[0])

        drawn = token_loop.steps(decoder, session, sampler, parameters, uniform, max_tokens, run.callback)
        started = time.perf_counter()
        for token in drawn:
            run.timings["t3"] = run.timings.get("t3", 0.0) + time.perf_counter() - started
            yield token
            started = time.perf_counter()

    def tokens(
        self, run: Run, voice: Voice, text_ids: np.ndarray, parameters: SamplerParameters, seed: int, max_tokens: int
    ) -> np.ndarray:
        """The raw tokens of the loop: inside Rust when both T3 stages are, which gives the same tokens.

        There the two stages have one time, ``t3``; in the Python loop each has its own, the decoder's with what the loop itself takes.
        """
        decoder = self.stage("t3.decoder", run.plan["t3.decoder"])
        prompt = (voice.speaker_embedding, voice.t3_prompt_tokens, text_ids)
        started = time.perf_counter()
        if run.plan["t3.decoder"] == run.plan["t3.sampler"] == "rust":
            prefix = decoder.prefix_of(voice)
            tokens = decoder.generate(*prompt, parameters, max_tokens, prefix=prefix, seed=seed, callback=run.callback)
            run.timings["t3"] = time.perf_counter() - started
            return tokens
        sampler, sampled = self.stage("t3.sampler", run.plan["t3.sampler"]), 0.0

        def sample(*arguments: Any) -> int | None:
            nonlocal sampled
            begun = time.perf_counter()
            token = sampler(*arguments)
            sampled += time.perf_counter() - begun
            return token

        def uniform(step: int) -> float:
            return float(draws.uniforms(seed, draws.T3, step, 1)[0])

        tokens = token_loop.generate(decoder, sample, *prompt, parameters, uniform, max_tokens, run.callback)
        run.timings["t3.decoder"] = time.perf_counter() - started - sampled
        run.timings["t3.sampler"] = sampled
        return tokens


class Run:
    """One request: calls stages by key, keeps their times, hands the callback to those that take one."""

    def __init__(self, pipeline: Pipeline, plan: Plan, callback: Callback | None) -> None:
        self.pipeline = pipeline
        self.plan = plan
        self.callback = callback
        self.timings: dict[str, float] = {}
        self.drawn = 0
        """T3's tokens, where they were drawn one by one: set when the last one is there."""

    def __call__(self, key: str, *arguments: Any) -> Any:
        return self._call(key, self.pipeline.stage(key, self.plan[key]), *arguments)

    def of_all(self, key: str, inputs: list[Any]) -> list[Any]:
        """The results of several inputs, of a stage that takes them together."""
        return self._call(key, self.pipeline.stage(key, self.plan[key]).of_all, inputs)

    def _call(self, key: str, stage: Any, *arguments: Any) -> Any:
        more = {}
        if self.callback is not None:
            self.callback(key, 0, 1)
            if _takes_callback(stage):
                more["callback"] = self.callback
        started = time.perf_counter()
        result = stage(*arguments, **more)
        self.timings[key] = self.timings.get(key, 0.0) + time.perf_counter() - started
        if self.callback is not None:
            self.callback(key, 1, 1)
        return result

    def clocked(self, key: str) -> Clocked:
        """The stage, for whoever calls parts of it; its time is kept all the same."""
        return Clocked(self.pipeline.stage(key, self.plan[key]), key, self.timings)

    def normals(self, key: str, seed: int, stream: str, rows: int, cols: int, first: int = 0) -> np.ndarray:
        """The normals of a stream from row ``first`` on, drawn by the core: the same bits as ``draws.normals``, sooner. ``key`` is
        their stage."""
        from .. import _core

        started = time.perf_counter()
        values = np.empty((rows, cols), np.float32)
        for start in range(0, rows, NORMALS):
            if self.callback is not None:
                self.callback(key, 0, 1)
            block = values[start : start + NORMALS]
            block[:] = _core.draws_normals(seed, stream, first + start, len(block), cols)
        self.timings["draws"] = self.timings.get("draws", 0.0) + time.perf_counter() - started
        return values


class Clocked:
    """A stage whose calls, and those of its parts, add to ``timings[key]``."""

    def __init__(self, stage: Any, key: str, timings: dict[str, float]) -> None:
        self._stage, self._key, self._timings = stage, key, timings

    def __call__(self, *arguments: Any) -> Any:
        return self._timed(self._stage, *arguments)

    def __getattr__(self, name: str) -> Any:
        part = getattr(self._stage, name)
        return functools.partial(self._timed, part) if callable(part) else part

    def _timed(self, part: Any, *arguments: Any) -> Any:
        started = time.perf_counter()
        try:
            return part(*arguments)
        finally:
            self._timings[self._key] = self._timings.get(self._key, 0.0) + time.perf_counter() - started


def _takes_callback(stage: Any) -> bool:
    try:
        return "callback" in inspect.signature(stage).parameters
    except (TypeError, ValueError):
        return False
