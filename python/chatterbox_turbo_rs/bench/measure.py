"""What one process of ``chatterbox-turbo bench`` measures: loading, preparing a voice, speaking one length again and again.

Speaking is the product's own ``generate``. A length is forced by a text that is longer than it and by ``max_tokens``; a seed
with which the model stops sooner is not measured.
"""

from __future__ import annotations

import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import _core
from ..constants import HOP, SAMPLE_RATE
from ..engine.token_loop import SILENCE_TOKENS
from ..errors import InternalError
from ..model import MAX_TOKENS, ChatterboxTurbo
from ..voice import Voice

CLIP = Path(__file__).parents[1] / "parity" / "clip.flac"
TOKENS_PER_SECOND = SAMPLE_RATE // (2 * HOP)
CHARACTERS_PER_SECOND = 20
"""Faster than anybody speaks, so that a model that has learnt to stop is cut off by the limit."""
SHORTEST, LONGEST = 2 / TOKENS_PER_SECOND, MAX_TOKENS / TOKENS_PER_SECOND
SENTENCE = "The quick brown fox jumps over the lazy dog, and nobody who watches it from the old stone bridge is surprised. "
LENGTHS = (
    f"max_tokens cuts T3's loop off after {TOKENS_PER_SECOND} tokens for every second asked for, in a text of {CHARACTERS_PER_SECOND} "
    f"characters a second; {SILENCE_TOKENS} tokens of silence follow, as always; a seed with which the model stops sooner is replaced by the next"
)


def tokens_of(seconds: float) -> int:
    """Speech tokens of a length, without the closing silence."""
    return round(seconds * TOKENS_PER_SECOND)


def text_of(seconds: float) -> str:
    """A text that nobody can speak in ``seconds``."""
    wanted = max(CHARACTERS_PER_SECOND, round(seconds * CHARACTERS_PER_SECOND))
    text = SENTENCE * (wanted // len(SENTENCE) + 2)
    return text[: text.index(" ", wanted)].rstrip(",. ") + "."


def peak_bytes() -> int | None:
    """The most memory that this process has had resident so far; None where the system does not tell."""
    try:
        # Not ru_maxrss: on Linux a process starts with that of the one that started it.
        status = Path("/proc/self/status").read_text("utf-8")
        return int(re.findall(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)[0]) * 1024
    except (OSError, IndexError):
        pass
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def summary(runs: Sequence[float], best: Callable[[Sequence[float]], float] = min) -> dict[str, Any]:
    """The first of two or more ``runs``, best and median of the later ones, and all in their order."""
    later = runs[1:]
    return {"first": runs[0], "best": best(later), "median": statistics.median(later), "runs": list(runs)}


class Stopwatch:
    """A progress callback that keeps when each stage spoke; ``seconds`` is the time of every stage.

    A stage's time goes from the first to the last of its calls that follow one another.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, float]] = []

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.calls.append((stage, done, time.perf_counter()))

    @property
    def seconds(self) -> dict[str, float]:
        total: dict[str, float] = {}
        for (before, _, started), (stage, _, ended) in zip(self.calls, self.calls[1:]):
            total.setdefault(before, 0.0)
            if stage == before:
                total[stage] += ended - started
        return total


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Measures ``job``: model, revision, device, precision, backends (as for ``from_pretrained``), seconds, seed, repeat, clip (or None),
    batch: texts that are also spoken together when it is above 1, and stream: whether the text is also streamed.

    Gives ``{"stopped": tokens}`` alone when the model stopped before the length was reached.
    """
    memory = {"start": peak_bytes()}
    started = time.perf_counter()
    tts = ChatterboxTurbo.from_pretrained(
        job["model"],
        device=job["device"],
        precision=job["precision"],
        backends=job["backends"],
        revision=job["revision"],
        progress=False,
    )
    load = time.perf_counter() - started
    memory["load"] = peak_bytes()
    repeat = range(1 + job["repeat"])
    voice_runs, voice_stages = [], []
    for _ in repeat:
        watch, started = Stopwatch(), time.perf_counter()
        voice = tts.voice(job["clip"] or CLIP, progress=watch)
        voice_runs.append(time.perf_counter() - started)
        voice_stages.append(watch.seconds)
    memory["voice"] = peak_bytes()

    count, text = tokens_of(job["seconds"]), text_of(job["seconds"])
    seconds, stages = [], []
    for number in repeat:
        started = time.perf_counter()
        speech = tts.generate(text, voice=voice, seed=job["seed"], max_tokens=count - 1, split="never")
        seconds.append(time.perf_counter() - started)
        found = len(speech.tokens) - SILENCE_TOKENS
        if found != count:
            return {"stopped": found}
        if not np.isfinite(speech.samples).all():
            raise InternalError("the sound is not finite")
        stages.append(dict(speech.timings))
        memory["later" if number else "first"] = peak_bytes()

    prefill = _prefills(tts, voice, speech.text, count, repeat)
    t3 = [sum(times[key] for key in times if key == "t3" or key.startswith("t3.")) for times in stages]
    steps = [(total - started) / (count - 1) for total, started in zip(t3, prefill)]
    more: dict[str, Any] = {}
    if job.get("batch", 1) > 1:
        more["batch"] = _batches(tts, voice, text, count, job["seed"], job["batch"], repeat)
        memory["batch"] = peak_bytes()
    if job.get("stream"):
        more["stream"] = _streams(tts, voice, text, count, job["seed"], repeat)
        memory["stream"] = peak_bytes()
    more |= _floor(tts, voice, speech.text, count, min(steps[1:]))
    return {
        "seconds": job["seconds"],
        "tokens": count,
        "audio_seconds": speech.seconds,
        "seed": job["seed"],
        "plan": dict(tts.plan),
        "load": load,
        "voice": {**summary(voice_runs), "stages": _by_stage(voice_stages)},
        "stages": _by_stage(stages),
        "outside_stages": summary([total - sum(times.values()) for total, times in zip(seconds, stages)]),
        "t3_prefill": summary(prefill),
        "t3_step": summary(steps),
        "tokens_per_second": summary([count / value for value in t3], max),
        "end_to_end": summary(seconds),
        "real_time_factor": summary([value / speech.seconds for value in seconds]),
        "peak_bytes": memory,
        **more,
    }


def _prefills(tts: ChatterboxTurbo, voice: Voice, text: str, count: int, repeat: range) -> list[float]:
    """Seconds of T3's prefill alone, in sessions of their own: the loop in Rust does not tell the two apart."""
    tokenize, decoder = (tts._pipeline.stage(key, tts.plan[key]) for key in ("text.tokenize", "t3.decoder"))
    ids, seconds = tokenize(text), []
    for _ in repeat:
        started = time.perf_counter()
        decoder.start(voice.speaker_embedding, voice.t3_prompt_tokens, ids, count - 1).prefill()
        seconds.append(time.perf_counter() - started)
    return seconds


def _floor(tts: ChatterboxTurbo, voice: Voice, text: str, count: int, seconds: float) -> dict[str, Any]:
    """What reading memory alone would take of the ``seconds`` of a later token, in the middle of the loop; nothing for Python's side."""
    tokenize, decoder = (tts._pipeline.stage(key, tts.plan[key]) for key in ("text.tokenize", "t3.decoder"))
    if tts.plan["t3.decoder"] != "rust":
        return {}
    positions = 2 + len(voice.t3_prompt_tokens) + len(tokenize(text)) + count // 2
    rate, bytes_read = _core.memory_read_rate(), decoder.step_bytes(positions)
    return {
        "memory_bytes_per_second": rate,
        "t3_step_memory": {"position": positions, "bytes": bytes_read, "share": bytes_read / rate / seconds},
    }


def _batches(tts: ChatterboxTurbo, voice: Voice, text: str, count: int, seed: int, size: int, repeat: range) -> dict[str, Any]:
    """``size`` texts spoken together, in turn with one alone; factors are seconds for a second of sound.

    The texts differ in their seeds, so that one or the other may stop before the length: it counts with what it has spoken.
    """
    seconds, stages, together, alone = [], [], [], []
    for _ in repeat:
        started = time.perf_counter()
        one = tts.generate(text, voice=voice, seed=seed, max_tokens=count - 1, split="never")
        alone.append((time.perf_counter() - started) / one.seconds)
        started = time.perf_counter()
        many: list[Any] = tts.generate_many([text] * size, voice, seed, batch=size, max_tokens=count - 1, split="never")
        seconds.append(time.perf_counter() - started)
        sound = sum(speech.seconds for speech in many)
        together.append(seconds[-1] / sound)
        stages.append({key: sum(speech.timings[key] for speech in many) for key in many[0].timings})
    ratios = [both / single for both, single in zip(together, alone)]
    return {
        "texts": size,
        "audio_seconds": sound,
        "end_to_end": summary(seconds),
        "stages": _by_stage(stages),
        "real_time_factor": summary(together),
        "one_by_one": summary(alone),
        "ratio": summary(ratios),
    }


def _streams(tts: ChatterboxTurbo, voice: Voice, text: str, count: int, seed: int, repeat: range) -> dict[str, Any]:
    """The text streamed, in turn with ``generate``: seconds to the first chunk, those that a player that starts with it would have had to
    wait for a later one, and the whole.
    """
    arguments: dict[str, Any] = {"voice": voice, "seed": seed, "max_tokens": count - 1, "split": "never"}
    first, waited, whole, offline = [], [], [], []
    for _ in repeat:
        started = time.perf_counter()
        tts.generate(text, **arguments)
        offline.append(time.perf_counter() - started)
        started = time.perf_counter()
        arrived = [(time.perf_counter() - started, chunk.start / chunk.sample_rate) for chunk in tts.stream(text, **arguments)]
        whole.append(time.perf_counter() - started)
        first.append(arrived[0][0])
        waited.append(max(at - arrived[0][0] - position for at, position in arrived))
    return {
        "first": summary(first),
        "waited": summary(waited),
        "end_to_end": summary(whole),
        "offline": summary(offline),
        "ratio": summary([stream / once for stream, once in zip(whole, offline)]),
    }


def _by_stage(runs: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    return {key: summary([run[key] for run in runs]) for key in runs[0]}
