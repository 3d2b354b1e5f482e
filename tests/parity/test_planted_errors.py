"""The report catches errors that were really made: two dozen planted in the Python side, each found in the box that it belongs to.

Most are of the list of traps that a port of this model falls into: every one of them was once made by somebody, and ticked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from chatterbox_turbo_rs.checkpoint import config
from chatterbox_turbo_rs.engine import registry
from chatterbox_turbo_rs.parity import cases, checklist
from chatterbox_turbo_rs.parity.run import Options, Parity

torch = pytest.importorskip("torch", reason="the planted errors are in the PyTorch side")
from torch import nn  # noqa: E402

pytestmark = pytest.mark.skipif(
    registry.missing("watermark", "python") is not None, reason=str(registry.missing("watermark", "python"))
)


def change(function: Callable[[Any], None]) -> Callable[[Any], Any]:
    """An error planted in the loaded stage itself."""

    def changed(stage: Any) -> Any:
        function(stage)
        return stage

    return changed


def each(stage: Any, kind: str, do: Callable[[Any], None]) -> None:
    for module in list(stage.module.modules()):
        if type(module).__name__ == kind:
            do(module)


def exact_gelu(stage: Any) -> None:
    each(stage, "MLP", lambda m: setattr(m, "act", nn.GELU()))


def restarted_positions(stage: Any) -> None:
    """Every segment (speaker and prompt, text, speech) counts from 0."""
    module, embed = stage.module, stage.module.embed

    def restarted(speaker: Any, prompt: Any, text: Any, speech: Any) -> Any:
        rows = embed(speaker, prompt, text, speech)
        table = module.tfmr.wpe.weight
        own = torch.cat([torch.arange(n) for n in (1 + prompt.shape[1], text.shape[1], speech.shape[1])])
        return rows + table[own] - table[: rows.shape[1]]

    module.embed = restarted


def no_bias(stage: Any) -> None:
    for block in stage.module.encoder.blocks:
        block.attn.query.bias = block.attn.value.bias = None


def tanh_gelu(stage: Any) -> None:
    each(stage, "GELU", lambda m: setattr(m, "approximate", "tanh"))


def cosine_grid(stage: Any) -> None:
    stage.module.time_grid = lambda: 1 - torch.cos(torch.linspace(0, 1, stage.module.steps + 1) * 0.5 * math.pi)


class First80(nn.Module):
    """The x-vector's first 80 numbers in place of its projection."""

    in_features, out_features = 192, 80

    def forward(self, x: Any) -> Any:
        return x[:, :80]


def no_residual_convolutions(stage: Any) -> None:
    for resnet, _ in stage.module.decoder["estimator"].mid_blocks:
        resnet.res_conv = nn.Identity()


def gelu_for_mish(stage: Any) -> None:
    each(stage, "CausalBlock1D", lambda m: m.block.__setitem__(-1, nn.GELU()))


def penalty_first(sampler: Any) -> Any:
    from chatterbox_turbo_rs.stages.t3.sampler import SamplerParameters

    def sample(logits: Any, history: Any, p: Any, uniform: float) -> Any:
        scores, seen = logits.copy(), np.unique(history)
        scores[seen] = np.where(scores[seen] < 0, scores[seen] * p.repetition_penalty, scores[seen] / p.repetition_penalty)
        rest = SamplerParameters(temperature=p.temperature, top_k=p.top_k, top_p=p.top_p, repetition_penalty=1.0)
        return sampler(scores.astype(np.float32), history, rest, uniform)

    return sample


def a_frame_more(mel: Any) -> Any:
    """Drops the Nyquist bin, which is empty anyway, in place of the last frame."""
    return lambda samples: mel(np.pad(samples, (0, 160 - len(samples) % 160), mode="reflect"))


def one_resampler(resample: Any) -> Any:
    def both(samples: Any) -> Any:
        w16, r16 = resample(samples)
        return w16, np.ascontiguousarray(w16[: len(r16)])

    return both


def padded_segments(stage: Any) -> None:
    """Divides a last, shorter segment by 100."""

    pool = nn.functional.avg_pool1d

    def filled(x: Any, size: int, stride: int, ceil_mode: bool) -> Any:
        return pool(nn.functional.pad(x, (0, -x.shape[-1] % size)), size, stride)

    def wrong(module: Any) -> Any:
        forward = module.forward

        def run(x: Any) -> Any:
            with mock.patch.object(nn.functional, "avg_pool1d", filled):
                return forward(x)

        return run

    each(stage, "ContextMask", lambda m: setattr(m, "forward", wrong(m)))


def no_scaling(stage: Any) -> None:
    stage.module.encoder.embed.scale = 1.0


def usual_eps(stage: Any) -> None:
    each(stage, "Layer", lambda m: (setattr(m.norm_mha, "eps", 1e-5), setattr(m.norm_ff, "eps", 1e-5)))


def short_fade(stage: Any) -> None:
    """Half a cosine without the silence before it."""
    stage.fade = np.roll(stage.fade, -480)
    stage.fade[480:] = 1.0


def untrimmed(mel: Any) -> Any:
    from chatterbox_turbo_rs.stages.voice_encoder.mel import python

    def whole(w16: Any) -> Any:
        with mock.patch.object(python, "trim", lambda samples: samples):
            return mel(w16)

    return whole


def swapped_gates(stage: Any) -> None:
    """The LSTM's second and third gate change places."""
    size = stage.module.lstm.hidden_size
    for weight in stage.module.lstm.parameters():
        with torch.no_grad():
            weight[size : 3 * size] = torch.roll(weight[size : 3 * size], size, 0)


# error -> (stage, what is done to it, the box that has to fail)
ERRORS: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "T3 with the exact GELU": ("t3.decoder", change(exact_gelu), "t3_architecture"),
    "T3 says that it has the exact GELU": ("t3.decoder", change(exact_gelu), "t3_configuration"),
    "positions restarted in every segment": ("t3.decoder", change(restarted_positions), "t3_architecture"),
    "repetition penalty first": ("t3.sampler", penalty_first, "parameter_handling"),
    "no query and value bias": ("s3tokenizer.tokens", change(no_bias), "prompt_tokens"),
    "no query and value bias, in the configuration": ("s3tokenizer.tokens", change(no_bias), "s3tokenizer_configuration"),
    "tensors that nobody read": ("s3tokenizer.tokens", change(no_bias), "model_files"),
    "Nyquist bin in place of the last frame": ("s3tokenizer.mel", a_frame_more, "s3tokenizer_mel"),
    "estimator with the tanh GELU": ("s3gen.flow", change(tanh_gelu), "s3gen_architecture"),
    "cosine time grid": ("s3gen.flow", change(cosine_grid), "s3gen_configuration"),
    "GELU for Mish": ("s3gen.flow", change(gelu_for_mish), "s3gen_architecture"),
    "no residual convolutions in the middle": ("s3gen.flow", change(no_residual_convolutions), "s3gen_configuration"),
    "x-vector not projected": (
        "s3gen.flow",
        change(lambda s: setattr(s.module, "spk_embed_affine_layer", First80())),
        "s3gen_architecture",
    ),
    "no scaling by the root of the width": ("s3gen.encoder", change(no_scaling), "s3gen_architecture"),
    "the usual eps in the conformer's LayerNorm": ("s3gen.encoder", change(usual_eps), "s3gen_configuration"),
    "fade-in without silence": ("s3gen.vocoder", change(short_fade), "s3gen_inference"),
    "one resampler for both signals": ("reference.resample", one_resampler, "resampling"),
    "a short segment divided by 100": ("speaker_encoder.xvector", change(padded_segments), "conditioning_application"),
    "LSTM gates in another order": ("voice_encoder.embedding", change(swapped_gates), "speaker_embedding"),
    "voice not trimmed": ("voice_encoder.mel", untrimmed, "voice_encoder_mel"),
    "RMS loudness": ("reference.loudness", lambda f: lambda samples, method="rms": f(samples, "rms"), "loudness_normalization"),
    "mel a thousandth too large": ("s3gen.prompt_mel", lambda f: lambda samples: f(samples) * np.float32(1.001), "s3gen_mel"),
    "stripped before the capital": ("text.normalize", lambda f: lambda text: f(text.strip()), "text_normalization"),
    "never truncated": (
        "text.tokenize",
        lambda f: lambda text: np.concatenate([f(text[:3000]), f(text[3000:])]) if len(text) > 3000 else f(text),
        "text_tokenization",
    ),
    "no watermark": ("watermark", lambda mark: lambda samples: samples, "watermarking"),
}


@pytest.fixture(scope="module")
def reference(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Options, Parity]:
    """The Rust side's recording, to which the Python side with an error is compared."""
    work = tmp_path_factory.mktemp("planted")
    settings = config.read(tiny_checkpoint / "config.json")
    given = cases.quick(work)
    names = ("plain", "greedy", "narrow")
    given = cases.Cases(given.clips[1:], [replace(text) for text in given.texts if text.name in names], given.sentences)
    options = Options(tiny_checkpoint, settings, given, work, note=lambda _: None, modes=("isolated",))
    parity = Parity(options)
    parity._record("rust")
    return options, parity


def replace(text: cases.Text) -> cases.Text:
    return cases.Text(text.name, text.text, "odd", min(text.max_tokens, 20), text.seed, text.parameters)


def boxes(reference: tuple[Options, Parity], stage: str, changed: Callable[[Any], Any] | None) -> dict[str, str]:
    """Verdicts of all boxes when the Python side has an error."""
    from dataclasses import replace as with_

    from chatterbox_turbo_rs.parity import configuration
    from chatterbox_turbo_rs.parity.recording import NETWORKS, Recording
    from chatterbox_turbo_rs.parity.stages import Comparison

    options, recorded = reference
    parity = Parity(with_(options, replaced={stage: changed} if changed else {}, stages=(stage,)))
    parity.recordings = recorded.recordings
    comparison = Comparison(recorded.recordings["rust"], "python", parity._load("python"), options.cases, (stage,))
    comparison.isolated()
    rows = comparison.rows
    if stage in NETWORKS:
        found = parity._recorder("python").raw(stage)
        described = Recording("python", hyperparameters={stage: found.hyperparameters()})
        from chatterbox_turbo_rs.parity.run import _digests

        described.digests = _digests(parity._recorder("python"), "python", (stage,))
        rows += [row for row in configuration.rows(recorded.recordings["rust"], described) if f".{stage}" in row.stage]
    return {box.id: checklist.verdict([row for row in rows if checklist.belongs(row, box)]) for box in checklist.BOXES}


@pytest.mark.parametrize("error", ERRORS)
def test_a_planted_error_is_found(reference: tuple[Options, Parity], error: str) -> None:
    stage, changed, box = ERRORS[error]
    assert boxes(reference, stage, changed)[box] == "FAIL"


@pytest.mark.parametrize("stage", sorted({stage for stage, _, _ in ERRORS.values()}))
def test_without_an_error_nothing_is_found(reference: tuple[Options, Parity], stage: str) -> None:
    found = boxes(reference, stage, None)
    assert "FAIL" not in found.values() and "ok" in found.values()


def test_there_are_enough_of_them() -> None:
    assert len(ERRORS) >= 20 and len({box for _, _, box in ERRORS.values()}) >= 15
    assert {stage for stage, _, _ in ERRORS.values()} <= set(registry.TABLE)
