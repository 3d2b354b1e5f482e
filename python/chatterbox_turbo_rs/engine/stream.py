"""A text's sound in chunks, as it is made.

With the latency ``"sentence"`` T3 runs to the end of a segment, encoder and flow run once; from there on the sound comes in windows
(``windows.py``), with the samples that ``Pipeline.generate`` gives. ``"low"`` is in ``low_latency.py``. The work has a thread of its
own and does not wait for whoever takes the chunks, until it is ``AHEAD`` of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator

import numpy as np

from ..constants import HOP, SAMPLE_RATE
from ..options import AnyVoice, GenerationOptions, StreamOptions
from ..plan import Plan
from ..speech import Chunk, FinishReason
from ..voice import Voice
from . import low_latency, token_loop, warn
from .hand_over import hand_over
from .observer import Callback, Onlooker
from .pipeline import Pipeline, Run
from .voices import Voices
from .windows import vocoder_windows, watermark_windows

logger = logging.getLogger(__name__)

AHEAD = 60
"""Seconds of sound that wait at most for somebody to take them; then the work does."""


def stream(
    pipeline: Pipeline,
    voices: Voices,
    text: str,
    voice: AnyVoice,
    plan: Plan,
    options: GenerationOptions,
    how: StreamOptions,
    onlooker: Onlooker,
) -> Generator[Chunk, None, None]:
    """The chunks of ``text``. Nothing begins before the first is asked for; closing the generator stops the work."""

    def work(give: Callable[[Chunk], None], check: Callable[[], None]) -> None:
        with onlooker as call:

            def watched(stage: str, done: int, total: int) -> None:
                check()
                if call is not None:
                    call(stage, done, total)

            opened = voices.open(voice, plan, options.loudness, watched)
            logger.info("plan %s, seed %d", plan, options.seed)
            for chunk in speak(pipeline, text, opened, plan, options, how, watched):
                give(chunk)

    def look(chunk: Chunk) -> None:
        warn.of_cuts({"the speech": chunk}, options.max_tokens)

    return hand_over(work, look, round(AHEAD / how.chunk))


def speak(
    pipeline: Pipeline, text: str, voice: Voice, plan: Plan, options: GenerationOptions, how: StreamOptions, callback: Callback
) -> Iterator[Chunk]:
    """The chunks of ``text``, in the thread of whoever asks for them."""
    voice.check(pipeline.config, pipeline.fingerprint)
    run = Run(pipeline, voice.plan(plan), callback)
    normalized = run("text.normalize", text)
    text_ids = run("text.tokenize", normalized)
    spoken, start = segment if how.latency == "sentence" else low_latency.sound, 0
    for part, reason in spoken(pipeline, run, voice, text_ids, options):
        for samples, last in pieces(part, round(how.chunk * SAMPLE_RATE)):
            final = last and reason is not None
            yield Chunk(samples, start, 0, normalized, final, reason if final else None)
            start += len(samples)


def segment(
    pipeline: Pipeline, run: Run, voice: Voice, text_ids: np.ndarray, options: GenerationOptions
) -> Iterator[tuple[np.ndarray, FinishReason | None]]:
    """Parts of the speech of ``text_ids``, and with the last one why T3 ended."""
    raw = pipeline.tokens(run, voice, text_ids, options.sampler, options.seed, options.max_tokens)
    left, parts = sound(pipeline, run, voice, raw, options)
    for part in parts:
        left -= len(part)
        yield part, None if left else token_loop.finish_reason(raw, options.max_tokens)


def sound(
    pipeline: Pipeline, run: Run, voice: Voice, raw: np.ndarray, options: GenerationOptions
) -> tuple[int, Iterator[np.ndarray]]:
    """How many samples T3's ``raw`` tokens become, and these in parts: together those of ``Pipeline.sound``.

    Encoder and flow have run when this returns; the parts are made as they are asked for.
    """
    config = pipeline.config["s3gen"]
    mel = pipeline.mel(run, voice, token_loop.keep_speech(raw, config), options.seed)
    excitation = pipeline.excitation(run, options.seed, len(mel))
    vocoder, callback = run.clocked("s3gen.vocoder"), run.callback
    parts = vocoder_windows(vocoder, mel, *excitation, config["vocoder"], callback)
    if options.watermark is not None:
        parts = watermark_windows(run.clocked("watermark"), parts, config["vocoder"]["audio_limit"], callback)
    return HOP * len(mel), parts


def pieces(part: np.ndarray, longest: int) -> Iterator[tuple[np.ndarray, bool]]:
    """``part`` cut into equal pieces of at most ``longest`` samples, each an array of its own; and: is it the last?"""
    count = -(-len(part) // longest)
    for index, piece in enumerate(np.array_split(part, count) if count else ()):
        yield piece.copy(), index == count - 1
