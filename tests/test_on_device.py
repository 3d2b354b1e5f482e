"""Every network on a GPU beside the CPU. These run where a device is (``make check-cuda``) and are listed as not run elsewhere.

The harness itself runs on the CPU everywhere: there the two sides have the same bits.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from toy_model import TOY

from chatterbox_turbo_rs import ChatterboxTurbo
from chatterbox_turbo_rs.checkpoint import config
from chatterbox_turbo_rs.checkpoint.resources import Resources
from chatterbox_turbo_rs.cli.main import main
from chatterbox_turbo_rs.engine import registry
from chatterbox_turbo_rs.engine.devices import NETWORKS
from chatterbox_turbo_rs.parity import cases
from chatterbox_turbo_rs.parity.metrics import compare, log_spectra
from chatterbox_turbo_rs.parity.run import Options, Parity
from chatterbox_turbo_rs.parity.stages import Comparison
from chatterbox_turbo_rs.parity.tolerances import judge, limits

GPUS = [pytest.param("cuda", marks=pytest.mark.cuda), pytest.param("metal", marks=pytest.mark.metal)]
PYTORCH = registry.missing("t3.decoder", "python")
TEXT = "Hello [laugh] there."


@pytest.fixture(scope="module")
def recorded(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Parity:
    """What the Rust side took and gave on the CPU."""
    work = tmp_path_factory.mktemp("device")
    options = Options(tiny_checkpoint, config.read(tiny_checkpoint / "config.json"), cases.quick(work), work, note=lambda _: None)
    parity = Parity(options)
    parity._record("rust")
    return parity


@pytest.mark.parametrize("device", ["cpu", *GPUS])
def test_networks_are_those_of_the_cpu(recorded: Parity, device: str) -> None:
    options, reference = recorded.options, recorded.recordings["rust"]
    resources = Resources(options.checkpoint, options.config, device, "f32")
    found = Comparison(
        reference, "rust", lambda key: registry.load(key, "rust", resources), options.cases, (*NETWORKS, "t3"), device
    )
    found.isolated()
    assert set(NETWORKS) <= {row.stage.partition("@")[0] for row in found.rows}
    wrong = {f"{row.stage} of {row.case}": row.missing or row.wrong for row in found.rows if row.verdict in ("FAIL", "missing")}
    assert not wrong
    exact = [row.figures.exact for row in found.rows if row.figures is not None]
    assert all(exact) == (device == "cpu"), "the same bits on a GPU: did it run there?"


@pytest.fixture(scope="module")
def tts(request: pytest.FixtureRequest) -> ChatterboxTurbo:
    return ChatterboxTurbo.from_pretrained(TOY, device=request.param, precision="f32", backends="rust")


@pytest.mark.parametrize("tts", GPUS, indirect=True)
def test_speech_is_that_of_the_cpu(tts: ChatterboxTurbo, toy: ChatterboxTurbo) -> None:
    here, there = (model.generate(TEXT, seed=5, max_tokens=60) for model in (toy, tts))
    np.testing.assert_array_equal(here.tokens, there.tokens)
    figures = compare(*log_spectra(here.samples, there.samples))
    assert not judge(figures, limits("end_to_end@spectrum", "chained", tts._pipeline.resources.device))


@pytest.mark.parametrize("tts", GPUS, indirect=True)
def test_a_seed_gives_the_same_samples_alone_together_and_in_threads(tts: ChatterboxTurbo) -> None:
    alone = tts.generate(TEXT, seed=5, max_tokens=40)
    many = tts.generate_many([TEXT, "Good morning."], seeds=5, max_tokens=40)
    found: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: found.append(tts.generate(TEXT, seed=5, max_tokens=40).samples)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    for samples in (many[0].samples, *found):
        np.testing.assert_array_equal(samples, alone.samples)


@pytest.mark.parametrize("device", GPUS)
@pytest.mark.skipif(PYTORCH is not None, reason=str(PYTORCH))
def test_parity_with_pytorch(device: str, tmp_path: Path) -> None:
    assert main(["parity", "--model", TOY, "--device", device, "--parties", "python,rust", "--work", str(tmp_path)]) == 0
