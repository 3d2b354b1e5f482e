"""``precision``: all speak, int8 and int4 (T3) and bf16 (S3Gen) stay near float32 and give the same bits on any number of threads."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import implementations
import numpy as np
import pytest
from toy_model import TOY

import chatterbox_turbo_rs
from chatterbox_turbo_rs import ChatterboxTurbo, _core
from chatterbox_turbo_rs.checkpoint.resources import Resources
from chatterbox_turbo_rs.cli.main import main
from chatterbox_turbo_rs.errors import ArgumentError, DeviceError

GOLDEN = np.load(Path(__file__).parent / "goldens/t3_decoder.npz")
INPUTS = GOLDEN["speaker"], GOLDEN["prompt"], GOLDEN["text"]
NAMES = "expected 'auto', 'f32', 'int8', 'bf16', 'int8+bf16', 'int4', 'int4+bf16', got "
AUTO = _core.build_info()["cpu_precision"]
S3GEN = ("encoder", "flow", "vocoder")


def decoder(directory: Path, precision: str | None = None, implementation: str = "rust"):
    config = json.loads((directory / "config.json").read_text())
    resources = Resources(directory, config) if precision is None else Resources(directory, config, "cpu", precision)
    return importlib.import_module(f"chatterbox_turbo_rs.stages.t3.decoder.{implementation}").create(resources)


@pytest.fixture(scope="module")
def int8(tiny_checkpoint):
    return decoder(tiny_checkpoint, "int8")


@pytest.fixture(scope="module")
def int4(tiny_checkpoint):
    return decoder(tiny_checkpoint, "int4")


@pytest.fixture(scope="module")
def exact(tiny_checkpoint):
    return logits(decoder(tiny_checkpoint, "f32"))


def logits(t3, inputs=INPUTS, forced=GOLDEN["forced"]) -> np.ndarray:
    """[1 + steps, 6563] under teacher forcing."""
    session = t3.start(*inputs, len(forced))
    return np.stack([session.prefill(), *(session.step(int(token)) for token in forced)])


@pytest.mark.parametrize("precision", ["f32", "int8", "bf16", "int8+bf16", "int4", "int4+bf16"])
@pytest.mark.parametrize("size", ["tiny", "toy"])
def test_all_precisions_speak(tiny_checkpoint, data, size, precision):
    model = ChatterboxTurbo.from_pretrained({"tiny": tiny_checkpoint, "toy": TOY}[size], precision=precision)
    assert model.precision == precision
    voice = model.builtin_voice or model.voice(data / "clips" / "short.flac")
    first, again = (model.generate("Hello [laugh] there.", voice=voice, seed=4, max_tokens=30) for _ in range(2))
    assert len(first.tokens) > 3 and np.isfinite(first.samples).all() and np.abs(first.samples).max() > 1e-3
    assert first.samples.tobytes() == again.samples.tobytes()


def test_auto_is_int8_on_the_cpu_and_bf16_where_it_is_fast(tiny_checkpoint, exact):
    auto = ChatterboxTurbo.from_pretrained(tiny_checkpoint)
    assert auto.precision == ChatterboxTurbo.from_pretrained(tiny_checkpoint, precision=AUTO, device="cpu").precision == AUTO
    assert AUTO in ("int8", "int8+bf16")
    found = logits(auto._pipeline.stage("t3.decoder", "rust"))
    assert (found == logits(decoder(tiny_checkpoint, "int8"))).all() and not (found == exact).all()


def test_f32_is_the_default_of_the_stage_and_keeps_its_bits(tiny_checkpoint, exact, int8):
    assert (logits(decoder(tiny_checkpoint)) == exact).all()
    logits(int8)
    assert (logits(decoder(tiny_checkpoint, "f32")) == exact).all()
    assert np.abs(exact[GOLDEN["steps"]] - GOLDEN["logits"]).max() < 1e-5 * np.abs(GOLDEN["logits"]).max()


@pytest.mark.parametrize(("precision", "least", "most", "divergence"), [("int8", 1e-3, 0.03, 5e-3), ("int4", 0.03, 0.25, 0.15)])
def test_quantised_logits_stay_near_f32(tiny_checkpoint, exact, precision, least, most, divergence):
    found = logits(decoder(tiny_checkpoint, precision))
    error = np.linalg.norm(found - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert least < error.min() and error.max() < most, error
    p, q = (np.exp(x.astype(np.float64) / 0.8) for x in (exact, found))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    assert (p * np.log(p / q)).sum(1).max() < divergence


def test_long_sequences_stay_near_f32_too(tiny_checkpoint, int8):
    """Past the first block of positions of the float16 cache, and with the longest prompt."""
    speaker, prompt, text = INPUTS
    inputs, forced = (speaker, np.resize(prompt, 375), text), np.resize(GOLDEN["forced"], 90)
    found, expected = logits(int8, inputs, forced), logits(decoder(tiny_checkpoint, "f32"), inputs, forced)
    assert (np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)).max() < 0.03


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_t3_gives_the_same_bits_on_one_thread_and_on_two(tiny_checkpoint, precision):
    program = f"""
import hashlib, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_precision import INPUTS, ChatterboxTurbo, _core, decoder, logits
t3 = decoder(Path({str(tiny_checkpoint)!r}), {precision!r})
tokens = ChatterboxTurbo.from_pretrained({TOY!r}, precision={precision!r}).generate("Hello.", seed=5, max_tokens=40, watermark=None).tokens
print(_core.build_info()["threads"], hashlib.sha256(logits(t3).tobytes()).hexdigest(), *tokens)
"""
    assert len(on_threads(program)) == 1


def on_threads(program: str) -> set[str]:
    """What ``program`` prints behind its number of threads, on one and on two."""
    found = set()
    for threads in ("1", "2"):
        environment = os.environ | {"RAYON_NUM_THREADS": threads}
        command = [sys.executable, "-c", program]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert result.returncode == 0, result.stderr
        used, rest = result.stdout.split(" ", 1)
        assert used == threads
        found.add(rest)
    return found


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_sessions_are_independent_and_begin_anew(request, precision):
    t3 = request.getfixturevalue(precision)
    expected, found = logits(t3), {}
    threads = [threading.Thread(target=lambda name=name: found.update({name: logits(t3)})) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3 and all((other == expected).all() for other in found.values())
    session = t3.start(*INPUTS, 1)
    session.prefill()
    session.step(5)
    with pytest.raises(ArgumentError, match="step: expected at most max_tokens = 1 steps"):
        session.step(5)
    assert (session.prefill() == expected[0]).all()


def test_a_step_of_int4_reads_little_more_than_half_of_int8():
    """4.5 bits a weight, in panels of 64 outputs and groups of 64 inputs, and the keys and values of int8."""
    int8, int4 = (decoder(Path(chatterbox_turbo_rs.__file__).parent / "assets/demo", precision) for precision in ("int8", "int4"))
    blocks, head = 5 * 256 * (3 * 256 + 256 + 2 * 1024), 256 * 768
    assert int4.step_bytes(0) == (blocks + head) * 9 // 16 < 0.57 * int8.step_bytes(0)
    assert int4.step_bytes(100) - int4.step_bytes(0) == int8.step_bytes(100) - int8.step_bytes(0) > 0


def test_hyperparameters_and_digests_do_not_depend_on_the_precision(tiny_checkpoint, int8, int4):
    assert int8.hyperparameters() == int4.hyperparameters() == decoder(tiny_checkpoint, "f32").hyperparameters()
    config = (tiny_checkpoint / "config.json").read_text()
    found = []
    for precision in ("f32", "int8+bf16", "int4+bf16"):
        checkpoint = _core.Checkpoint(tiny_checkpoint, config, record=True)
        networks = [_core.T3Decoder, _core.FlowEncoder, _core.Flow, _core.Vocoder]
        found.append(([network(checkpoint, "cpu", precision).hyperparameters() for network in networks], checkpoint.digests()))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("implementation", [implementations.param("t3.decoder", "python")])
def test_the_python_side_is_float32_at_either(tiny_checkpoint, implementation):
    f32, *others = (logits(decoder(tiny_checkpoint, precision, implementation)) for precision in ("f32", "int8", "int4"))
    assert all((f32 == other).all() for other in others)


def s3gen(directory: Path, precision: str, implementation: str = "rust"):
    """What each stage of S3Gen gives for one input, mel and samples for the exact stage before."""
    resources = Resources(directory, json.loads((directory / "config.json").read_text()), "cpu", precision)
    encoder, flow, vocoder = (
        importlib.import_module(f"chatterbox_turbo_rs.stages.s3gen.{name}.{implementation}").create(resources) for name in S3GEN
    )
    random = np.random.default_rng(9)

    def normals(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32)

    mu = encoder(random.integers(0, 6561, 60))
    mel = flow(normals(120, 80), normals(192), normals(40, 80), normals(120, 80))
    phases = random.uniform(-np.pi, np.pi, 9).astype(np.float32)
    return mu, mel, vocoder(normals(50, 80), phases, normals(50 * 480, 9))


@pytest.fixture(scope="module")
def sounds(tiny_checkpoint):
    return {
        precision: s3gen(tiny_checkpoint, precision) for precision in ("f32", "int8", "bf16", "int8+bf16", "int4", "int4+bf16")
    }


def test_int8_and_int4_leave_s3gen_and_bf16_leaves_t3_as_they_are(sounds, tiny_checkpoint, exact):
    for a, b in (("f32", "int8"), ("bf16", "int8+bf16"), ("f32", "int4"), ("bf16", "int4+bf16")):
        assert all((x == y).all() for x, y in zip(sounds[a], sounds[b]))
    assert (logits(decoder(tiny_checkpoint, "bf16")) == exact).all()


@pytest.mark.parametrize("stage", S3GEN)
def test_bf16_stays_near_f32(sounds, stage):
    found, expected = (sounds[precision][S3GEN.index(stage)].astype(np.float64) for precision in ("bf16", "f32"))
    assert found.shape == expected.shape and np.isfinite(found).all()
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 1e-5 < error < 0.02, f"{stage}: relative error {error:.2e}"


def test_bf16_gives_the_same_bits_on_one_thread_and_on_two(tiny_checkpoint):
    program = f"""
import hashlib, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_precision import _core, s3gen
print(_core.build_info()["threads"], *(hashlib.sha256(x.tobytes()).hexdigest() for x in s3gen(Path({str(tiny_checkpoint)!r}), "bf16")))
"""
    assert len(on_threads(program)) == 1


@pytest.mark.parametrize("implementation", [implementations.param("s3gen.flow", "python")])
def test_the_python_side_of_s3gen_is_float32_at_any(sounds, tiny_checkpoint, implementation):
    for found, expected in zip(s3gen(tiny_checkpoint, "bf16", implementation), sounds["f32"]):
        assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("value", ["f17", "INT8", "", None, 8])
def test_other_precisions_are_one_clear_error(value, capsys):
    with pytest.raises(ArgumentError) as caught:
        ChatterboxTurbo.from_pretrained(TOY, precision=value)
    assert str(caught.value) == f"precision: {NAMES}{value!r}"
    if isinstance(value, str):
        assert main(["say", "Hi.", "--model", TOY, "--precision", value]) == 2
        out, err = capsys.readouterr()
        assert out == "" and "'--precision'" in err and err.count("\n") == 1
        assert all(repr(name) in err for name in ("auto", "f32", "int8", "bf16", "int8+bf16", "int4", "int4+bf16", value))


def test_the_core_names_its_precisions(tiny_checkpoint):
    checkpoint = _core.Checkpoint(tiny_checkpoint, (tiny_checkpoint / "config.json").read_text())
    with pytest.raises(ArgumentError, match=r'^precision: expected f32, int8, bf16, int8\+bf16, int4, int4\+bf16, got "auto"$'):
        _core.T3Decoder(checkpoint, "cpu", "auto")


@pytest.mark.parametrize("precision", ["int8", "bf16", "int8+bf16", "int4", "int4+bf16"])
def test_other_precisions_are_for_the_cpu(precision):
    expected = re.escape(f"precision: expected 'auto' or 'f32' on device 'cuda:1', got {precision!r}")
    with pytest.raises(ArgumentError, match=f"^{expected}"):
        ChatterboxTurbo.from_pretrained(TOY, device="cuda:1", precision=precision)


def test_auto_leaves_the_devices_own_error_as_it_is():
    with pytest.raises(DeviceError, match="tpu"):
        ChatterboxTurbo.from_pretrained(TOY, device="tpu")


def test_the_command_says_which_precision_it_took(capsys, tmp_path):
    for arguments, expected in (
        (["--precision", "f32"], "f32"),
        (["--precision", "int4"], "int4"),
        (["--precision", "int8+bf16"], "int8+bf16"),
        ([], AUTO),
    ):
        command = ["say", "Hi.", "--model", TOY, "--max-tokens", "4", "--json", "-o", str(tmp_path / "a.wav"), *arguments]
        assert main(command) == 0
        assert json.loads(capsys.readouterr().out)["precision"] == expected
