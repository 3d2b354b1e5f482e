"""What all tests share: paths, the tools as modules, and the tiny checkpoint that the goldens rest on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_model import TOY

from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.engine import devices

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

Maker = Callable[..., Path]

# Packed weights of test models do not go to the cache of whoever runs the tests; what tests the cache names one of its own.
os.environ["CHATTERBOX_CACHE"] = "off"
os.environ.pop("CHATTERBOX_CACHE_GB", None)
# Whoever runs the tests in the background has Ctrl-C ignored, here and in every child.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a device is skipped where it is missing, with the reason."""
    for kind, reason in devices.reasons().items():
        for item in items:
            if reason is not None and item.get_closest_marker(kind):
                item.add_marker(pytest.mark.skip(reason=f"device {kind}: {reason}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what was not run for want of a device, also where skips are not listed."""
    reasons = Counter(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", ()))
    for reason, count in reasons.items():
        if reason.startswith("Skipped: device "):
            terminalreporter.write_line(f"not run: {count} tests: {reason.removeprefix('Skipped: ')}")


@pytest.fixture(autouse=True)
def _own_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A switch in the environment of whoever runs the tests does not reach them."""
    monkeypatch.delenv("CHATTERBOX_BACKENDS", raising=False)


@pytest.fixture(scope="session")
def data() -> Path:
    """``tests/data``: clips, the tokenizer, the tiny configuration, the toy (``toy_model.py``), upstream's tensor inventory."""
    return ROOT / "tests" / "data"


@pytest.fixture(scope="session")
def goldens() -> Path:
    """``tests/goldens``: what the official package computed."""
    return ROOT / "tests" / "goldens"


@pytest.fixture(scope="session")
def make_checkpoint() -> Maker:
    """``make_checkpoint(directory, *arguments)`` runs ``tools/make_checkpoint.py``."""

    def make(directory: Path, *arguments: str) -> Path:
        subprocess.run([sys.executable, str(ROOT / "tools" / "make_checkpoint.py"), *arguments, str(directory)], check=True)
        return directory

    return make


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Maker) -> Path:
    """The tiny random checkpoint of seed 1234, read-only by agreement: a test that changes files copies them first."""
    return make_checkpoint(tmp_path_factory.mktemp("tiny"), "--size", "tiny", "--seed", "1234")


@pytest.fixture(scope="session")
def toy() -> ChatterboxTurbo:
    """The toy in float32, so that its sides can be compared; threads may share it, so tests may too."""
    return ChatterboxTurbo.from_pretrained(TOY, precision="f32")


@pytest.fixture(scope="session")
def clip(data: Path) -> Path:
    """A reference clip of a little more than 5 s."""
    return data / "clips" / "short.flac"
