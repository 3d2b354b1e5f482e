"""Writes tests/goldens/text_tokenize.json: ids by the official package's tokenizer for a few hundred texts.

Run with the environment that tools/reference_env.sh builds (transformers 5.2.0): python tools/goldens/text_tokenize.py
"""

from __future__ import annotations

import json
import random
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VOCABULARY = ROOT / "tests/data/tokenizer"
SENTENCES = [
    "", ".", " ", "  ", "\n", "a", "Hello world this is a test.", "You need to add some text for me to talk.", "Well,  ok.",
    "[Laugh] hi.", "Hi[laugh]there", "[laugh][cough]", "[laugh", "laugh]", "[[laugh]]", "[laugh ]", "[clear  throat]",
    "It's.", "don't.", "I'LL go.", "I'll we've they're he'd she's I'm can't 's 'S '", "naïve café.", "A\u00a0b", "😀.",
    "<|endoftext|>.", "Hi <|endoftext|> there<|endoftext|>", "<|endoftext|", "<|ENDOFTEXT|>", "[laugh]<|endoftext|>[sigh]",
    "1 22 333 4444 55555 1,000.00 3.14159 2024-01-31 $5 €5 50% #1 @me", "MiXeD CaSe and_snake_case and-dashes/slashes\\back",
    "https://example.com/a?b=c&d=e#f", "a  b   c    d", "trailing   ", "   leading", "tabs\tand\nlines\r\nhere", "\t\t\t x",
    "\u3000ideographic\u3000space", "zero\u200bwidth\ufeff\u2060\u180e", "e\u0301 vs é, ñ vs n\u0303", "ﬁne ﬂow ŉ ß ẞ", "½ ² ³ Ⅷ ⓐ ㊀ ٣ ९",
    "Привет, мир!", "Γειά σου Κόσμε", "שלום עולם", "مرحبا بالعالم", "नमस्ते दुनिया", "สวัสดีชาวโลก", "你好，世界。", "こんにちは世界！", "안녕하세요 세계",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪 ❤️ ☕", "𝒶𝓫𝖈 𐐨 𞤢", "\U0010ffff\ufffd\ufffe\uffff\ue000", "\u2028\u2029\u0085", "“curly” ‘quotes’ … — –", "a" * 300, "!?" * 60, " " * 200 + "x",
]  # fmt: skip
PIECES = [*"abcXYZ019.,!?'-[]()<|>\n\t", " ", "  ", " the", "ing", "[sigh]", "[clear throat]", "<|endoftext|>", "é", "ß", "Ж", "你", "😀", "\u00a0", "'ll", "\x00", "\x1c", "\u0301"]  # fmt: skip


def texts() -> list[str]:
    tags = json.loads((VOCABULARY / "added_tokens.json").read_text())
    chance = random.Random(20240131)
    return [
        *SENTENCES,
        *(form.format(tag) for tag in tags for form in ("{0} hi.", "Oh {0}, yes.", "no{0}space")),
        *(f"a{chr(code)}b {chr(code)}" for code in [*range(32), *range(127, 161)]),
        *("".join(chance.choices(PIECES, k=chance.randint(1, 40))) for _ in range(120)),
    ]


def long_texts() -> list[tuple[str, int]]:
    """(piece, repetitions): around and beyond the limit of 1024 tokens."""
    return [
        ("hello ", 1023),
        ("hello ", 1024),
        (" hello", 1024),
        (" hello", 1025),
        ("[laugh]", 1024),
        ("[laugh]", 1025),
        ("😀🎉 é ", 400),
        ("one two. ", 20000),
    ]


def main() -> None:
    from transformers import AutoTokenizer, __version__

    tokenizer = AutoTokenizer.from_pretrained(VOCABULARY)
    assert type(tokenizer).__name__ == "GPT2Tokenizer" and len(tokenizer) == 50276, (type(tokenizer), len(tokenizer))

    def ids(text: str) -> list[int]:
        return tokenizer(text, padding=True, truncation=True).input_ids

    golden = {
        "made_by": f"transformers {__version__} GPT2Tokenizer",
        "short": [[text, ids(text)] for text in texts()],
        "long": [[piece, count, ids(piece * count)] for piece, count in long_texts()],
    }
    (ROOT / "tests/goldens/text_tokenize.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    print(len(golden["short"]), "short texts,", len(golden["long"]), "long texts")


if __name__ == "__main__":
    main()
