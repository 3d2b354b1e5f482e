"""How much longer a job takes, from what it has done: characters a second, and the attempts that went wrong."""

from __future__ import annotations

import time
from collections.abc import Callable

FEWEST = 16
"""Attempts before which nothing is said: rows are decoded together and end together, so that the first ones tell little."""


class Estimate:
    """Only what this process spoke counts, not the parts that were there; a clock that is set does not matter."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, fewest: int = FEWEST) -> None:
        self._clock, self._fewest = clock, fewest
        self._start = clock()
        self._characters = self._repeated = self._attempts = 0

    def spoken(self, characters: int, again: bool) -> None:
        """An attempt at so many characters has ended; ``again``: there will be another."""
        self._attempts += 1
        self._characters += characters
        self._repeated += characters if again else 0

    def seconds(self, fresh: int, again: int, attempts: int) -> float | None:
        """Seconds that are left for so many characters that were never spoken, and so many that are spoken ``again``, with up to
        ``attempts`` each; None while nobody can know."""
        if self._attempts < self._fewest or not self._characters:
            return None
        share = self._repeated / self._characters
        more = sum(share**k for k in range(max(attempts - 1, 1)))  # attempts that follow one that is certain
        work = fresh * sum(share**k for k in range(attempts)) + again * more
        return work * (self._clock() - self._start) / self._characters


def in_words(seconds: float | None) -> str:
    """ "about 12 min left": in steps that the estimate is good for."""
    if seconds is None:
        return ""
    if seconds < 60:
        return "less than 1 min left"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"about {minutes} min left"
    hours, minutes = divmod(round(minutes / 10) * 10, 60)
    return f"about {hours} h {minutes} min left" if minutes else f"about {hours} h left"
