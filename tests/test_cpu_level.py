"""``CHATTERBOX_CPU``: every level of the machine computes the same numbers, and one that cannot be is a single clear error."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from toy_model import TOY

from chatterbox_turbo_rs import _core
from chatterbox_turbo_rs.parity import metrics, tolerances

NAMES = ("amx", "avx512", "avx2", "neon", "baseline")
LEVELS = _core.build_info()["cpu_levels"]
LACKING = next(name for name in NAMES if name not in LEVELS)

SPEAK = """
import numpy as np
from chatterbox_turbo_rs import ChatterboxTurbo, _core
model = ChatterboxTurbo.from_pretrained({toy!r}, precision="int8", watermark=None)
np.save({path!r}, model.generate("Hi.", seed=1, max_tokens=8).samples)
print(_core.build_info()["cpu_level"])
"""
DECODE = """
import json, sys, numpy as np
from pathlib import Path
from chatterbox_turbo_rs.engine import registry
from chatterbox_turbo_rs.checkpoint.resources import Resources
directory = Path(sys.argv[1])
resources = Resources(directory, json.loads((directory / "config.json").read_text()), precision="f32")
decoder = registry.load("t3.decoder", "rust", resources)
logits = []
for rows in (5, 60):  # a prefill of few rows, and one of many
    session = decoder.start(np.linspace(-1, 1, 32, dtype=np.float32), np.arange(rows // 4), np.arange(rows), 9)
    logits += [session.prefill(), *(session.step(token) for token in range(9))]
np.save(sys.argv[2], logits)
"""
LOAD = f"""
from chatterbox_turbo_rs import ChatterboxTurbo, errors
try:
    ChatterboxTurbo.from_pretrained({TOY!r})
except errors.DeviceError as error:
    print(error)
"""
STAGE = """
import numpy as np
from chatterbox_turbo_rs import _core, errors
try:
    _core.reference_resample(np.zeros(24_000, np.float32))
except errors.DeviceError as error:
    print(error)
"""


def run(level: str, *arguments: str, f32: str = "") -> tuple[int, str, str]:
    environment = {**os.environ, "CHATTERBOX_CPU": level, "CHATTERBOX_BACKENDS": "rust", "CHATTERBOX_F32": f32}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout, done.stderr


def test_levels_are_named_best_first():
    assert LEVELS and [name for name in NAMES if name in LEVELS] == LEVELS
    assert _core.build_info()["cpu_level"] in LEVELS


def test_every_level_speaks_alike(tmp_path):
    spoken = {}
    for level in LEVELS:
        path = tmp_path / f"{level}.npy"
        code, out, err = run(level, "-c", SPEAK.format(toy=TOY, path=str(path)))
        assert (code, out.strip()) == (0, level), err
        spoken[level] = np.load(path)
        spectra = metrics.compare(*metrics.log_spectra(spoken[LEVELS[0]], spoken[level]))
        assert not tolerances.judge(spectra, tolerances.limits("end_to_end@spectrum", "chained"))
    if "avx2" in LEVELS:  # without fused multiply-adds the last bits are others: the level is really another one
        assert np.any(spoken["baseline"] != spoken["avx2"])


def test_t3_in_20_bits_is_within_the_limit_of_plain_float32(tiny_checkpoint, tmp_path):
    logits = {}
    for level in LEVELS:
        for weights in ("plain", "auto"):
            path = tmp_path / f"{level}-{weights}.npy"
            code, _, err = run(level, "-c", DECODE, str(tiny_checkpoint), str(path), f32=weights)
            assert code == 0, err
            logits[level, weights] = np.load(path)
        figures = metrics.compare(logits[LEVELS[0], "plain"], logits[level, "auto"])
        assert not tolerances.judge(figures, tolerances.limits("t3.decoder", "isolated")), level
        assert np.any(logits[level, "plain"] != logits[level, "auto"])


def test_a_format_that_cannot_be_is_one_clear_error():
    says = 'CHATTERBOX_F32: expected auto, plain, got "x6"'
    assert run("auto", "-c", LOAD, f32="x6") == (0, f"device: {says}\n", "")


@pytest.mark.parametrize(
    ("level", "says"),
    [
        ("fast", 'CHATTERBOX_CPU: expected auto, amx, avx512, avx2, neon, baseline, got "fast"'),
        (LACKING, f"CHATTERBOX_CPU: this machine has {', '.join(LEVELS)}, not {LACKING}"),
    ],
)
def test_a_level_that_cannot_be_is_one_clear_error(level, says):
    for program in (LOAD, STAGE):
        assert run(level, "-c", program) == (0, f"device: {says}\n", "")
    code, out, err = run(level, "-m", "chatterbox_turbo_rs", "info")
    assert code == 1 and out == "" and says in err and "Traceback" not in err and err.count("\n") == 1


@pytest.mark.parametrize("level", ["", "auto"])
def test_auto_is_the_best_level(level):
    code, out, _ = run(level, "-m", "chatterbox_turbo_rs", "info")
    assert code == 0 and f"cpu level: {LEVELS[0]} (of {', '.join(LEVELS)})" in out
