"""Speaks ten sentences and lets a speech recogniser write down what it hears.

usage: hear.py MODEL OUT [--voice CLIP] [--recogniser small.en] [--markdown FILE]

Needs faster-whisper, which downloads its model; ``--recogniser none`` writes the sound alone. Exit code 1 where more than a tenth
of all words is wrong: a model that speaks is far below, one with a fault anywhere in its stages far above.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from chatterbox_turbo_rs import ChatterboxTurbo

MOST_WRONG = 0.1
MAX_TOKENS = 300  # 12 s: no sentence takes half as long
SENTENCES = (
    "The quick brown fox jumps over the lazy dog near the river bank.",
    "She opened the window because the room had become far too warm.",
    "Please leave your umbrella beside the door before you come inside.",
    "Every morning the baker puts fresh bread on the wooden counter.",
    "We walked along the beach until the sun had gone behind the hills.",
    "The children asked their teacher whether the moon was made of cheese.",
    "He forgot his keys again, so he waited an hour in the cold rain.",
    "A small green boat was drifting slowly across the quiet lake.",
    "The train to the city leaves from the second platform after lunch.",
    "Nobody in the village remembered who had planted the old oak tree.",
)


def words(text: str) -> list[str]:
    """The words of ``text`` in lower case, without punctuation."""
    return re.findall(r"[a-z0-9']+", text.lower())


def word_errors(spoken: Sequence[str], heard: Sequence[str]) -> int:
    """The fewest insertions, deletions and substitutions of words that turn ``spoken`` into ``heard``."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(spoken, 1):
        corner, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (word != other))
    return row[-1]


def recogniser(name: str) -> Callable[[Path], str]:
    """What writes down the words of a file, by faster-whisper's model ``name``."""
    from faster_whisper import WhisperModel

    model = WhisperModel(name, device="cpu", compute_type="int8")
    return lambda path: " ".join(segment.text.strip() for segment in model.transcribe(str(path), language="en", beam_size=5)[0])


def report(model: str, heard: Sequence[tuple[str, float, str | None]]) -> tuple[str, float]:
    """Markdown of (sentence, seconds, what was heard; None: nobody listened), and the share of wrong words."""
    lines = ["| sentence | seconds | heard | wrong words |", "|---|---|---|---|"]
    wrong = total = 0
    for sentence, seconds, text in heard:
        errors = word_errors(words(sentence), words(text or ""))
        wrong, total = wrong + errors, total + len(words(sentence))
        lines.append(f"| {sentence} | {seconds:.1f} | {'–' if text is None else text} | {'–' if text is None else errors} |")
    share = wrong / total
    listened = any(text is not None for _, _, text in heard)
    verdict = f"{wrong} of {total} words wrong ({share:.1%}; at most {MOST_WRONG:.0%})." if listened else "Nobody listened."
    return "\n".join(
        [f"# {model}: ten sentences, heard by a recogniser", "", verdict, "", *lines, ""]
    ), share if listened else 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="demo, turbo, nano, a repository id or a directory")
    parser.add_argument("out", type=Path, help="takes the sound")
    parser.add_argument("--voice", help="a reference clip or a voice file (default: the model's own)")
    parser.add_argument("--recogniser", default="small.en", help="a model of faster-whisper, or none")
    parser.add_argument("--markdown", type=Path, help="write the report here (default: standard output)")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    tts = ChatterboxTurbo.from_pretrained(options.model)
    transcribe = None if options.recogniser == "none" else recogniser(options.recogniser)
    heard = []
    for number, sentence in enumerate(SENTENCES, 1):
        path = options.out / f"{number:02}.wav"
        speech = tts.generate(sentence, voice=options.voice, seed=number, max_tokens=MAX_TOKENS)
        speech.save(path)
        heard.append((sentence, len(speech.samples) / speech.sample_rate, transcribe(path) if transcribe else None))
    text, share = report(options.model, heard)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    else:
        print(text)
    return int(share > MOST_WRONG)


if __name__ == "__main__":
    sys.exit(main())
