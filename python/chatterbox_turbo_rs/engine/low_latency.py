"""Sound while T3 is still at it: soonest, and not the samples of ``generate``.

The tokens are those of ``generate``. S3Gen renders what there is of them at 10, 25, 50, 100, 200, 300 … tokens, each time with three tokens more to look
ahead; a render that begins later hears the end of the one before:

- **Up to 4 s** the whole beginning is rendered again, beside three seconds of the reference. **After that** a window slides: the last
  two seconds of the speech's own mel are the prompt, and only what follows is rendered, so that a render does not grow.
- **All noise is fixed by position**, that of the prompt included: two renders of a frame start from the same numbers.
- **Eight frames are held back** of every render, and the next one is cross-faded with it there: in the mel, and in the samples.
- **The excitation goes on**: f0 is frozen where sound was made, and in the held frames, so that no phase jumps. The noise of a sample
  depends on its number.
- **The watermark** is put into every part with the samples before it, and those after it that are still to change, around it.

The vocoder of the last frames hears only the held frames and those of the look-ahead behind them, which is nearly all that it depends on
(``windows.context``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import numpy as np

from ..constants import HOP
from ..options import GenerationOptions
from ..speech import FinishReason
from ..stages import watermark
from ..stages.s3gen.encoder import FRAMES_PER_TOKEN
from ..voice import Voice
from . import draws, token_loop
from .hand_over import hand_over
from .pipeline import Pipeline, Run, Text
from .windows import context

PROMPT = 3.0
"""Seconds of the reference that S3Gen sees."""
LOOK_AHEAD = 3
"""Tokens behind those that are rendered: what the encoder looks ahead."""
FIRST = (10, 25, 50)
STEP = 100
"""Tokens from render to render after these."""
WHOLE = 100
"""Up to so many tokens the beginning is rendered again."""
OWN = 50
"""Tokens of the speech itself that are the prompt afterwards."""
HELD = 8
"""Frames of a render that the next one is cross-faded with: 0.16 s."""
AHEAD = 200
"""Tokens that T3 is ahead of S3Gen at most."""
AROUND_F0 = 5
"""Frames on either side that f0 depends on."""


def renders() -> Iterator[int]:
    """The numbers of tokens at which S3Gen renders."""
    yield from FIRST
    count = 0
    while True:
        count += STEP
        yield count


def sound(
    pipeline: Pipeline, run: Run, voice: Voice, text: Text, options: GenerationOptions
) -> Iterator[tuple[np.ndarray, FinishReason | None]]:
    """Parts of the speech, and with the last one why T3 ended."""
    config, raw = pipeline.config["s3gen"], 0
    marks, renderer = renders(), Renderer(pipeline, run, voice, options)
    mark, last = next(marks), None
    tokens: list[int] = []
    steps = pipeline.steps(run, voice, text.ids, options.sampler, options.seed, options.max_tokens)
    with contextlib.ExitStack() as beside:
        while (token := next(steps, None)) is not None:
            last, raw = token, raw + 1
            if not 0 <= last < config["vocab"]:
                continue
            tokens.append(last)
            if len(tokens) == mark + LOOK_AHEAD:
                part = renderer.render(tokens, mark)
                if mark == FIRST[0]:
                    steps = beside.enter_context(contextlib.closing(ahead(steps)))
                yield part, None
                mark = next(marks)
    stopped = last == pipeline.config["t3"]["stop_token"]
    tokens += [config["silence_token"]] * token_loop.SILENCE_TOKENS
    run.drawn = raw - stopped
    yield renderer.render(tokens, None), "length" if run.drawn > options.max_tokens else "stop"


def ahead(tokens: Iterator[int]) -> Generator[int, None, None]:
    """``tokens``, drawn by a thread of their own while whoever takes them renders."""

    def work(give: Callable[[int], None], check: Callable[[], None]) -> None:
        for token in tokens:
            give(token)

    return hand_over(work, lambda token: None, AHEAD)


@dataclass
class Held:
    """The last frames of a render, which the next one is cross-faded with."""

    mel: np.ndarray  # [HELD, mels]
    samples: np.ndarray  # [480 HELD]
    marked: np.ndarray  # the same with the watermark


class Renderer:
    """One utterance on its way from tokens to samples."""

    def __init__(self, pipeline: Pipeline, run: Run, voice: Voice, options: GenerationOptions) -> None:
        self.pipeline, self.run, self.options = pipeline, run, options
        self.voice = voice.shortened(PROMPT)
        ids = self.voice.s3gen_prompt_tokens
        self.reference = ids, self.voice.s3gen_prompt_mel[: FRAMES_PER_TOKEN * len(ids)]  # without an odd last frame
        config = pipeline.config["s3gen"]
        self.config, self.mels = config["vocoder"], config["mels"]
        self.before, _ = context(self.config)
        self.phases = draws.phases(options.seed, self.config["harmonics"] + 1)
        self.vocoder = run.clocked("s3gen.vocoder")
        self.watermark = None if options.watermark is None else run.clocked("watermark")
        self.loudest = 0.0
        self.mel = np.zeros((0, self.mels), np.float32)  # of what was given out
        self.f0 = np.zeros(0, np.float32)  # of that and the held frames
        self.samples = np.zeros(0, np.float32)  # the last of what was given out, without the mark
        self.held: Held | None = None

    def render(self, tokens: list[int], count: int | None) -> np.ndarray:
        """The samples that follow: up to the held frames of the first ``count`` of ``tokens``, or of all of them, for None."""
        done = len(self.mel)
        fresh = self._mel(np.array(tokens, np.int64))  # from frame ``done`` on
        if self.held is not None:
            fresh[:HELD] = faded(self.held.mel, fresh[:HELD])
        samples = self._vocode(np.concatenate([self.mel, fresh]))
        if self.held is not None:
            samples[: HOP * HELD] = faded(self.held.samples, samples[: HOP * HELD])
        marked = self._marked(samples)
        if self.held is not None and self.watermark is not None:
            marked[: HOP * HELD] = faded(self.held.marked, marked[: HOP * HELD])
        if count is None:
            return marked
        new = FRAMES_PER_TOKEN * count - HELD - done
        kept, end = slice(HOP * new, HOP * (new + HELD)), done + new
        self.held = Held(fresh[new : new + HELD], samples[kept], marked[kept])
        self.mel, self.f0 = np.concatenate([self.mel, fresh[:new]]), self.f0[: end + HELD]
        self.samples = np.concatenate([self.samples, samples[: HOP * new]])[-watermark.CONTEXT :]
        return marked[: HOP * new]

    def _mel(self, tokens: np.ndarray) -> np.ndarray:
        """The frames from the first that was not given out on."""
        done, (prompt, prompt_mel), first = len(self.mel), self.reference, 0
        row = 0  # of the noise: that of the prompt's first frame
        if len(tokens) > WHOLE + LOOK_AHEAD:
            first = done // FRAMES_PER_TOKEN
            begin = max(first - OWN, 0)
            row = FRAMES_PER_TOKEN * (len(prompt) + begin)
            prompt, prompt_mel = tokens[begin:first], self.mel[FRAMES_PER_TOKEN * begin :]
        mu = self.run("s3gen.encoder", np.concatenate([prompt, tokens[first:]]))
        noise = self.run.normals("s3gen.flow", self.options.seed, draws.FLOW, len(mu), self.mels, row)
        mel = self.run("s3gen.flow", mu, self.voice.xvector, prompt_mel, noise)
        return mel[done - FRAMES_PER_TOKEN * first :]

    def _vocode(self, mel: np.ndarray) -> np.ndarray:
        """The samples from the first that was not given out on, for the whole ``mel``."""
        done = len(self.mel)
        begin = max(len(self.f0) - AROUND_F0, 0)
        f0 = self.vocoder.f0(mel[begin:])
        self.f0 = np.concatenate([self.f0, f0[len(self.f0) - begin :]])
        begin = max(done - self.before, 0)
        noise = np.zeros((HOP * len(mel), len(self.phases)), np.float32)
        seed, rows = self.options.seed, HOP * (len(mel) - begin)
        noise[HOP * begin :] = self.run.normals("s3gen.vocoder", seed, draws.NOISE, rows, len(self.phases), HOP * begin)
        source = self.vocoder.source(self.f0, self.phases, noise)
        samples = self.vocoder.samples_from_source(mel[begin:], source[HOP * begin :], self.run.callback)
        samples = samples[HOP * (done - begin) :]
        if done == 0:
            fade = self.vocoder.fade[: len(samples)]
            samples[: len(fade)] *= fade
        return samples

    def _marked(self, samples: np.ndarray) -> np.ndarray:
        """``samples`` with the watermark."""
        if self.watermark is None:
            return samples
        around = np.concatenate([self.samples, samples])
        self.loudest = max(self.loudest, float(self.watermark.levels(around).max()))
        return self.watermark(around, self.run.callback, self.loudest)[len(self.samples) :]


def faded(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """From ``old`` to ``new`` along the first axis, evenly."""
    weight = (np.arange(1, len(old) + 1, dtype=np.float32) / (len(old) + 1)).reshape(-1, *[1] * (old.ndim - 1))
    return old + (new - old) * weight
