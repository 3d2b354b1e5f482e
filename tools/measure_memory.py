"""Memory of a process that streams a long text, and of one that keeps it: resident MB after every few minutes of sound.

usage: measure_memory.py [--model demo] [--minutes 30] [--every 5] [--whole]

The text is the demo model's quality sentences in many orders. It is streamed into a FLAC file, chunk by chunk; with ``--whole`` it is one
``generate`` that is saved, whose sound is held.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
from pathlib import Path

from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.audio.encode import Encoder

SENTENCES = Path(__file__).parent / "demo_model" / "quality_sentences.txt"
CHARACTERS = 21.5
"""A second."""


def resident() -> dict[str, float]:
    """MB now and at the most."""
    status = Path("/proc/self/status").read_text("utf-8")
    return {name: int(re.findall(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)[0]) / 1024 for name in ("VmRSS", "VmHWM")}


def text_of(minutes: float) -> str:
    """Paragraphs that take about so long to say."""
    sentences, rng, text = SENTENCES.read_text("utf-8").splitlines(), random.Random(1), ""
    while len(text) < 60 * CHARACTERS * minutes:
        text += " ".join(rng.sample(sentences, 6)) + "\n\n"
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--every", type=float, default=5, help="minutes of sound between two lines")
    parser.add_argument("--whole", action="store_true", help="generate and save instead of streaming")
    args = parser.parse_args()
    tts, text = ChatterboxTurbo.from_pretrained(args.model), text_of(args.minutes)
    tts.generate("Once, so that everything is loaded.", seed=0)

    def tell(what: str) -> None:
        found = resident()
        print(f"{what}: {found['VmRSS']:.0f} MB, at the most {found['VmHWM']:.0f}", flush=True)

    tell(f"{len(text)} characters, before")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.flac"
        if args.whole:
            speech = tts.generate(text, seed=1)
            tell(f"{speech.seconds / 60:.1f} minutes generated")
            speech.save(path)
            tell("saved")
            return 0
        due = args.every
        with open(path, "w+b") as file, Encoder(file, tts.sample_rate, "flac") as encoder:
            for chunk in tts.stream(text, seed=1):
                encoder.write(chunk.samples)
                minutes = (chunk.start + len(chunk)) / tts.sample_rate / 60
                if minutes >= due or chunk.final:
                    tell(f"{minutes:.1f} minutes streamed")
                    due += args.every
        tell(f"{path.stat().st_size / 1e6:.0f} MB written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
