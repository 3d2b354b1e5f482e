"""Fixtures shared by the tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chatterbox_turbo_rs import ChatterboxTurbo

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random checkpoint that the goldens of ``tests/goldens`` were made with."""
    directory = tmp_path_factory.mktemp("checkpoint") / "tiny"
    tool = ROOT / "tools" / "make_checkpoint.py"
    subprocess.run([sys.executable, str(tool), "--size", "tiny", "--seed", "1234", str(directory)], check=True)
    return directory


@pytest.fixture(scope="session")
def demo() -> ChatterboxTurbo:
    """The embedded model; threads may share it, so tests may too."""
    return ChatterboxTurbo.from_pretrained("demo")


@pytest.fixture(scope="session")
def clip() -> Path:
    """A reference clip of a little more than 5 s."""
    return ROOT / "tests" / "data" / "clips" / "short.flac"
