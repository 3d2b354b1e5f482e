"""What the loaded official modules really use: hyper-parameters by network, and a digest of every tensor.

Numbers come from the modules: lengths of lists, shapes, attributes that ``forward`` reads; what stands inside a function (a slope,
a limit, the time grid) is watched while the function runs on a short input; activations are told by their values.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .digests import digest
from .draws import Draws, injected

CANDIDATES: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "mish": F.mish,
    "elu": F.elu,
}


def activation(function: Callable[[torch.Tensor], torch.Tensor]) -> str:
    """The name of an element-wise function, by its values."""
    x = torch.linspace(-4, 4, 161)
    errors = {name: float((function(x) - candidate(x)).abs().max()) for name, candidate in CANDIDATES.items()}
    name = min(errors, key=lambda n: errors[n])
    return name if errors[name] < 2e-6 else "unknown"


def hyperparameters(official: Any) -> dict[str, dict[str, Any]]:
    """Network → hyper-parameters, with the keys that both implementations report."""
    with torch.inference_mode():
        return {
            "voice_encoder.embedding": _voice_encoder(official.ve),
            "s3tokenizer.tokens": _s3tokenizer(official.s3gen.tokenizer),
            "speaker_encoder.xvector": _speaker_encoder(official.s3gen.speaker_encoder),
            "t3.decoder": _t3(official.t3),
            "s3gen.encoder": _encoder(official.s3gen.flow),
            "s3gen.flow": _flow(official),
            "s3gen.vocoder": _vocoder(official),
        }


def digests(official: Any) -> dict[str, dict[str, Any]]:
    """Weight file → tensor → digest; a weight-normed weight as the module computes it."""
    roots = {"t3": official.t3, "voice_encoder": official.ve, "s3gen": official.s3gen}
    return {which: _digests(root) for which, root in roots.items()}


def _digests(root: nn.Module) -> dict[str, Any]:
    state = {n: t for n, t in root.state_dict().items() if t.is_floating_point()}
    found = {n: t for n, t in state.items() if ".parametrizations." not in n}
    for name, module in root.named_modules():
        if hasattr(module, "parametrizations"):
            found[f"{name}.weight"] = module.weight
    for name in ("text_head.weight", "similarity_weight", "similarity_bias"):
        found.pop(name, None)  # no computation reads them
    return {name: digest(tensor.detach().float().numpy()) for name, tensor in sorted(found.items())}


def _voice_encoder(ve: Any) -> dict[str, Any]:
    rates: list[float] = []

    def seen(mels: Any, *_: Any, **options: Any) -> Any:
        rates.append(options["rate"])
        return np.zeros((1, 1), np.float32)

    with mock.patch.object(ve, "embeds_from_mels", seen):
        ve.embeds_from_wavs([np.zeros(16000, np.float32)], sample_rate=16000)
    return {
        "mels": ve.lstm.input_size,
        "hidden_size": ve.lstm.hidden_size,
        "layers": ve.lstm.num_layers,
        "embedding_size": ve.proj.out_features,
        "partial_frames": ve.hp.ve_partial_frames,
        "partials_per_second": rates[0],
        "min_coverage": inspect.signature(ve.inference).parameters["min_coverage"].default,
        "final_activation": "relu" if ve.hp.ve_final_relu else "none",
    }


def _s3tokenizer(tokenizer: Any) -> dict[str, Any]:
    encoder, block = tokenizer.encoder, tokenizer.encoder.blocks[0]
    size = block.attn.query.in_features // block.attn.n_head
    angle = float(encoder.freqs_cis[1, 1].angle())
    return {
        "mels": encoder.conv1.in_channels,
        "hidden_size": encoder.conv2.out_channels,
        "heads": block.attn.n_head,
        "layers": len(encoder.blocks),
        "ffn_size": block.mlp[0].out_features,
        "fsmn_kernel": block.attn.fsmn_block.kernel_size[0],
        "rope_theta": float(round(angle ** (-size / 2), 1)),
        "attn_norm_eps": block.attn_ln.eps,
        "mlp_norm_eps": block.mlp_ln.eps,
        "fsq_dims": tokenizer.quantizer._codebook.project_down.out_features,
        "activation": activation(block.mlp[1]),
        **{f"{n}_bias": getattr(block.attn, n).bias is not None for n in ("query", "key", "value")},
    }


def _speaker_encoder(network: Any) -> dict[str, Any]:
    blocks = [getattr(network.xvector, f"block{i}") for i in (1, 2, 3)]
    first = blocks[0].tdnnd1
    growth = first.cam_layer.linear_local.out_channels
    return {
        "mels": 8 * network.head.out_channels // network.head.conv1.out_channels,
        "embedding_size": network.xvector.dense.linear.out_channels,
        "head_channels": network.head.conv1.out_channels,
        "init_channels": network.xvector.tdnn.linear.out_channels,
        "growth": growth,
        "bottleneck": first.linear1.out_channels // growth,
        "layers": [len(block) for block in blocks],
        "dilations": [block.tdnnd1.cam_layer.linear_local.dilation[0] for block in blocks],
        "kernel": first.cam_layer.linear_local.kernel_size[0],
        "segment": inspect.signature(first.cam_layer.seg_pooling).parameters["seg_len"].default,
        "norm_eps": first.nonlinear1.batchnorm.eps,
    }


def _t3(t3: Any) -> dict[str, Any]:
    block = t3.tfmr.h[0]
    return {
        "hidden_size": block.ln_1.normalized_shape[0],
        "layers": len(t3.tfmr.h),
        "heads": block.attn.num_heads,
        "ffn_size": block.mlp.c_fc.weight.shape[1],
        "positions": t3.tfmr.wpe.num_embeddings,
        "norm_eps": block.ln_1.eps,
        "activation": activation(block.mlp.act),
        "text_vocab": t3.text_emb.num_embeddings,
        "speech_vocab": t3.speech_head.out_features,
        "start_token": t3.hp.start_speech_token,
        "stop_token": t3.hp.stop_speech_token,
        "attention_scale": _attention_scale(block.attn),
        "head_bias": t3.speech_head.bias is not None,
    }


def _attention_scale(attention: Any) -> float:
    """What scores are multiplied by: two keys whose scores differ by a known amount, seen in the mixture of their values."""
    size = attention.head_dim
    c_attn, c_proj = attention.c_attn, attention.c_proj
    width = c_attn.weight.shape[0]
    weight, bias = torch.zeros_like(c_attn.weight), torch.zeros_like(c_attn.bias)
    weight[0, 0], weight[1, width], weight[2, 2 * width] = 1.0, 1.0, 1.0  # query, key and value of head 0, channel 0
    eye = torch.eye(width)
    x = torch.zeros(1, 2, width)
    x[0, 0, 2], x[0, 1, 0], x[0, 1, 1] = 1.0, 1.0, float(size) ** 0.5  # value 1 at key 0; scores 0 and √size
    with (
        mock.patch.object(c_attn, "weight", nn.Parameter(weight)),
        mock.patch.object(c_attn, "bias", nn.Parameter(bias)),
        mock.patch.object(c_proj, "weight", nn.Parameter(eye)),
        mock.patch.object(c_proj, "bias", nn.Parameter(torch.zeros(width))),
    ):
        share = float(attention(x)[0][0, 1, 0])  # softmax of (0, scale √size) at key 0
    return float(np.log(1.0 / share - 1.0)) / float(size) ** 0.5


def _encoder(flow: Any) -> dict[str, Any]:
    encoder, layer = flow.encoder, flow.encoder.encoders[0]
    return {
        "vocab": flow.input_embedding.num_embeddings,
        "mels": flow.encoder_proj.out_features,
        "hidden_size": encoder.output_size(),
        "heads": layer.self_attn.h,
        "ffn_size": layer.feed_forward.w_1.out_features,
        "layers": len(encoder.encoders),
        "up_layers": len(encoder.up_encoders),
        "lookahead": encoder.pre_lookahead_layer.pre_lookahead_len,
        "layer_norm_eps": layer.norm_mha.eps,
        "norm_eps": encoder.after_norm.eps,
        "activation": activation(layer.feed_forward.activation),
        "key_bias": layer.self_attn.linear_k.bias is not None,
        "embedding_scale": encoder.embed.pos_enc.xscale,
    }


def _flow(official: Any) -> dict[str, Any]:
    flow = official.s3gen.flow
    estimator = flow.decoder.estimator
    resnet, transformer = estimator.mid_blocks[0][0], estimator.mid_blocks[0][1][0]
    times: list[float] = []

    forward = estimator.forward
    parameters = inspect.signature(forward)

    def seen(*arguments: Any, **options: Any) -> Any:
        bound = parameters.bind(*arguments, **options).arguments
        times.extend(float(bound[n].flatten()[0]) for n in ("t", "r"))
        return forward(*arguments, **options)

    mels = estimator.out_channels
    zeros = np.zeros((4, mels), np.float32)
    with mock.patch.object(estimator, "forward", seen):
        official.s3gen_flow(zeros, np.ones(flow.spk_embed_affine_layer.in_features, np.float32), zeros[:2], zeros)
    residual = sum(name.endswith("res_conv") and isinstance(m, nn.Conv1d) for name, m in estimator.named_modules())
    return {
        "mels": mels,
        "xvector_size": flow.spk_embed_affine_layer.in_features,
        "channels": estimator.final_proj.in_channels,
        "heads": transformer.attn1.heads,
        "head_size": transformer.attn1.to_q.out_features // transformer.attn1.heads,
        "ffn_size": transformer.ff.net[0].proj.out_features,
        "blocks": len(estimator.mid_blocks[0][1]),
        "mid_blocks": len(estimator.mid_blocks),
        "norm_eps": transformer.norm1.eps,
        "time_size": estimator.time_mlp.linear_2.out_features,
        "time_grid": sorted(set(times)),
        "activation": activation(transformer.ff.net[0].gelu),
        "resnet_activation": activation(resnet.mlp[0]),
        "residual_convs": residual,
    }


def _vocoder(official: Any) -> dict[str, Any]:
    v = official.s3gen.mel2wav
    slopes: list[float] = []
    limits: list[float] = []
    leaky, clip = F.leaky_relu, torch.clip

    def watched_leaky(x: torch.Tensor, negative_slope: float = 0.01, *rest: Any, **options: Any) -> torch.Tensor:
        slopes.append(negative_slope)
        return leaky(x, negative_slope, *rest, **options)

    def watched_clip(x: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        limits.append(options["max"])
        return clip(x, *arguments, **options)

    mel = np.zeros((4, v.conv_pre.in_channels), np.float32)
    draws = Draws(phases=np.zeros(9, np.float32), noise=np.zeros((480 * 4, 9), np.float32))
    with mock.patch.object(F, "leaky_relu", watched_leaky), mock.patch.object(torch, "clip", watched_clip), injected(draws):
        samples, _ = official.s3gen.hift_inference(torch.from_numpy(mel.T.copy())[None], None)
    sine = v.m_source.l_sin_gen
    kernels = [block.convs1[0].kernel_size[0] for block in v.resblocks]
    return {
        "mels": v.conv_pre.in_channels,
        "base_channels": v.conv_pre.out_channels,
        "upsample_rates": [up.stride[0] for up in v.ups],
        "upsample_kernels": [up.kernel_size[0] for up in v.ups],
        "istft_size": v.istft_params["n_fft"],
        "istft_hop": v.istft_params["hop_len"],
        "resblock_kernels": kernels[: v.num_kernels],
        "resblock_dilations": [conv.dilation[0] for conv in v.resblocks[0].convs1],
        "source_resblock_kernels": [block.convs1[0].kernel_size[0] for block in v.source_resblocks],
        "harmonics": sine.harmonic_num,
        "sine_amplitude": sine.sine_amp,
        "noise_std": sine.noise_std,
        "voiced_threshold": sine.voiced_threshold,
        "leaky_slope": slopes[0],
        "last_leaky_slope": slopes[-1],
        "magnitude_limit": limits[0],
        "audio_limit": v.audio_limit,
        "f0_channels": v.f0_predictor.condnet[0].out_channels,
        "hop": samples.shape[-1] // len(mel),
        "fade": len(official.s3gen.trim_fade) // 2,
    }
