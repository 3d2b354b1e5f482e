"""`t3.decoder`: the official logits, independence of calls and threads, every tensor counts, bad input."""

from __future__ import annotations

import importlib
import json
import shutil
import threading
from pathlib import Path

import implementations
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from chatterbox_turbo_rs.checkpoint.resources import Resources
from chatterbox_turbo_rs.checkpoint.tensor_file import TensorFile
from chatterbox_turbo_rs.errors import ArgumentError, CheckpointError

ROOT = Path(__file__).parents[2]
GOLDEN = np.load(ROOT / "tests/goldens/t3_decoder.npz")
INPUTS = GOLDEN["speaker"], GOLDEN["prompt"], GOLDEN["text"]
FILE = "t3_turbo_v1.safetensors"


def resources(directory):
    return Resources(directory, json.loads((directory / "config.json").read_text()))


@pytest.fixture(scope="module", params=implementations.of("t3.decoder"))
def module(request):
    return importlib.import_module(f"chatterbox_turbo_rs.stages.t3.decoder.{request.param}")


@pytest.fixture(scope="module")
def impl(module, tiny_checkpoint):
    return module.create(resources(tiny_checkpoint))


def run(decoder, inputs=INPUTS, forced=GOLDEN["forced"]):
    """Logits [1 + steps, 6563] under teacher forcing."""
    session = decoder.start(*inputs, len(forced))
    return np.stack([session.prefill(), *(session.step(int(token)) for token in forced)])


def error(found, expected):
    """Relative to the reference, row by row, the worst."""
    return float((np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)).max())


def test_official_logits(impl):
    logits = run(impl)
    assert logits.dtype == np.float32 and logits.shape == (25, 6563) and np.isfinite(logits).all()
    assert error(logits[GOLDEN["steps"]], GOLDEN["logits"]) < 1e-5
    assert error(logits[:, ::8], GOLDEN["every_8th"]) < 1e-5
    assert (logits[GOLDEN["steps"]].argmax(1) == GOLDEN["logits"].argmax(1)).all()


def test_without_a_prompt_and_with_the_longest(impl):
    speaker, prompt, text = INPUTS
    none, full = (run(impl, (speaker, np.resize(prompt, n), text), GOLDEN["forced"][:2]) for n in (0, 375))
    assert np.isfinite(none).all() and np.isfinite(full).all() and not np.allclose(none, full)


def test_prefill_begins_anew(impl):
    session = impl.start(*INPUTS, 3)
    first = session.prefill()
    session.step(5)
    assert (session.prefill() == first).all()
    assert (session.step(7) == run(impl, forced=[7])[1]).all()


def test_sessions_are_independent_and_share_one_decoder_across_threads(impl):
    expected, found = run(impl), {}

    def work(name):
        found[name] = run(impl)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all((logits == expected).all() for logits in found.values())


def test_one_session_in_two_threads_is_an_error(impl):
    session = impl.start(*INPUTS, 3)

    def callback(stage, done, total):
        with pytest.raises(ArgumentError, match="session: expected one thread at a time, another one is using it"):
            session.step(5)
        seen.append((stage, total))

    seen = []
    session.prefill(callback)
    assert seen and set(seen) == {("t3.prefill", 3)}


def test_prefill_can_be_cancelled_and_repeated(impl):
    session = impl.start(*INPUTS, 3)

    def stop(stage, done, total):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        session.prefill(stop)
    with pytest.raises(ArgumentError, match="step: expected a session after prefill"):
        session.step(5)
    assert (session.prefill() == run(impl, forced=[])[0]).all()


def test_every_tensor_counts(module, tiny_checkpoint, tmp_path):
    """Changing one tensor changes the logits."""
    shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    path = tmp_path / "copy" / FILE
    original = path.read_bytes()
    start = 8 + int.from_bytes(original[:8], "little")
    header = json.loads(original[8:start])
    rows = {"text_emb.weight": GOLDEN["text"], "speech_emb.weight": GOLDEN["prompt"], "tfmr.wpe.weight": [3]}
    inputs, forced = INPUTS, GOLDEN["forced"][:2]
    expected = run(module.create(resources(tiny_checkpoint)), inputs, forced)
    names = [name for name in header if name != "__metadata__"]
    assert len(names) == 9 + 12 * 3
    for name in names:
        begin, end = header[name]["data_offsets"]
        values = np.frombuffer(original[start + begin : start + end], np.float32).reshape(header[name]["shape"]).copy()
        values[rows.get(name, slice(None))] *= 1.5
        path.write_bytes(original[: start + begin] + values.tobytes() + original[start + end :])
        changed = run(module.create(resources(tmp_path / "copy")), inputs, forced)
        assert np.abs(changed - expected).max() > 1e-4, name


@pytest.mark.parametrize(
    ("speaker", "prompt", "text", "steps", "message"),
    [
        (np.zeros(31, np.float32), None, None, 5, "speaker_embedding: expected 32 numbers, got 31"),
        (np.full(32, np.nan, np.float32), None, None, 5, "speaker_embedding: expected finite numbers, got NaN at position 0"),
        (np.zeros(32), None, None, 5, r"speaker_embedding: expected float32 \[n\], got float64 array of shape \(32,\)"),
        (None, np.zeros(376, np.int64), None, 5, "prompt_tokens: expected at most 375 tokens, got 376"),
        (None, np.array([1, 2, 6563]), None, 5, "prompt_tokens: expected ids from 0 to 6562, got 6563 at position 2"),
        (None, np.array([[1]]), None, 5, r"prompt_tokens: expected int64 \[n\], got int64 array of shape \(1, 1\)"),
        (None, None, np.zeros(0, np.int64), 5, "text_ids: expected at least 1 id, got none"),
        (None, None, np.array([3, -1]), 5, "text_ids: expected ids from 0 to 1023, got -1 at position 1"),
        (None, None, np.array([1024]), 5, "text_ids: expected ids from 0 to 1023, got 1024 at position 0"),
        (None, None, np.zeros(1024, np.int64), 1445, "expected at most 2500 positions, got 2501"),
        (None, None, None, 2**63, "expected at most 2500 positions"),
        (None, None, None, -1, "max_tokens: expected a whole number from 0 to .*, got -1"),
        (None, None, None, "many", "max_tokens: expected a whole number from 0 to .*, got 'many'"),
    ],
)
def test_bad_input(impl, speaker, prompt, text, steps, message):
    inputs = [default if given is None else given for given, default in zip((speaker, prompt, text), INPUTS)]
    with pytest.raises(ArgumentError, match=message):
        impl.start(*inputs, steps)


def test_room_is_used_to_the_last_position(impl):
    speaker, prompt, _ = INPUTS
    session = impl.start(speaker, prompt, np.zeros(1024, np.int64), 2500 - 2 - len(prompt) - 1024)
    assert np.isfinite(session.prefill()).all()
    session = impl.start(*INPUTS, 1)
    session.prefill()
    with pytest.raises(ArgumentError, match="token: expected ids from 0 to 6562, got 6563 at position 0"):
        session.step(6563)
    with pytest.raises(ArgumentError, match="token: expected ids from 0 to 6562, got -1 at position 0"):
        session.step(-1)
    session.step(1)
    with pytest.raises(ArgumentError, match="step: expected at most max_tokens = 1 steps, got one more"):
        session.step(1)


def test_step_before_prefill(impl):
    with pytest.raises(ArgumentError, match="step: expected a session after prefill, got one before it"):
        impl.start(*INPUTS, 1).step(5)


def test_unknown_and_missing_tensors(module, tiny_checkpoint, tmp_path):
    shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    path = tmp_path / "copy" / FILE
    data = path.read_bytes()
    assert "tfmr.ln_f.bias" in TensorFile(path).names()
    path.write_bytes(data.replace(b'"tfmr.ln_f.bias"', b'"tfmr.ln_g.bias"'))
    with pytest.raises(CheckpointError, match="tensor tfmr.ln_f.bias is missing"):
        module.create(resources(tmp_path / "copy"))
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    config["t3"]["layers"] = 2
    with pytest.raises(CheckpointError, match="12 tensors that the configuration does not know, the first is tfmr.h.2.attn"):
        module.create(Resources(tiny_checkpoint, config))


@pytest.mark.parametrize("name", ["text_head.weight", "tfmr.wte.weight"])
def test_tensors_of_training_may_be_there_and_have_their_shape(module, tiny_checkpoint, tmp_path, name):
    shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    tensors = load_file(tiny_checkpoint / FILE)
    save_file(tensors | {name: np.zeros((1024, 32), np.float32)}, tmp_path / "copy" / FILE)
    expected = run(module.create(resources(tiny_checkpoint)), forced=[5])
    assert (run(module.create(resources(tmp_path / "copy")), forced=[5]) == expected).all()
    save_file(tensors | {name: np.zeros((1024, 31), np.float32)}, tmp_path / "copy" / FILE)
    with pytest.raises(CheckpointError, match=rf"tensor {name}: expected shape \[1024, 32\], found \[1024, 31\]"):
        module.create(resources(tmp_path / "copy"))


def test_inputs_are_copied(impl):
    """What the caller does with its arrays after ``start`` does not reach the session, and the session changes none."""
    copies = [value.copy() for value in INPUTS]
    session = impl.start(*copies, 2)
    assert all((copy == value).all() for copy, value in zip(copies, INPUTS))
    for copy in copies:
        copy[:] = 0
    assert (session.prefill() == run(impl, forced=[])[0]).all()


@pytest.fixture(scope="module", params=[implementations.param("t3.decoder", "python")])
def in_torch(request, tiny_checkpoint):
    stage = importlib.import_module(f"chatterbox_turbo_rs.stages.t3.decoder.{request.param}")
    return stage.create(resources(tiny_checkpoint))


def test_hyperparameters_are_those_of_the_configuration(in_torch, tiny_checkpoint):
    config = json.loads((tiny_checkpoint / "config.json").read_text())["t3"]
    del config["prompt_tokens"]  # a limit of the input, not of the network
    fixed = {"activation": "gelu_tanh", "text_vocab": 1024, "attention_scale": 8**-0.5, "head_bias": True}
    assert in_torch.hyperparameters() == config | fixed


def test_a_batch_in_one_pass_gives_the_rows_of_the_steps(in_torch):
    import torch

    speaker, prompt, text = INPUTS
    others = speaker[::-1].copy(), (prompt + 1) % 6561, text[::-1].copy()
    forced = GOLDEN["forced"][:6]
    batch = [torch.from_numpy(np.stack(pair)) for pair in zip(INPUTS, others)]
    speech = torch.from_numpy(np.tile([in_torch.start_token, *forced], (2, 1)))
    with torch.inference_mode():
        logits = in_torch.module(*batch, speech).numpy()
    assert logits.shape == (2, 7, 6563)
    for found, inputs in zip(logits, (INPUTS, others)):
        assert error(found, run(in_torch, inputs, forced)) < 1e-6


def test_rows_after_others_come_one_at_a_time(in_torch):
    import torch

    x, cache = torch.zeros(1, 2, 32), torch.zeros(3, 2, 1, 4, 9, 8)
    for options, message in (((cache, 5), "a cache and 2 rows"), ((None, 5), "no cache and 2 rows")):
        with pytest.raises(ValueError, match=f"start 5: expected a cache and 1 row, got {message}"):
            in_torch.module.tfmr(x, *options)


def test_training_reaches_every_parameter(in_torch, tiny_checkpoint):
    import torch

    from chatterbox_turbo_rs.stages.t3.decoder.python import T3

    torch.manual_seed(0)
    module = T3(json.loads((tiny_checkpoint / "config.json").read_text()))
    module.load_state_dict(in_torch.module.state_dict())
    batch = [torch.from_numpy(np.stack([value] * 2)) for value in INPUTS]
    speech = torch.from_numpy(np.tile([module.start_token, *GOLDEN["forced"]], (2, 1)))

    def loss():
        return torch.nn.functional.cross_entropy(module(*batch, speech[:, :-1]).flatten(0, 1), speech[:, 1:].flatten())

    optimizer, losses = torch.optim.SGD(module.parameters(), 0.1), []
    for _ in range(3):
        module.train()
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        module.eval()
        losses.append(loss().item())
    assert losses == sorted(losses, reverse=True)
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 1e-7, name
