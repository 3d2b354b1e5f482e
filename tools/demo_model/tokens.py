"""Speech tokens with a meaning: what each of the 729 ids of the demo model says, and how an utterance of the teacher becomes ids.

An id is six ternary digits (S3Gen's FSQ order, the lowest power first): pitch, place in the phone, and four digits of the phone.
``id = 9 * phone + 3 * place + pitch``; place: 0 first slot of the phone, 1 within, 2 last; pitch: 0 low, 1 middle or none, 2 high,
against the utterance's median. A token is one slot of 40 ms. Phones stand so that neighbours in a digit sound alike.

The teacher counts durations in units of 25 ms. Every phone is given a whole number of slots, at least one, and the teacher is asked
for two units a slot; its sound is then put out with 10 ms a spectral frame instead of 12.5 ms (``SLOT_FRAMES`` frames a slot), which
restores the pace. So token n is exactly the samples 960 n to 960 (n + 1) at 24 kHz.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SILENCE_PHONE = "_"
VOWELS = "iɪᵻAɛæIWYəᵊʌɜɑɔOʊu"  # times 3: without stress, secondary, primary
CONSONANTS = "pbmtdnkɡŋfvθszðʃʒhʧʤɾlɹwjʔ" + SILENCE_PHONE
STRESS = {"ˌ": 1, "ˈ": 2}
SAME = {"T": "ɾ", "ɐ": "ə", "a": "ɑ", "ɒ": "ɑ", "ɚ": "ɜ", "e": "ɛ", "o": "O", "g": "ɡ", "r": "ɹ", "ɨ": "ᵻ"}
PAUSES = set(',.;:!?—…"()“”')
SPEECH_IDS, START, STOP = 729, 729, 730
FRAME_RATE = 80  # f0 values a second of the teacher's own time
UNIT_SLOTS = 0.025 / 0.040  # slots of the teacher's natural pace in a unit
SLOT_UNITS = 2
SLOT_FRAMES = 4  # f0 values, spectral frames in a slot
SLOT_SAMPLES = 960  # at 24 kHz
PITCH_STEP = 0.1  # log of f0 over the median at which a slot is high or low
SOUNDING = 3  # slots: before a pause, the teacher gives the phone's symbol the silence after it too

PHONES = [v + s for v in VOWELS for s in ("", "ˌ", "ˈ")] + list(CONSONANTS)
NUMBER = {phone: i for i, phone in enumerate(PHONES)}
SILENCE = 9 * NUMBER[SILENCE_PHONE] + 3 + 1

# Text: one id a character, as a byte-level tokenizer without merges gives them; tags follow at 257.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
BYTES = {byte: i for i, byte in enumerate([*_PRINTABLE, *(b for b in range(256) if b not in set(_PRINTABLE))])}
TEXT_IDS, TAGS = 276, (257, 276)


def text_ids(text: str) -> list[int]:
    """The ids that ``text.tokenize`` gives with the demo model's vocabulary, for text without tags."""
    return [BYTES[b] for b in text.encode()]


Group = tuple[str, int, list[int]]
"""A phone, the number of its word, the positions of its symbols."""


@dataclass
class Plan:
    """Slots of an utterance: phone number, place and word of each; of every symbol of the teacher (with its two pads) the units
    that fill the slots, and its natural length in units, silence cut; the symbols' groups.
    """

    phone: np.ndarray
    place: np.ndarray
    word: np.ndarray
    units: np.ndarray
    lengths: np.ndarray
    groups: list[Group]


def plan(phonemes: str, durations: np.ndarray) -> Plan | None:
    """``durations`` [2 + symbols] in units, fractional, of the teacher's own choice; None where a phone isn't known."""
    lengths = np.asarray(durations, np.float64).ravel().copy()
    symbols = ["<", *phonemes, ">"]
    # Silence at both ends is cut; what is left of the last phone and its full stop is six slots.
    lengths[0], lengths[-1] = min(lengths[0], 4.0), 1.0
    groups: list[Group] = [(SILENCE_PHONE, 0, [0])]
    pending, stress, word = [], "", 0
    for i, symbol in enumerate(symbols[1:-1], 1):
        if symbol in STRESS:
            pending, stress = [*pending, i], symbol
        elif symbol == " ":
            groups[-1][2].append(i)
            word += 1
        elif symbol in PAUSES:
            groups[-1][2].append(i) if groups[-1][0] == SILENCE_PHONE else groups.append((SILENCE_PHONE, word, [*pending, i]))
            pending, stress = [], ""
        else:
            phone = SAME.get(symbol, symbol)
            phone = phone + stress if phone in VOWELS else phone
            if phone not in NUMBER:
                return None
            groups.append((phone, word, [*pending, i]))
            if phone[0] in VOWELS:
                stress = ""
            pending = []
    if groups[-1][0] == SILENCE_PHONE and len(groups) > 1:
        groups[-1][2].append(len(symbols) - 1)
        lengths[groups[-1][2][0]] = min(lengths[groups[-1][2][0]], 2.0)
        last = groups[-2][2][-1]
        lengths[last] = min(lengths[last], 7.0)
    else:
        groups.append((SILENCE_PHONE, word, [len(symbols) - 1]))
    return _slots(groups, lengths)


def _slots(groups: list[Group], lengths: np.ndarray) -> Plan:
    spans, counts, done = _spans(groups), [], 0
    for (*_, pause), end in zip(spans, _ends(spans, lengths)):
        counts.append(max(1 + pause, round(end - done)))
        done += counts[-1]
    units = np.zeros(len(lengths), np.int64)
    for (_, _, members, _), count in zip(spans, counts):
        _share(units, members, lengths, SLOT_UNITS * count)
    phone, place = _filled(spans, counts)
    words = np.repeat([word for _, word, _, _ in spans], counts)
    return Plan(phone, place, words, units, lengths, groups)


def _spans(groups: list[Group]) -> list[tuple[str, int, list[int], bool]]:
    """Phone, word and symbols of every group, a phone before a pause with the pause: then the last is true."""
    spans: list[tuple[str, int, list[int], bool]] = []
    for phone, word, members in groups:
        if phone == SILENCE_PHONE and spans and spans[-1][0] != SILENCE_PHONE and not spans[-1][3]:
            spans[-1] = (*spans[-1][:2], [*spans[-1][2], *members], True)
        else:
            spans.append((phone, word, members, False))
    return spans


def _ends(spans: list[tuple[str, int, list[int], bool]], lengths: np.ndarray) -> np.ndarray:
    """Where every span ends at the pace of ``lengths`` (units of the symbols), in slots."""
    return np.cumsum([lengths[members].sum() for _, _, members, _ in spans]) * UNIT_SLOTS


def _filled(spans: list[tuple[str, int, list[int], bool]], counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Phone and place of every slot."""
    phone: list[int] = []
    place: list[int] = []
    for (name, _, _, pause), count in zip(spans, counts):
        own = min(count - 1, SOUNDING) if pause else count
        phone += [NUMBER[name]] * own + [NUMBER[SILENCE_PHONE]] * (count - own)
        place += [1] * count if name == SILENCE_PHONE else [0, *[1] * (own - 2), *[2] * (own > 1), *[1] * (count - own)]
    return np.array(phone), np.array(place)


def heard(item: dict, f0: np.ndarray) -> np.ndarray:
    """The ids [N] of an aligned utterance where the teacher speaks it at its own pace (``Teacher.natural``), ``f0`` [2 N] in Hz of
    its mel frames: every phone has one slot at least, and borders lie as near those of the sound as that lets them.
    """
    ends = np.round(np.cumsum(item["lengths"]))
    spans = _spans(item["groups"])
    n = len(item["phone"])
    least = [1 + pause for *_, pause in spans]
    phone, place = _filled(spans, nearest(_ends(spans, np.diff(ends, prepend=0)), least, n))
    return 9 * phone + 3 * place + pitches(np.reshape(f0, (n, -1)), phone)


def nearest(ends: np.ndarray, least: Sequence[int], n: int) -> list[int]:
    """Slots of every span, ``least`` of each and ``n`` in all, so that they end as near ``ends`` as whole ones can (by squares)."""
    done = np.cumsum(least)
    borders = np.clip(done + np.round(rising(ends - done)), done, n - done[-1] + done).astype(int)
    borders[-1] = n
    return np.diff(borders, prepend=0).tolist()


def rising(x: np.ndarray) -> np.ndarray:
    """The sequence without a fall that is nearest to ``x`` by squares: runs that fall are their mean (pool adjacent violators)."""
    runs: list[tuple[float, int]] = []
    for value in x:
        runs.append((float(value), 1))
        while len(runs) > 1 and runs[-2][0] > runs[-1][0]:
            (b, m), (a, k) = runs.pop(), runs.pop()
            runs.append(((a * k + b * m) / (k + m), k + m))
    return np.repeat([value for value, _ in runs], [count for _, count in runs])


def _share(units: np.ndarray, members: list[int], lengths: np.ndarray, total: int) -> None:
    """Whole units for the symbols of a group, in proportion; the phone itself (the longest) gets the first."""
    share = lengths[members] / max(lengths[members].sum(), 1e-6) * total
    whole = np.floor(share).astype(int)
    for k in np.argsort(whole - share, kind="stable")[: total - whole.sum()]:
        whole[k] += 1
    units[members] = whole


def codes(item: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An aligned utterance (``align.py``) → ids [N], character being spoken [N] (a fraction), borders [N + 1] in f0 frames."""
    phone, place, word = item["phone"], item["place"], item["word"]
    n = len(phone)
    silence = phone == NUMBER[SILENCE_PHONE]
    pitch = pitches(item["f0"][: n * SLOT_FRAMES].reshape(n, SLOT_FRAMES), phone)
    spans, start = [], 0
    for w in item["text"].split(" "):
        spans.append((start, start + len(w)))
        start += len(w) + 1
    characters = np.zeros(n)
    for w in np.unique(word):
        inside = np.flatnonzero(word == w)
        sounding = inside[~silence[inside]]
        a, b = spans[min(w, len(spans) - 1)]
        if len(sounding):
            first, last = sounding[0], sounding[-1] + 1
            characters[inside] = a + np.clip((inside + 0.5 - first) / (last - first), 0.0, 1.0) * (b - a)
        else:
            characters[inside] = b
    return 9 * phone + 3 * place + pitch, characters, SLOT_FRAMES * np.arange(n + 1)


def pitches(f0: np.ndarray, phone: np.ndarray) -> np.ndarray:
    """``f0`` [N, values of a slot] in Hz → the digit of every slot [N]."""
    frames = np.asarray(f0, np.float64)
    voiced = frames > 60
    logs = np.where(voiced, np.log(np.maximum(frames, 1.0)), 0.0)
    median = np.median(logs[voiced]) if voiced.any() else 0.0
    count = voiced.sum(1)
    mean = logs.sum(1) / np.maximum(count, 1) - median
    silence = phone == NUMBER[SILENCE_PHONE]
    return np.where((count == 0) | silence, 1, 1 + np.sign(np.trunc(mean / PITCH_STEP))).astype(np.int64)


def phones(ids: np.ndarray) -> list[str]:
    """The phones that ``ids`` say, without stress and silence: a new one where the phone changes or a first slot comes."""
    out, before = [], -1
    for token in ids:
        phone, place = int(token) // 9, int(token) // 3 % 3
        if phone < len(PHONES) and PHONES[phone] != SILENCE_PHONE and (phone != before or place == 0):
            out.append(PHONES[phone].rstrip("ˌˈ"))
        before = phone
    return out
