"""Stage `watermark`: both implementations against resemble-perth 1.0.1 (golden: tools/goldens/watermark.py)."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from chatterbox_turbo_rs.checkpoint import torch_archive
from chatterbox_turbo_rs.errors import ArgumentError, AudioError, WatermarkError
from chatterbox_turbo_rs.stages.watermark import rust

GOLDEN = Path(__file__).parents[1] / "goldens" / "watermark.npz"


@pytest.fixture(scope="module", params=["python", "rust"])
def impl(request):
    module = importlib.import_module(f"chatterbox_turbo_rs.stages.watermark.{request.param}")
    if request.param == "python" and (reason := module.missing()):
        pytest.skip(reason)
    return module.create(None)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        values = {key: file[key] for key in file}
    return {**values, "samples": values["samples"].astype(np.float32) / 32768}


def snr(clean, marked):
    return 10 * np.log10(np.sum(clean.astype(float) ** 2) / np.sum((marked.astype(float) - clean) ** 2))


def test_samples_are_those_of_resemble_perth(impl, golden):
    marked = impl(golden["samples"])
    assert marked.dtype == np.float32 and marked.shape == golden["marked"].shape
    assert np.abs(marked - golden["marked"]).max() < 1e-4
    assert 10 < snr(golden["samples"], marked) < 20


def test_the_detector_answers_as_resemble_perth_does_at_every_rate(impl, golden):
    for name in ("samples", "marked"):
        found = [impl.detect(golden[name], int(rate)) for rate in golden["rates"]]
        np.testing.assert_allclose(found, golden[f"confidence_{name}"], atol=1e-4)


def test_a_mark_is_found_and_its_absence_too(impl, golden):
    assert impl.detect(impl(golden["samples"]), 24_000) > 0.9
    assert impl.detect(golden["samples"], 24_000) < 0.1


def test_any_length_is_kept(impl, golden):
    samples = golden["samples"]
    assert np.abs(impl(samples[:1001].copy()) - golden["marked_1001"]).max() < 1e-4
    for length in (1, 239, 240, 769, 2880, 2881):
        marked = impl(samples[:length].copy())
        assert marked.shape == (length,) and marked.dtype == np.float32 and np.isfinite(marked).all()


def test_marking_is_deterministic_and_leaves_its_input_alone(impl, golden):
    samples = golden["samples"].copy()
    first = impl(samples)
    np.testing.assert_array_equal(samples, golden["samples"])
    np.testing.assert_array_equal(first, impl(samples))


def test_silence_stays_silent_and_cannot_be_judged(impl):
    silence = np.zeros(4800, np.float32)
    assert np.abs(impl(silence)).max() < 1e-6
    with pytest.raises(AudioError, match="got silence"):
        impl.detect(silence, 24_000)


def test_quiet_frames_are_not_marked(impl, golden):
    samples = golden["samples"]
    clip = np.concatenate([samples, np.zeros(24_000, np.float32)])
    marked = impl(clip)
    assert np.abs(marked - clip)[: len(samples)].max() > 1e-2
    assert np.abs(marked - clip)[len(samples) + 4096 :].max() < 1e-6


@pytest.mark.parametrize(
    "samples, says",
    [
        (np.zeros(480), "expected float32 [n], got float64 array of shape (480,)"),
        (np.zeros((1, 480), np.float32), "expected float32 [n], got float32 array of shape (1, 480)"),
        ([0.0] * 480, "expected float32 [n], got list"),
        (np.zeros(0, np.float32), "expected at least one sample, got none"),
        (np.array([0, 1, np.nan], np.float32), "expected finite values"),
        (np.array([0, -np.inf], np.float32), "expected finite values, got -inf at 1"),
    ],
)
def test_bad_samples_are_refused(impl, samples, says):
    for call in (lambda: impl(samples), lambda: impl.detect(samples, 24_000)):
        with pytest.raises(ArgumentError) as caught:
            call()
        assert "samples: " in str(caught.value) and says in str(caught.value)


def test_bad_rates_and_short_clips_are_refused(impl, golden):
    for rate in (-1, 0, 999, 768_001, 2**40):
        with pytest.raises(ArgumentError, match="rate"):
            impl.detect(golden["samples"], rate)
    for length, rate in ((768, 24_000), (1024, 32_000), (1, 48_000)):
        with pytest.raises(AudioError, match=f"more than 32 ms to look for a mark, got {length} samples at {rate} Hz"):
            impl.detect(golden["marked"][:length].copy(), rate)
    assert 0 <= impl.detect(golden["marked"][:769].copy(), 24_000) <= 1


def test_what_the_callback_raises_stops_the_work(impl, golden):
    def stop(*_):
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        impl(golden["samples"], stop)
    with pytest.raises(LookupError, match="enough"):
        impl.detect(golden["samples"], 24_000, stop)
    seen = []
    impl(golden["samples"], lambda *report: seen.append(report))
    assert seen and {stage for stage, _, _ in seen} == {"watermark"}
    fractions = [done / total for _, done, total in seen]
    assert fractions == sorted(fractions) and fractions[-1] == 1


def test_both_implementations_agree_at_odd_lengths(golden):
    from chatterbox_turbo_rs.stages.watermark import python

    if reason := python.missing():
        pytest.skip(reason)
    a, b = python.create(None), rust.create(None)
    for length in (1, 500, 961, 5555, 17_001):
        samples = golden["samples"][-length:].copy()
        assert np.abs(a(samples) - b(samples)).max() < 1e-4, length


def test_rust_imports_neither_perth_nor_torch():
    code = (
        "import sys; from chatterbox_turbo_rs.stages.watermark import rust; rust.create(None); rust.missing();"
        "sys.exit(', '.join({'perth', 'torch', 'librosa', 'pkg_resources'} & set(sys.modules)) or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert ran.returncode == 0, ran.stderr


def test_absent_weights_say_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "distributions", lambda **_: [])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    from chatterbox_turbo_rs.stages.watermark import python

    for module in (rust, python):
        assert "pip install resemble-perth==1.0.1" in module.missing()
        with pytest.raises(WatermarkError, match="resemble-perth"):
            module.create(None)
    assert "setuptools<81" in python.missing() and "pip install torch;" in python.missing()


def test_damaged_weights_name_the_file_and_the_tensor(tmp_path):
    path = tmp_path / "perth.pth.tar"
    with pytest.raises(WatermarkError, match="perth.pth.tar"):
        rust.Watermarker(path)
    path.write_bytes(b"PK\x03\x04 and nothing else")
    with pytest.raises(WatermarkError, match="perth.pth.tar.*not a complete zip"):
        rust.Watermarker(path)
    weights = torch_archive.read(next(filter(Path.is_file, rust._candidates())))
    used = [name for name in weights["model"] if name.startswith(("encoder.", "decoder."))]
    assert len(used) == 56
    for name in ("encoder.layers.0.conv.weight", "decoder.fast_layers.6.conv.bias"):
        model = dict(weights["model"])
        tensor = model.pop(name)
        torch_archive.save(path, {"model": model})
        with pytest.raises(WatermarkError, match=f"perth.pth.tar: tensor {name}: expected F32 .*found none"):
            rust.Watermarker(path)
        torch_archive.save(path, {"model": {**model, name: tensor[:1]}})
        with pytest.raises(WatermarkError, match=f"{name}.*found F32"):
            rust.Watermarker(path)
        torch_archive.save(path, {"model": {**model, name: tensor * np.float32(np.nan)}})
        with pytest.raises(WatermarkError, match=f"{name}.*NaN"):
            rust.Watermarker(path)


def test_every_tensor_matters(tmp_path, golden):
    weights = torch_archive.read(next(filter(Path.is_file, rust._candidates())))["model"]
    plain = rust.create(None)
    samples = golden["samples"][:4800].copy()
    marked, confidence = plain(samples), plain.detect(samples, 24_000)
    for name in weights:
        if not name.startswith(("encoder.", "decoder.")):
            continue  # windows, which are computed
        changed = weights[name] * np.float32(1.5)
        torch_archive.save(tmp_path / "perth.pth.tar", {"model": {**weights, name: changed}})
        other = rust.Watermarker(tmp_path / "perth.pth.tar")
        if name.startswith("encoder."):
            assert not np.array_equal(other(samples), marked), name
        else:
            assert other.detect(samples, 24_000) != confidence, name
