"""Behaviour of ``s3gen.vocoder``."""

from __future__ import annotations

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import implementations
import numpy as np
import pytest
from s3gen_suite import assert_close, create, golden, progress, refusal, stops_at_once, without_gradient

from chatterbox_turbo_rs.checkpoint.tensor_file import TensorFile
from chatterbox_turbo_rs.parity.metrics import compare, log_spectra
from chatterbox_turbo_rs.parity.tolerances import judge, limits
from chatterbox_turbo_rs.stages.s3gen.vocoder import FADE, HOP, RATE


@pytest.fixture(scope="module", params=implementations.of("s3gen.vocoder"))
def vocoder(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> Any:
    return create("vocoder", request.param, tiny_checkpoint)


def arguments(**changes: np.ndarray) -> list[np.ndarray]:
    return list(({name: golden("vocoder")[name] for name in ("mel", "phases", "noise")} | changes).values())


def test_f0_agrees_with_the_official_package(vocoder: Any) -> None:
    assert_close(vocoder.f0(golden("vocoder")["mel"]), golden("vocoder")["f0"], 1e-5)


def test_source_agrees_with_the_official_package(vocoder: Any) -> None:
    g = golden("vocoder")
    assert np.abs(vocoder.source(g["f0"], g["phases"], g["noise"]) - g["source"]).max() <= 1e-4


def test_samples_of_the_official_source_agree(vocoder: Any) -> None:
    """The golden has the fade-in, which ends after 960 samples; its last factor is 1."""
    g = golden("vocoder")
    samples = vocoder.samples_from_source(g["mel"], g["source"])
    assert samples.shape == g["samples"].shape
    assert np.abs(samples - g["samples"])[2 * FADE - 1 :].max() <= 1e-4 * np.abs(g["samples"]).max()


def test_samples_agree_with_the_official_package(vocoder: Any) -> None:
    """From its own f0, whose last bits the oscillator's phase sums up: two CPUs' PyTorch are 1.6e-3 of the peak apart at the end."""
    g = golden("vocoder")
    samples = vocoder(*arguments())
    assert samples.shape == (HOP * len(g["mel"]),)
    assert not judge(compare(g["samples"][: 2 * FADE], samples[: 2 * FADE]), limits("s3gen.vocoder@fade"))
    assert not judge(compare(*log_spectra(g["samples"], samples)), limits("s3gen.vocoder@spectrum"))


def test_fades_in(vocoder: Any) -> None:
    g = golden("vocoder")
    faded, plain = (
        vocoder(*arguments()),
        vocoder.samples_from_source(g["mel"], vocoder.source(vocoder.f0(g["mel"]), *arguments()[1:])),
    )
    assert not faded[: FADE + 1].any() and np.array_equal(faded[2 * FADE - 1 :], plain[2 * FADE - 1 :])
    middle = FADE + FADE // 2
    assert abs(faded[middle] - plain[middle] / 2) < 0.01 * np.abs(plain[middle]) + 1e-6


def test_the_fundamental_starts_at_phase_zero(vocoder: Any) -> None:
    phases = golden("vocoder")["phases"].copy()
    phases[0] += 1
    assert np.array_equal(vocoder(*arguments(phases=phases)), vocoder(*arguments()))
    phases[1] += 1
    assert not np.array_equal(vocoder(*arguments(phases=phases)), vocoder(*arguments()))


@pytest.mark.parametrize("frames", [2, 3])
def test_short_mels(vocoder: Any, frames: int) -> None:
    g = golden("vocoder")
    samples = vocoder(g["mel"][:frames], g["phases"], g["noise"][: HOP * frames])
    assert samples.shape == (HOP * frames,) and np.isfinite(samples).all() and np.abs(samples).max() <= 0.99


def test_one_frame_has_samples_but_no_room_for_the_fade(vocoder: Any) -> None:
    g = golden("vocoder")
    assert vocoder.samples_from_source(g["mel"][:1], g["source"][:HOP]).shape == (HOP,)
    message = refusal(vocoder, g["mel"][:1], g["phases"], g["noise"][:HOP])
    assert "mel: expected at least 2 frames (the length of the fade-in), got 1" in message


def test_loud_input_stays_within_the_limit(vocoder: Any) -> None:
    g = golden("vocoder")
    samples = vocoder.samples_from_source(g["mel"] * 40, g["source"])
    assert np.isfinite(samples).all() and np.abs(samples).max() == np.float32(0.99)


def bad(name: str, value: np.ndarray, message: str) -> Any:
    return pytest.param({name: value}, message, id=message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        bad("mel", np.zeros((0, 80), np.float32), "mel: expected at least 2 frames"),
        bad("mel", np.zeros((20, 81), np.float32), "mel: expected shape [rows, 80], got [20, 81]"),
        bad("mel", np.full((20, 80), np.inf, np.float32), "mel: expected finite values, got inf at 0"),
        bad("phases", np.zeros(8, np.float32), "phases: expected 9 values, got 8"),
        bad("phases", np.full(9, np.nan, np.float32), "phases: expected finite values"),
        bad("noise", np.zeros((9599, 9), np.float32), "noise: expected shape [9600, 9], got [9599, 9]"),
    ],
)
def test_bad_arguments_are_named(vocoder: Any, changes: dict[str, np.ndarray], message: str) -> None:
    assert message in refusal(vocoder, *arguments(**changes))


def test_a_source_of_another_length_is_named(vocoder: Any) -> None:
    message = refusal(vocoder.samples_from_source, golden("vocoder")["mel"], np.zeros(9599, np.float32))
    assert "source: expected 9600 values, got 9599" in message


def test_a_callback_stops_the_work(vocoder: Any) -> None:
    assert stops_at_once(vocoder, *arguments()) == 1


STEPS = [("s3gen.vocoder", done, 77) for done in range(78)]
"""Three levels of one convolution and four blocks of six, and both ends of the inverse STFT; before them, the frequency."""


def test_progress_ends_with_the_work(vocoder: Any) -> None:
    """Rust leaves out steps that come too fast."""
    first, *calls = progress(vocoder, *arguments())
    assert first == ("s3gen.vocoder", 0, 1)
    assert set(calls) <= set(STEPS) and calls == sorted(calls) and calls[-1] == STEPS[-1]


def test_arguments_stay_as_they_are_and_give_the_same_again(vocoder: Any) -> None:
    given = arguments()
    before = [value.copy() for value in given]
    assert np.array_equal(vocoder(*given), vocoder(*given))
    assert all(np.array_equal(a, b) for a, b in zip(given, before))


def test_threads_share_the_stage(vocoder: Any) -> None:
    alone = vocoder(*arguments())
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(samples, alone) for samples in pool.map(lambda _: vocoder(*arguments()), range(8)))


def test_phases_after_40_seconds(vocoder: Any, tiny_checkpoint: Path) -> None:
    """Their sums are kept in float64 and rounded to float32: kept in float32, they would be off by a good part of a cycle."""
    file = TensorFile(tiny_checkpoint / "s3gen_meanflow.safetensors")
    weight, bias = (file.get(f"mel2wav.m_source.l_linear.{name}").astype(np.float64) for name in ("weight", "bias"))
    f0, phases = np.linspace(80, 300, 2000, dtype=np.float32), golden("vocoder")["phases"]
    steps = np.repeat(f0, HOP)[:, None] * np.arange(1, 10, dtype=np.float32) / np.float32(RATE)
    cycles = np.cumsum(steps, axis=0, dtype=np.float64).astype(np.float32) % 1
    sines = 0.1 * np.sin(2 * np.pi * cycles.astype(np.float64) + np.append(0, phases[1:]))
    source = vocoder.source(f0, phases, np.zeros((len(steps), 9), np.float32))
    assert np.abs(source - np.tanh(sines @ weight[0] + bias)).max() <= 1e-4


@pytest.fixture(scope="module")
def network(tiny_checkpoint: Path) -> Any:
    """The PyTorch side alone."""
    pytest.importorskip("torch", reason="s3gen.vocoder=python needs PyTorch")
    return create("vocoder", "python", tiny_checkpoint)


def batch(*cases: list[np.ndarray]) -> Any:
    """Arguments of the PyTorch module: mel ``[B, 80, F]``, phases ``[B, 9]`` and noise ``[B, 480 F, 9]``."""
    import torch

    mels, phases, noises = (torch.from_numpy(np.stack(values)) for values in zip(*cases))
    return mels.transpose(1, 2), phases, noises


def test_progress_counts_the_convolutions(network: Any) -> None:
    assert progress(network, *arguments())[1:] == STEPS


def test_a_batch_gives_what_its_members_give_alone(network: Any) -> None:
    first, second = arguments(), [np.ascontiguousarray(value[::-1]) for value in arguments()]
    mel, phases, noise = batch(first, second)
    f0 = network.module.f0_predictor(mel)
    source = network.module.source(f0, phases, noise)
    samples = network.module.decode(mel, source)
    for i, case in enumerate((first, second)):
        assert_close(f0[i].numpy(), network.f0(case[0]), 1e-5)
        assert_close(source[i].numpy(), network.source(f0[i].numpy(), *case[1:]), 1e-6)
        assert_close(samples[i].numpy(), network.samples_from_source(case[0], source[i].numpy()), 1e-5)


def test_the_network_learns(network: Any) -> None:
    """The samples teach everything but the frequency, which upstream cuts off from them."""
    module = copy.deepcopy(network.module).train().requires_grad_(True)
    samples, f0 = module(*batch(arguments()))
    idle = without_gradient(module, samples.square().mean())
    assert idle and all(name.startswith("f0_predictor.") for name in idle)
    samples, f0 = module(*batch(arguments()))
    assert without_gradient(module, samples.square().mean() + f0.square().mean()) == []


def test_hyperparameters_are_those_of_the_configuration(network: Any, tiny_checkpoint: Path) -> None:
    config = json.loads((tiny_checkpoint / "config.json").read_text())["s3gen"]
    others = {"mels": config["mels"], "last_leaky_slope": 0.01, "hop": HOP, "fade": FADE}
    assert network.hyperparameters() == config["vocoder"] | others
