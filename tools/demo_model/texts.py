"""Training texts: plain English sentences, conversational ones from patterns, and single words, all as `text.normalize` gives them.

Sentences come out of WordNet's examples, the fortunes, the Jargon File, FOLDOC and GCIDE (Debian packages that ``environment.sh``
unpacks); a sentence is kept when it has 2 to 18 plain words and each of them is common in these texts. Words that are frequent
stand alone too: spelling is the long part of learning to read, and a word costs a tenth of a sentence.

Writes ``WORK/texts.txt`` (in an order of which any beginning is a fair mixture) and ``WORK/held_out.txt`` (200 sentences, never
trained on). usage: texts.py --work WORK
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from chatterbox_turbo_rs.stages.text.normalize.python import normalize

ABBREVIATION = re.compile(r"[A-Z]{2,}[.,]?|[A-Za-z]\.|(Mr|Mrs|Dr|St|etc|vs|cf|viz|Obs|Syn|esp|Prof|Inc|Ltd|No)\.?")
HELD_OUT = 200

# Patterns of everyday talk; each bracket is one choice.
PATTERNS = """
[Hello|Hi|Hey|Good morning|Good evening|Good afternoon] [there|everyone|my friend|all|again], [this is a test|how are you today|it is nice to meet you|welcome to the show|thanks for coming|can you hear me|I have some good news|please take a seat|let us begin].
[Hello|Hi|Good morning|Good night|Goodbye|Thank you|Thanks|Welcome|Sorry|Please wait|Excuse me|Of course|No problem|See you soon|Well done|All right|Come in|Never mind|Not at all].
[Can|Could|Will|Would] you [please |kindly |][open|close|clean|check|fix|move|watch|find] the [door|window|kitchen|garden|table|letter|box|car|lamp|clock|gate|computer] [today|tonight|for me|again|before we leave|after lunch|tomorrow morning|right now]?
[Where|When|How|Why] did [you|she|he|they|your sister|the teacher|my brother] [buy|find|lose|leave|see|hear about|learn about|pay for] [that|the new|the old|this] [book|house|picture|bicycle|story|song|shirt|phone|ticket]?
[I think|I know|She said|He told me|We believe|They hope|Maybe|I am sure|It seems] [we should|you can|they will|he might|she must|I could|nobody will] [go home|stay here|start again|ask for help|wait a little longer|leave early|try something else|call the doctor|cook dinner|catch the train].
[The weather|The coffee|The music|This road|That film|The water|My room|The food|Her voice|The sky] [is|was|looks|seems|will be] [very|really|too|not|quite|rather] [cold|warm|quiet|loud|dark|bright|strange|beautiful|different|good] [today|this morning|tonight|at the moment|in the winter|by the sea].
[My|Your|His|Her|Our|Their] [mother|father|sister|brother|friend|teacher|neighbour|doctor|dog|daughter|son|cousin] [likes|wants|needs|loves|hates|remembers] [to read|to swim|to sing|to travel|the mountains|old songs|hot tea|fresh bread|a long walk|quiet evenings] [on Sundays|in the summer|after work|every day|with the children|in the morning].
[There is|There was|I can see|We found|Nobody noticed|She painted|He drew] [a small|a large|a yellow|a broken|a wooden|an old|an empty|a green] [boat|bird|cat|chair|bridge|tree|bottle|house|train|horse|cup] [under|near|behind|beside|in front of|across from] the [river|station|church|school|market|window|wall|hill|hospital|shop].
[It is|It was|It will be] [Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday|January|February|March|April|May|June|July|August|September|October|November|December] [today|already|again|tomorrow|soon|when we arrive].
[One|Two|Three|Four|Five|Six|Seven|Eight|Nine|Ten|Eleven|Twelve|Twenty|Thirty|Forty|Fifty|Sixty|A hundred|A thousand] [people|children|houses|minutes|hours|days|weeks|months|years|dollars|miles|pages|students|cars] [ago|later|is enough|were missing|came back|are not enough|went by quickly|in a row].
[Do|Did|Don't|Didn't] [you|they|we] [know|like|want|need|remember|hear|see|understand] [what I mean|the question|this place|the answer|who she is|why he left|how it works|the rules|my name|that noise]?
[Please|Do not|Don't|Always|Never|Let us] [turn off the lights|speak slowly|close your eyes|follow the path|write your name here|forget your umbrella|touch the screen|wash your hands|read the letter carefully|press the button twice|listen to the voice].
[I'm|You're|We're|They're|He's|She's|It's] [not |][going|coming|ready to go|waiting|talking|thinking|working|late|happy|tired|afraid|happy to be] [home|back|here|again|for you|about it|with friends|as usual], [aren't you|I suppose|you know|I hope|thank you|right|of course|but not now].
[What|Which] [time|day|colour|kind of music|language|question|book|city] [is it|do you like|would you choose|did they mean|should we use|is the best|was that]?
[The quick|The slow|A clever|A tired] [brown|grey|red|white|black] [fox|dog|horse|mouse|bear|bird] [jumps over|runs after|looks at|sleeps beside|hides from] the [lazy|sleepy|hungry|angry|gentle|tiny] [dog|cat|sheep|boy|girl|farmer].
[This|The next|The last|Every|Another] [voice|sentence|word|sound|message|example] [was|is|will be] [made|spoken|written|recorded|generated] by a [small|simple|modern|very small|friendly] [computer|model|machine|program|network].
"""


def kept(sentence: str) -> str | None:
    """``sentence`` as T3 is given it, None where it isn't plain English of a fitting length."""
    s = re.sub(r"\s+", " ", sentence.strip().strip("\"“”;,:`' "))
    s = normalize(s.replace("“", "").replace("”", "").replace("’", "'").replace("--", ", ").replace("`", "'")) if s else s
    words = s.split()
    if not re.fullmatch(r"[A-Za-z][A-Za-z' ,.;!?-]+[.!?]", s) or not 2 <= len(words) <= 18 or len(s) > 110 or "''" in s:
        return None
    if any(len(w) > 17 or ABBREVIATION.fullmatch(w) for w in words) or re.search(r"[.!?] |[a-z][A-Z]| [,.;!?-]|[,;-][.!?]", s):
        return None
    return s


def sentences(text: str) -> Iterator[str]:
    return (s for s in (kept(part) for part in re.split(r"(?<=[.!?])\s+", text)) if s)


def sources(debian: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {"wordnet": set(), "fortunes": set(), "jargon": set(), "foldoc": set(), "gcide": set()}
    for file in (debian / "usr/share/wordnet").glob("data.*"):
        for line in file.read_text(errors="ignore").splitlines():
            for quoted in re.findall(r'"([^"]+)"', line.partition("|")[2]):
                found["wordnet"].update(sentences(quoted))
    for file in (debian / "usr/share/games/fortunes").iterdir():
        if file.suffix not in (".dat", ".u8") and file.is_file():
            for paragraph in file.read_text(errors="ignore").split("\n%\n"):
                found["fortunes"].update(sentences(paragraph.replace("\n", " ")))
    for name in ("jargon", "foldoc", "gcide"):
        text = gzip.open(debian / f"usr/share/dictd/{name}.dict.dz", "rt", errors="ignore").read()
        for match in re.findall(r"(?<![\w-])[A-Z][a-z][^.!?\[\]{}()\n]*(?:\n[^.!?\[\]{}()\n]+)*[.!?]", text):
            found[name].update(sentences(match.replace("\n", " ")))
    return found


def talk(pattern: str, rng: random.Random, limit: int) -> list[str]:
    """At most ``limit`` different sentences of a pattern."""
    parts = [p.split("|") for p in re.split(r"[\[\]]", pattern)]
    total = 1
    for choices in parts:
        total *= len(choices)
    if total <= limit:
        made = {"".join(c) for c in itertools.product(*parts)}
    else:
        made = {"".join(rng.choice(c) for c in parts) for _ in range(limit)}
    return [s for s in map(kept, sorted(made)) if s] + [normalize(s) for s in sorted(made) if re.fullmatch(r"[A-Z][a-z]+\.", s)]


def words_of(sentence: str) -> list[str]:
    return re.findall(r"[a-z]+(?:'[a-z]+)?", sentence.lower())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=os.environ.get("DEMO_WORK"), required="DEMO_WORK" not in os.environ)
    work, rng = parser.parse_args().work, random.Random(1)
    found = sources(work / "debian")
    counts = Counter(w for name, group in found.items() for s in group for w in set(words_of(s)) if name != "gcide")
    least = {"gcide": 8}  # its quotations are old English: common words only
    for name, group in found.items():
        found[name] = {s for s in group if all(counts[w] >= least.get(name, 2) for w in words_of(s))}
    found["talk"] = {s for line in PATTERNS.strip().splitlines() for s in talk(line, rng, 500)}
    found["words"] = {w[0].upper() + w[1:] + "." for w, n in counts.most_common(15000) if n >= 3 and (len(w) > 2 or n > 300)}
    print({name: len(group) for name, group in found.items()})
    # Each gets a rank in [0, 1) within its group; the common order by rank is a mixture at any length.
    share = {"gcide": 2.0}  # stretched: half as many of them by any point
    ranked = []
    for name, group in sorted(found.items()):
        ordered = sorted(group)
        rng.shuffle(ordered)
        ranked += [((i + rng.random()) / len(ordered) * share.get(name, 1.0), s) for i, s in enumerate(ordered)]
    ordered = list(dict.fromkeys(s for _, s in sorted(ranked)))
    common = found["wordnet"] | found["fortunes"] | found["talk"]
    plain = [s for s in ordered if len(s.split()) >= 4 and s in common]
    held = set(rng.sample(plain, HELD_OUT))
    (work / "held_out.txt").write_text("\n".join(s for s in ordered if s in held) + "\n")
    (work / "texts.txt").write_text("\n".join(s for s in ordered if s not in held) + "\n")
    print(len(ordered) - len(held), "texts,", len(held), "held out")


if __name__ == "__main__":
    main()
