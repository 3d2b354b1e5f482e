"""What ``bench_official.py`` measures in its processes: the official package, our Python and our Rust side on the same work.

``alone`` has one of them in the process: loading, first runs, memory. ``stages`` and ``end_to_end`` have all of them and let
them take turns, so that what disturbs the machine disturbs everybody.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from chatterbox_turbo_rs import ChatterboxTurbo, Voice
from chatterbox_turbo_rs.bench import measure
from chatterbox_turbo_rs.engine import draws
from chatterbox_turbo_rs.engine.token_loop import SILENCE_TOKENS

CLIP = Path(__file__).resolve().parents[1] / "tests" / "data" / "clips" / "long.flac"
DECODE_STEPS = 20
ATTEMPTS = 8
Job = Mapping[str, Any]


class Official:
    """The official package with its own random numbers; ``max_gen_len``, which its ``generate`` leaves at 1000, sets the length."""

    def __init__(self, job: Job) -> None:
        os.environ["TQDM_DISABLE"] = "1"
        from official.modules import load_official

        self.modules = load_official(job["checkpoint"])
        self.tts = self.modules.tts

    def prepare(self) -> None:
        self.tts.prepare_conditionals(str(CLIP))

    def speak(self, text: str, count: int, seed: int) -> int:
        import torch

        torch.manual_seed(seed)
        loop = functools.partial(self.tts.t3.inference_turbo, max_gen_len=count - 1)
        with mock.patch.object(self.tts.t3, "inference_turbo", loop):
            return self.tts.generate(text).shape[-1]


class Ours:
    """One side of this package: ``python`` and ``rust`` in float32, ``auto`` is Rust in the job's precision."""

    def __init__(self, job: Job, name: str) -> None:
        side, precision = ("rust", job["precision"]) if name == "auto" else (name, "f32")
        self.tts = ChatterboxTurbo.from_pretrained(job["checkpoint"], backends=side, precision=precision, progress=False)
        self.voice: Voice | None = None
        self.stage = lambda key: self.tts._pipeline.stage(key, side)

    def prepare(self) -> None:
        self.voice = self.tts.voice(CLIP)

    def speak(self, text: str, count: int, seed: int) -> int:
        return len(self.tts.generate(text, voice=self.voice, seed=seed, max_tokens=count - 1, split="never").samples)


def party(name: str, job: Job) -> Any:
    """Loads ``official``, ``python``, ``rust`` or ``auto``."""
    return Official(job) if name == "official" else Ours(job, name)


def timed(call: Callable[..., Any], *arguments: Any) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - started


def alone(job: Job) -> dict[str, Any]:
    """Loading, the first voice, the first utterance, and the peak of memory after each, of the party ``job["party"]``."""
    peaks, seconds, loaded = {"start": measure.peak_bytes()}, {}, []
    seconds["load"] = timed(lambda: loaded.append(party(job["party"], job)))
    peaks["load"] = measure.peak_bytes()
    seconds["voice"] = timed(loaded[0].prepare)
    peaks["voice"] = measure.peak_bytes()
    seconds["speak"], seed = utterance(loaded[0], job["seconds"], 1)
    peaks["speak"] = measure.peak_bytes()
    return {"seconds": seconds, "peak_bytes": peaks, "cold": seed == 1}


def utterance(who: Any, seconds: float, seed: int) -> tuple[float, int]:
    """Seconds that an utterance of this length takes, and its seed: the first from ``seed`` on that reaches the length."""
    count, text, found = measure.tokens_of(seconds), measure.text_of(seconds), []
    for attempt in range(seed, seed + ATTEMPTS):
        lengths: list[int] = []
        taken = timed(lambda: lengths.append(who.speak(text, count, attempt)))  # noqa: B023
        if lengths[0] == samples_of(seconds):
            return taken, attempt
        found.append(lengths[0])
    raise RuntimeError(f"{seconds:g} s: expected {samples_of(seconds)} samples, got {found} with {ATTEMPTS} seeds")


def samples_of(seconds: float) -> int:
    """Samples of an utterance of this length, with the closing silence."""
    return (measure.tokens_of(seconds) + SILENCE_TOKENS) * measure.SAMPLE_RATE // measure.TOKENS_PER_SECOND


def end_to_end(job: Job) -> dict[str, Any]:
    """Seconds of ``1 + job["repeat"]`` utterances of every party, in turn, with a prepared voice."""
    parties = {name: party(name, job) for name in job["parties"]}
    for who in parties.values():
        who.prepare()
    runs: dict[str, list[float]] = {name: [] for name in parties}
    seeds = dict.fromkeys(parties, 1)
    for _ in range(1 + job["repeat"]):
        for name, who in parties.items():
            taken, seeds[name] = utterance(who, job["seconds"], seeds[name])
            runs[name].append(taken)
    audio = samples_of(job["seconds"]) / measure.SAMPLE_RATE
    return {"name": f"{job['seconds']:g} s", "audio_seconds": audio, "seconds": times(runs), "versions": versions(parties)}


def stages(job: Job) -> list[dict[str, Any]]:
    """Seconds of ``1 + job["repeat"]`` calls of every stage of every party, in turn, on the same inputs."""
    rows = []
    for name, calls in cases(job):
        runs: dict[str, list[float]] = {side: [] for side in calls}
        for _ in range(1 + job["repeat"]):
            for side, call in calls.items():
                runs[side].append(timed(call))
        rows.append({"name": name, "seconds": times(runs)})
    return rows


def times(runs: Mapping[str, list[float]]) -> dict[str, dict[str, Any]]:
    return {name: measure.summary(values) for name, values in runs.items()}


def versions(parties: Mapping[str, Any]) -> dict[str, Any]:
    """Of PyTorch and of this package, how many threads each of them has, the CPU level, and what ``auto`` computes in."""
    import torch

    from chatterbox_turbo_rs import _core

    core = _core.build_info()
    return {
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "package": core["version"],
        "threads": core["threads"],
        "level": core["cpu_level"],
        "precision": parties["auto"].tts.precision if "auto" in parties else "f32",
    }


def cases(job: Job) -> list[tuple[str, dict[str, Callable[[], Any]]]]:
    """Every stage's name, and the call of every party."""
    loaded = {name: party(name, job) for name in job["parties"]}
    official = loaded["official"].modules
    config = official.config
    samples = official.reference_loudness(official.reference_load(str(CLIP)))[:240_000]
    w16, r16 = official.reference_resample(samples)
    ve_mel, s3_mel = official.voice_encoder_mel(w16), official.s3tokenizer_mel(r16)
    fbank, prompt_mel = official.speaker_encoder_fbank(r16), official.s3gen_prompt_mel(samples)
    embedding, xvector = official.voice_encoder_embedding(ve_mel), official.speaker_encoder_xvector(fbank)
    prompt = official.s3tokenizer_tokens(s3_mel)[: len(prompt_mel) // 2]
    limit = config["t3"]["prompt_tokens"]
    t3_prompt = official.s3tokenizer_tokens(official.s3tokenizer_mel(w16)[: 4 * limit])
    text = official.text_tokenize(official.text_normalize(measure.text_of(job["seconds"])))
    random, s3gen = np.random.default_rng(1), config["s3gen"]
    generated, silence = (
        random.integers(0, s3gen["vocab"], measure.tokens_of(job["seconds"])),
        [s3gen["silence_token"]] * SILENCE_TOKENS,
    )
    tokens = np.concatenate([prompt, generated, silence]).astype(np.int64)
    mu, harmonics = official.s3gen_encoder(tokens), s3gen["vocoder"]["harmonics"] + 1
    noise = draws.normals(1, draws.FLOW, 0, len(mu), s3gen["mels"])
    mel = official.s3gen_flow(mu, xvector, prompt_mel, noise)
    phases, vocoder_noise = draws.phases(1, harmonics), draws.normals(1, draws.NOISE, 0, 480 * len(mel), harmonics)
    sound = official.s3gen_vocoder(mel, phases, vocoder_noise)
    speech = [int(token) for token in random.integers(0, s3gen["vocab"], DECODE_STEPS)]
    room = DECODE_STEPS * (1 + job["repeat"])

    def start(name: str) -> Any:
        decoder = official.t3_decoder if name == "official" else loaded[name].stage("t3.decoder").start
        return decoder(embedding, t3_prompt, text, *(() if name == "official" else (room,)))

    def decode(name: str) -> Callable[[], Any]:
        session = start(name)
        session.prefill()
        return lambda: [session.step(token) for token in speech]

    rows = 2 + len(t3_prompt) + len(text)
    found: list[tuple[str, dict[str, Callable[[], Any]]]] = [
        ("voice preparation", {name: who.prepare for name, who in loaded.items()}),
        (f"t3.decoder prefill {rows}", {name: lambda name=name: start(name).prefill() for name in loaded}),
        (f"t3.decoder {DECODE_STEPS} steps from {rows}", {name: decode(name) for name in loaded}),
    ]
    inputs: dict[str, tuple[Any, ...]] = {
        "s3gen.encoder": (tokens,),
        "s3gen.flow": (mu, xvector, prompt_mel, noise),
        "s3gen.vocoder": (mel, phases, vocoder_noise),
        "watermark": (sound,),
        "voice_encoder.embedding": (ve_mel,),
        "s3tokenizer.tokens": (s3_mel,),
        "speaker_encoder.xvector": (fbank,),
        "voice_encoder.mel": (w16,),
        "s3tokenizer.mel": (r16,),
        "speaker_encoder.fbank": (r16,),
        "s3gen.prompt_mel": (samples,),
        "reference.resample": (samples,),
        "reference.loudness": (samples,),
    }
    for key, arguments in inputs.items():
        sides = {name: official.stage(key) if name == "official" else who.stage(key) for name, who in loaded.items()}
        found.append((key, {name: functools.partial(stage, *arguments) for name, stage in sides.items()}))
    return found
