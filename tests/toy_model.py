"""The toy: a complete model of random weights, small and committed, for tests that only want one that is quick."""

from __future__ import annotations

from pathlib import Path

TOY = str(Path(__file__).parent / "data" / "toy")
"""Its directory, for ``--model`` and ``from_pretrained``; ``tools/make_toy.py`` makes it."""
