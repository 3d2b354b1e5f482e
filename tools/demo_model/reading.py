"""What T3 is trained on: aligned sentences and spans of words cut out of them, in batches whose texts are equally long.

Equal lengths make a batch exactly the sequence of inference, ``[speaker | prompt | text | start | speech]`` with absolute positions,
without any mask: the speech is padded at its end only. A batch is ``Batch``; ``target`` is -100 where there is none, and
``character`` tells for every target which character of the text is being spoken.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import tokens

PROMPT = 15
ROWS = 3000
"""Rows of a batch, about: sentences of 45 characters come 28 at a time."""
MOST = 96
"""Sequences in a batch at most."""
LONGEST = 280
"""Characters of joined sentences: a segment's (``engine/segments``)."""
TAGGED = 0.3
"""Share of the batches of joined sentences whose texts have a tag."""
POOL = 4000
"""Spans that are cut at a time, to find equally long ones."""


@dataclass
class Item:
    """One utterance: text ids, speech ids, character of each, and for every word (characters from, to, slots from, to)."""

    text: np.ndarray
    speech: np.ndarray
    character: np.ndarray
    words: np.ndarray


@dataclass
class Batch:
    prompt: Tensor  # [1, PROMPT], the same for all
    text: Tensor  # [B, T]
    speech: Tensor  # [B, S], the start token first
    target: Tensor  # [B, S]
    character: Tensor  # [B, S]


def item(aligned: dict) -> Item:
    speech, character, _ = tokens.codes(aligned)
    words, start = [], 0
    for number, word in enumerate(aligned["text"].split(" ")):
        slots = np.flatnonzero((aligned["word"] == number) & (speech != tokens.SILENCE))
        if len(slots):
            words.append((start, start + len(word), slots[0], slots[-1] + 1))
        start += len(word) + 1
    text = np.array(tokens.text_ids(aligned["text"]), np.int16)
    return Item(text, speech.astype(np.int16), character.astype(np.float32), np.array(words, np.int32).reshape(-1, 4))


def read(file: Path) -> list[Item]:
    return [item(aligned) for aligned in pickle.loads(file.read_bytes())]


def cut(whole: Item, rng: np.random.Generator) -> Item:
    """One to four words; the punctuation behind them goes along."""
    count = int(rng.choice((1, 1, 2, 2, 3, 4)))
    if len(whole.words) <= count:
        return whole
    first = int(rng.integers(len(whole.words) - count + 1))
    (a, _, s, _), (_, b, _, e) = whole.words[first], whole.words[first + count - 1]
    return Item(whole.text[a:b], whole.speech[s:e], whole.character[s:e] - a, whole.words[:0])


def tagged(one: Item, rng: np.random.Generator) -> Item:
    """The utterance with a tag (``[laugh]``) before one of its words or at its end: the model can't laugh, and waits a little."""
    tag, (space,) = int(rng.integers(*tokens.TAGS)), tokens.text_ids(" ")
    k = int(rng.integers(len(one.words) + 1))
    a, s = (one.words[k][0], one.words[k][2]) if k < len(one.words) else (len(one.text), len(one.speech))
    more = [tag, space] if k < len(one.words) else [space, tag]
    pause = int(rng.integers(3, 7))
    speech = np.concatenate([one.speech[:s], np.full(pause, tokens.SILENCE, one.speech.dtype), one.speech[s:]])
    character = np.concatenate([one.character[:s], np.full(pause, a + more.index(tag), np.float32), one.character[s:] + 2])
    text = np.concatenate([one.text[:a], np.array(more, one.text.dtype), one.text[a:]])
    return Item(text, speech, character, one.words[:0])


def join(items: list[Item]) -> Item:
    """Sentences as one text, a space between them; the silence that ends each is the pause."""
    space, places, start = np.array(tokens.text_ids(" "), np.int16), [], 0
    for one in items:
        places.append(one.character + start)
        start += len(one.text) + 1
    text = np.concatenate([part for one in items for part in (space, one.text)][1:])
    return Item(text, np.concatenate([one.speech for one in items]), np.concatenate(places), items[0].words[:0])


def batch(items: list[Item], rng: np.random.Generator, prompts: list[Item]) -> Batch:
    length = max(len(i.speech) for i in items) + 1
    shape = (len(items), length)
    speech, target, character = np.full(shape, tokens.STOP), np.full(shape, -100), np.zeros(shape, np.float32)
    for k, one in enumerate(items):
        n = len(one.speech)
        speech[k, 0], speech[k, 1 : n + 1] = tokens.START, one.speech
        target[k, :n], target[k, n] = one.speech, tokens.STOP
        character[k, :n], character[k, n] = one.character, len(one.text) - 1
    prompt = beginning(prompts[int(rng.integers(len(prompts)))])[None]
    text = np.stack([one.text for one in items])
    parts = (torch.from_numpy(a.astype(np.int64)) for a in (prompt, text, speech, target))
    return Batch(*parts, torch.from_numpy(character))


def beginning(one: Item) -> np.ndarray:
    """The prompt: the first tokens of another sentence, as a reference clip gives them."""
    return np.resize(one.speech, PROMPT) if len(one.speech) < PROMPT else one.speech[:PROMPT]


class Reader:
    """Batches at random out of all shards that are there; ``refresh`` takes in those that came since."""

    def __init__(self, work: Path) -> None:
        self.folder = work / "align"
        self.seen: set[Path] = set()
        self.items: list[Item] = []
        self.groups: dict[int, list[Item]] = {}
        self.lengths, self.weights = np.zeros(0, int), np.zeros(0)
        self.spans: list[list[Item]] = []
        self.refresh()

    def refresh(self) -> None:
        new = [f for f in sorted(self.folder.glob("0*.pkl")) if f not in self.seen]
        for file in new:
            self.items += [i for i in read(file) if len(i.speech) <= 220]
            self.seen.add(file)
        if not new:
            return
        self.groups = grouped(self.items)
        kept = [length for length, members in self.groups.items() if len(members) >= 4]
        self.lengths = np.array(sorted(kept))
        # By what a sentence costs: long ones as often as their share of all tokens.
        sizes = np.array([len(self.groups[n]) * n for n in self.lengths], float)
        self.weights = sizes / sizes.sum()

    def sentences(self, rng: np.random.Generator) -> Batch:
        """Texts of one length, of speech about equally long."""
        members = self.groups[int(rng.choice(self.lengths, p=self.weights))]
        count = fitting(members[len(members) // 2], len(members))
        first = int(rng.integers(len(members) - count + 1))
        return batch(members[first : first + count], rng, self.items)

    def joined(self, rng: np.random.Generator) -> Batch:
        """One to four sentences behind one another, up to ``LONGEST`` characters: what a segment of long text is. Some have a tag."""
        lengths: list[int] = []
        for _ in range(int(rng.integers(1, 5))):
            room = LONGEST - sum(lengths) - len(lengths)
            shorter = self.lengths <= room
            if not shorter.any():
                break
            lengths.append(int(rng.choice(self.lengths[shorter], p=self.weights[shorter] / self.weights[shorter].sum())))
        tag = rng.random() < TAGGED  # of all rows or of none, so that texts stay equally long
        at = int(rng.integers(len(lengths)))
        rows = []
        for _ in range(fitting(self.groups[max(lengths)][0], MOST)):
            parts = [self.groups[n][int(rng.integers(len(self.groups[n])))] for n in lengths]
            if tag:
                parts[at] = tagged(parts[at], rng)
            rows.append(join(parts))
        return batch(rows[: fitting(rows[0], MOST)], rng, self.items)

    def short(self, rng: np.random.Generator) -> Batch:
        """Spans of one to four words."""
        while not self.spans:
            chosen = rng.integers(len(self.items), size=POOL)
            for members in grouped(cut(self.items[int(i)], rng) for i in chosen).values():
                for first in range(0, len(members), MOST):
                    part = members[first : first + MOST]
                    if len(part) >= 24:
                        self.spans.append(part[: fitting(part[-1], len(part))])
            rng.shuffle(self.spans)
        return batch(self.spans.pop(), rng, self.items)


def fitting(one: Item, most: int) -> int:
    return max(1, min(most, MOST, ROWS // (1 + len(one.text) + len(one.speech))))


def grouped(items: Iterable[Item]) -> dict[int, list[Item]]:
    """By length of text, each group in order of its length of speech."""
    groups: dict[int, list[Item]] = {}
    for one in items:
        groups.setdefault(len(one.text), []).append(one)
    for members in groups.values():
        members.sort(key=lambda i: len(i.speech))
    return groups
