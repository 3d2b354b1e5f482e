"""How well a demo model speaks: sentences that no training saw, with default arguments, heard by the listener.

usage: quality.py [--model DIR] [--sentences 50] [--together 5] [--most-errors 0.35] [--teacher] [--resynthesis] [--low] [--prompt-seconds 3] [--picture FILE.png] [--json FILE] [--sounds DIR]

The table has word error (Whisper tiny.en), DNSMOS, how many sentences stopped by themselves, length against the teacher's, median
of the fundamental frequency, and the real-time factor. Exit code 1 where the model's share of wrong words is above
``--most-errors``. ``--teacher`` (a row of its own, and the lengths) and ``--resynthesis`` (the teacher's own speech through tokens
and back: without T3, the tokenizer, S3Gen and the vocoder alone) need hibari-tts; nothing else does.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import listener
from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.parity.report import png

SENTENCES = Path(__file__).with_name("quality_sentences.txt")
RATE = 24_000
MAX_TOKENS = 300
"""Of a sentence, 12 s: none takes half as long."""


@dataclass
class Row:
    """What was measured of one party, over all sentences."""

    name: str
    words: int = 0
    errors: int = 0
    stopped: int = 0
    sentences: int = 0
    seconds: float = 0.0
    busy: float = 0.0
    teacher_seconds: float = 0.0
    mos: list[float] = field(default_factory=list)
    f0: list[float] = field(default_factory=list)
    heard: list[tuple[int, str, str]] = field(default_factory=list)

    def line(self) -> str:
        f0 = f"{np.median(self.f0):.0f}" if self.f0 else "–"
        length = f"{self.seconds / self.teacher_seconds:.2f}" if self.teacher_seconds else "–"
        return (
            f"| {self.name} | {100 * self.errors / self.words:.1f} % | {np.mean(self.mos):.2f} | {self.stopped} of {self.sentences} "
            f"| {length} | {f0} Hz | {self.busy / self.seconds:.3f} |"
        )


MODEL = "model"
HEAD = "| | word error | DNSMOS | stopped | length | f0 | real-time factor |\n|---|---|---|---|---|---|---|"
Speak = Callable[[int, str], tuple[np.ndarray, bool]]


def taught(sentences: Sequence[str]) -> list[np.ndarray]:
    """The teacher's sound of each sentence."""
    from hibari import Hibari

    teacher = Hibari(threads=1)
    return [teacher(text, seed=i) for i, text in enumerate(sentences)]


class Judge:
    """Has parties speak ``sentences`` and listens; ``teacher`` is the teacher's sound of each, or nothing."""

    def __init__(
        self, model: ChatterboxTurbo, sentences: Sequence[str], most: int, teacher: Sequence[np.ndarray], sounds: Path | None
    ) -> None:
        """``most``: tokens of a text."""
        self.model, self.sentences, self.most, self.teacher, self.sounds = model, sentences, most, teacher, sounds
        self.pipeline: Any = model._pipeline

    def row(self, name: str, speak: Speak) -> Row:
        """Listens to every sentence of a party."""
        row = Row(name)
        for i, text in enumerate(self.sentences):
            started = time.perf_counter()
            wave, stopped = speak(i, text)
            row.busy += time.perf_counter() - started
            heard = listener.transcript(wave)
            wanted = listener.words(text)
            wrong = listener.errors(wanted, listener.words(heard))
            row.words, row.errors = row.words + len(wanted), row.errors + wrong
            row.stopped, row.sentences = row.stopped + stopped, row.sentences + 1
            row.seconds += len(wave) / RATE
            row.teacher_seconds += len(self.teacher[i]) / RATE if self.teacher else 0
            row.mos.append(listener.mos(wave))
            row.f0 += self.voiced(wave)
            row.heard.append((wrong, text, heard))
            if self.sounds:
                folder = self.sounds / name.replace(" ", "_")
                folder.mkdir(parents=True, exist_ok=True)
                soundfile.write(folder / f"{i:02d}.flac", np.clip(wave, -1, 1), RATE)
        return row

    def voiced(self, wave: np.ndarray) -> list[float]:
        """Frequencies of the voiced frames, as the model's own vocoder hears them."""
        mel = self.pipeline.stage("s3gen.prompt_mel", "rust")(np.asarray(wave, np.float32))
        f0 = self.pipeline.stage("s3gen.vocoder", "rust").f0(mel)
        return [float(f) for f in f0[f0 > 60]]

    def picture(self) -> bytes:
        """A PNG of the first sentence's log-mel: the teacher's where there is one, and below it the model's."""
        mel = self.pipeline.stage("s3gen.prompt_mel", "rust")
        waves = [*self.teacher[:1], self.speech(0)(0, self.sentences[0])[0]]
        return png.spectra([mel(np.asarray(wave, np.float32)) for wave in waves], 8.0)

    def speech(self, seed: int, voice: Any = None) -> Speak:
        def speak(i: int, text: str) -> tuple[np.ndarray, bool]:
            made = self.model.generate(text, seed=seed + i, voice=voice, max_tokens=self.most)
            return made.samples, made.finish_reason == "stop"

        return speak

    def streamed(self, seed: int) -> Speak:
        """As ``speech``, with what a stream of low latency makes of it."""

        def speak(i: int, text: str) -> tuple[np.ndarray, bool]:
            chunks = list(self.model.stream(text, seed=seed + i, max_tokens=self.most, latency="low"))
            return np.concatenate([chunk.samples for chunk in chunks]), chunks[-1].finish_reason == "stop"

        return speak

    def resynthesis(self) -> Speak:
        """The teacher's sound through the tokenizer, S3Gen and the vocoder, with the built-in voice."""

        def speak(i: int, text: str) -> tuple[np.ndarray, bool]:
            return self.model.convert((self.teacher[i], RATE), seed=i, watermark=None).samples, True

        return speak


def rows(judge: Judge, args: argparse.Namespace) -> Iterator[Row]:
    if args.teacher:
        yield judge.row("teacher", lambda i, text: (judge.teacher[i], True))
    if args.resynthesis:
        yield judge.row("re-synthesis", judge.resynthesis())
    if not args.no_speech:
        for seed in range(args.seeds):
            yield judge.row(MODEL if args.seeds == 1 else f"{MODEL}, seed {seed}", judge.speech(1000 * seed))
            if args.low:
                yield judge.row(f"low latency, seed {seed}", judge.streamed(1000 * seed))
            for seconds in args.prompt_seconds:
                voice = judge.model.builtin_voice.shortened(seconds)
                yield judge.row(f"prompt of {seconds:g} s, seed {seed}", judge.speech(1000 * seed, voice))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--sentences", type=int, default=50)
    parser.add_argument("--together", type=int, default=1, metavar="N", help="make one text of so many sentences")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--most-errors", type=float, metavar="SHARE", help="fail where more of the model's words are wrong")
    parser.add_argument("--teacher", action="store_true", help="listen to the teacher, and compare lengths with it")
    parser.add_argument("--resynthesis", action="store_true", help="listen to the teacher's speech through tokens and back")
    parser.add_argument("--low", action="store_true", help="listen to streams of low latency as well")
    parser.add_argument(
        "--prompt-seconds", type=float, nargs="+", default=[], metavar="S", help="listen with so much of the voice's clip as well"
    )
    parser.add_argument("--no-speech", action="store_true", help="leave the model's own speech out")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE.png", help="log-mel of the first sentence, the teacher's above if it is there"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--sounds", type=Path, help="folder for what was spoken")
    args = parser.parse_args(arguments)
    if args.no_speech and args.most_errors is not None:
        parser.error("--most-errors is about the model's own speech, which --no-speech leaves out")
    sentences = SENTENCES.read_text(encoding="utf-8").splitlines()[: args.sentences]
    sentences = [" ".join(sentences[i : i + args.together]) for i in range(0, len(sentences), args.together)]
    model = ChatterboxTurbo.from_pretrained(args.model, precision=args.precision)
    teacher = taught(sentences) if args.teacher or args.resynthesis else []
    judge = Judge(model, sentences, min(1000, args.together * MAX_TOKENS), teacher, args.sounds)
    if args.picture:
        args.picture.write_bytes(judge.picture())
    done = []
    print(HEAD, flush=True)
    for row in rows(judge, args):
        done.append(row)
        print(row.line(), flush=True)
    for row in done:
        print(f"\n{row.name}: what was heard otherwise")
        for wrong, text, heard in row.heard:
            if wrong:
                print(f"  {wrong}: {text}\n     {heard}")
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in done], indent=1) + "\n", encoding="utf-8")
    if args.most_errors is None:
        return 0
    own = [row for row in done if row.name.startswith(MODEL)]
    share = sum(row.errors for row in own) / sum(row.words for row in own)
    print(f"\n{share:.1%} of the model's words wrong; at most {args.most_errors:.1%} may be")
    return int(share > args.most_errors)


if __name__ == "__main__":
    sys.exit(main())
