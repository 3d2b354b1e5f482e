"""A job at work: which attempts are there, which are missing, and having these spoken. What it knows, it knows from the parts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from ..errors import ChatterboxError
from ..options import Result
from .estimate import Estimate, in_words
from .parts import DamagedPart, Store, Verdict
from .plan import Item, Plan

logger = logging.getLogger(__name__)

Report = Callable[[str, int, int], object]
"""``(what, done, total)``, as of ``progress=``."""


class Speaker(Protocol):
    """Whoever speaks: this process (``local.py``) or a cluster (``ray.py``)."""

    def speak(self, items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        """Each item with its speech, or with what is wrong with it, in any order."""
        ...


class Job:
    """A plan and the parts of it that are there. ``spoken`` and ``found`` count attempts, ``damaged`` parts that had to go."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan, self.store = plan, store
        self.tried: list[list[Verdict]] = [[] for _ in plan.pieces]
        self.failed: dict[int, ChatterboxError] = {}
        self.spoken = self.found = self.damaged = 0

    def look(self, report: Report) -> None:
        """Finds the parts that are there, reads all of each, and takes damaged ones away."""
        self.found = 0
        for number in range(len(self.plan.pieces)):
            self.tried[number] = []
            self._find(number)
            report("look", number + 1, len(self.plan.pieces))

    def _find(self, number: int) -> None:
        """Takes in the attempts at a piece that are there, up to the first that is not."""
        while (attempt := self.missing(number)) is not None:
            address = self.plan.item(self.plan.pieces[number], attempt).address
            try:
                verdict = self.store.verdict(address)
            except DamagedPart as error:
                logger.warning("%s; it is spoken again", error)
                self.store.drop(address)
                self.damaged += 1
                return
            if verdict is None:
                return
            self.tried[number].append(verdict)
            self.found += 1

    def missing(self, number: int) -> int | None:
        """The next attempt that piece ``number`` needs; None when it is done with, well or not."""
        tried = self.tried[number]
        over = len(tried) >= self.plan.pieces[number].attempts or any(not verdict.faults for verdict in tried)
        return None if over or number in self.failed else len(tried)

    def best(self, number: int) -> tuple[Item, Verdict]:
        """The attempt that stays: the first with the fewest faults."""
        tried = self.tried[number]
        attempt = min(range(len(tried)), key=lambda k: (len(tried[k].faults), k))
        return self.plan.item(self.plan.pieces[number], attempt), tried[attempt]

    def speak(self, speaker: Speaker, report: Report, finished: Callable[[int], object], estimate: Estimate) -> None:
        """Has everything spoken that is missing. ``finished(number)`` is called when a piece is done, its part on disk.

        A piece that cannot be spoken is in ``failed`` and stops no other. Raises ``FileError`` when a part cannot be written.
        """
        lengths = [len(piece.segment.text) for piece in self.plan.pieces]
        total, most = sum(lengths), max((piece.attempts for piece in self.plan.pieces), default=1)
        fresh = sum(length for number, length in enumerate(lengths) if not self.tried[number])
        left = sum(length for number, length in enumerate(lengths) if self.missing(number) is not None)
        report("speak", total - left, total)
        while wanted := self._wanted():
            for item, result in speaker.speak([item for item, _ in wanted.values()]):
                number, length = wanted[item.address][1], lengths[wanted[item.address][1]]
                first = not self.tried[number]
                if isinstance(result, ChatterboxError):
                    self.failed[number] = result
                else:
                    self.tried[number].append(self.store.write(item.address, result))
                    self.spoken += 1
                    self._find(number)  # the next attempt is there where this one was damaged
                del result  # the next one is made while this one would wait
                again = self.missing(number) is not None
                fresh -= length if first else 0
                left -= 0 if again else length
                estimate.spoken(length, again)
                report(in_words(estimate.seconds(fresh, left - fresh, most)) or "speak", total - left, total)
                if not again:
                    finished(number)

    def _wanted(self) -> dict[str, tuple[Item, int]]:
        """The attempts that are missing, and whose they are, by address."""
        found: dict[str, tuple[Item, int]] = {}
        for number, piece in enumerate(self.plan.pieces):
            attempt = self.missing(number)
            if attempt is not None:
                item = self.plan.item(piece, attempt)
                found[item.address] = (item, number)
        return found

    def faulty(self) -> dict[int, Verdict]:
        """The pieces whose best attempt has faults."""
        return {number: self.best(number)[1] for number, tried in enumerate(self.tried) if tried and self.best(number)[1].faults}
