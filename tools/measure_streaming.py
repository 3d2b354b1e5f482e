"""What streaming with ``latency="low"`` costs: the difference to ``generate`` per render, clicks, the end, and a picture of both.

usage: measure_streaming.py [--model demo] [--sentences FILE] [--count 20] [--picture FILE.png]

Every sentence is spoken by ``generate`` and streamed with the same seed, without watermark, so that what differs is S3Gen's. A render
is what arrives between two of T3's marks (``low_latency.renders``). The log-mel difference is the mean absolute one, in dB; a step is
the difference of two neighbouring samples, at a join (where a render follows another) and inside. Word error is
``tools/demo_model/quality.py --low``'s.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.constants import HOP, SAMPLE_RATE
from chatterbox_turbo_rs.engine import low_latency
from chatterbox_turbo_rs.options import CHUNKS
from chatterbox_turbo_rs.parity.report import png

SENTENCES = Path(__file__).parent / "demo_model" / "quality_sentences.txt"
END = SAMPLE_RATE // 25
"""Samples of the last 40 ms."""
LOUD = -60.0
"""dB under the loudest band of a sentence below which no band is compared."""
DB = 20 / np.log(10)


def decibels(values: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(values, dtype=np.float64)) + 1e-12))


def borders(frames: int) -> list[int]:
    """Frames at which renders begin, 0 first, and the end."""
    found = [0]
    for mark in low_latency.renders():
        at = 2 * mark - low_latency.HELD
        if at >= frames:
            break
        found.append(at)
    return [*found, frames]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--sentences", type=Path, default=SENTENCES)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument(
        "--joined", type=int, default=1, metavar="N", help="speak so many sentences as one text, for longer streams"
    )
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="mel of the last text: generate above, the stream below")
    args = parser.parse_args()
    tts = ChatterboxTurbo.from_pretrained(args.model)
    mel_of = tts._pipeline.stage("s3gen.prompt_mel", "rust")
    lines = args.sentences.read_text("utf-8").splitlines()[: args.count]
    texts = [" ".join(lines[i : i + args.joined]) for i in range(0, len(lines), args.joined)]
    apart: dict[int, list[float]] = defaultdict(list)
    steps: dict[str, list[float]] = {"joins": [], "inside": [], "generate": []}
    ends: dict[str, list[float]] = {"generate": [], "low": []}
    for seed, text in enumerate(texts):
        options = {"seed": seed, "watermark": None, "split": "never"}
        whole = tts.generate(text, **options).samples
        low = np.concatenate([chunk.samples for chunk in tts.stream(text, latency="low", chunk=CHUNKS[1], **options)])
        if len(whole) != len(low):
            raise SystemExit(f"{text!r}: generate has {len(whole)} samples, the stream {len(low)}")
        mels = [DB * mel_of(samples) for samples in (whole, low)]
        heard = np.maximum(*mels) > mels[0].max() + LOUD
        marks = borders(len(mels[0]))
        for render, (first, end) in enumerate(zip(marks, marks[1:])):
            part = heard[first:end]
            if part.any():
                apart[render].append(float(np.abs(mels[1] - mels[0])[first:end][part].mean()))
        jumps = np.abs(np.diff(low))
        at = [HOP * mark - 1 for mark in marks[1:-1]]
        steps["joins"] += [float(jumps[k]) for k in at]
        steps["inside"].append(float(np.delete(jumps, at).max()))
        steps["generate"].append(float(np.abs(np.diff(whole)).max()))
        ends["generate"].append(decibels(whole[-END:]))
        ends["low"].append(decibels(low[-END:]))
    print(f"{len(texts)} texts, log-mel difference to generate in dB, bands within {-LOUD:g} dB of the loudest:")
    for render, values in sorted(apart.items()):
        print(f"  render {render}: mean {np.mean(values):.2f}, largest {max(values):.2f} ({len(values)})")
    print("largest step of a sample: " + ", ".join(f"{name} {max(values, default=0):.4f}" for name, values in steps.items()))
    print("last 40 ms, dB: " + ", ".join(f"{name} {np.mean(v):.1f} (loudest {max(v):.1f})" for name, v in ends.items()))
    if args.picture:
        args.picture.write_bytes(png.spectra(mels, 80.0))
    return 0


if __name__ == "__main__":
    sys.exit(main())
