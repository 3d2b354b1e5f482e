"""Names, shapes and dtypes of every tensor of a Chatterbox Turbo checkpoint, derived from a configuration alone.

``tensors(config)`` gives, for each of the three weight files, ``{tensor name: shape}``; at the sizes of
``config/turbo.json`` these are the 2,806 tensors that resemble-ai/chatterbox at commit 5de7a54 loads with ``strict=True``
(``tests/data/tensor_inventory.tsv``). Everything is floating-point but BatchNorm's ``num_batches_tracked`` (I64).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Shape = tuple[int, ...]
Named = Iterator[tuple[str, Shape]]

# In upstream's file and loaded by it, but never part of a computation. Small checkpoints leave them out.
UNUSED_T3 = ("text_head.weight", "tfmr.wte.weight")


def tensors(config: Mapping[str, Any], unused: bool = True) -> dict[str, dict[str, Shape]]:
    """File name -> tensor name -> shape. ``unused=False`` leaves out ``UNUSED_T3``."""
    t3 = dict(_t3(config))
    if not unused:
        for name in UNUSED_T3:
            del t3[name]
    s3gen = dict(_under("tokenizer", _s3tokenizer(config["s3tokenizer"])))
    s3gen |= dict(_under("speaker_encoder", _speaker_encoder(config["speaker_encoder"])))
    s3gen |= dict(_under("flow", _flow(config)))
    s3gen |= dict(_under("mel2wav", _vocoder(config["s3gen"])))
    files = config["files"]
    return {files["voice_encoder"]: dict(_voice_encoder(config["voice_encoder"])), files["t3"]: t3, files["s3gen"]: s3gen}


def is_integer(name: str) -> bool:
    """Whether a tensor holds I64 instead of floating-point numbers."""
    return name.endswith("num_batches_tracked")


def _under(prefix: str, named: Named) -> Named:
    for name, shape in named:
        yield f"{prefix}.{name}", shape


def _linear(name: str, rows: int, columns: int, bias: bool = True) -> Named:
    yield f"{name}.weight", (rows, columns)
    if bias:
        yield f"{name}.bias", (rows,)


def _conv(name: str, rows: int, columns: int, kernel: int, bias: bool = True) -> Named:
    yield f"{name}.weight", (rows, columns, kernel)
    if bias:
        yield f"{name}.bias", (rows,)


def _norm(name: str, size: int) -> Named:
    yield f"{name}.weight", (size,)
    yield f"{name}.bias", (size,)


def _batch_norm(name: str, size: int, affine: bool = True) -> Named:
    if affine:
        yield from _norm(name, size)
    yield f"{name}.running_mean", (size,)
    yield f"{name}.running_var", (size,)
    yield f"{name}.num_batches_tracked", ()


def _weight_norm(name: str, first: int, second: int, kernel: int, bias: int | None = None) -> Named:
    """A weight-normalised convolution: gain per entry of dimension 0, direction, bias."""
    yield f"{name}.parametrizations.weight.original0", (first, 1, 1)
    yield f"{name}.parametrizations.weight.original1", (first, second, kernel)
    yield f"{name}.bias", (first if bias is None else bias,)


def _voice_encoder(c: Mapping[str, Any]) -> Named:
    hidden = c["hidden_size"]
    for layer in range(c["layers"]):
        yield f"lstm.weight_ih_l{layer}", (4 * hidden, hidden if layer else c["mels"])
        yield f"lstm.weight_hh_l{layer}", (4 * hidden, hidden)
        yield f"lstm.bias_ih_l{layer}", (4 * hidden,)
        yield f"lstm.bias_hh_l{layer}", (4 * hidden,)
    yield from _linear("proj", c["embedding_size"], hidden)
    yield "similarity_weight", (1,)
    yield "similarity_bias", (1,)


def _t3(config: Mapping[str, Any]) -> Named:
    c, vocabulary = config["t3"], config["text"]["vocab_size"]
    size, ffn = c["hidden_size"], c["ffn_size"]
    yield "tfmr.wte.weight", (vocabulary, size)
    yield "tfmr.wpe.weight", (c["positions"], size)
    for layer in range(c["layers"]):
        at = f"tfmr.h.{layer}"
        yield from _norm(f"{at}.ln_1", size)
        yield from _norm(f"{at}.ln_2", size)
        # GPT-2's Conv1D keeps its weights as [in, out].
        for name, rows, columns in (
            ("attn.c_attn", size, 3 * size),
            ("attn.c_proj", size, size),
            ("mlp.c_fc", size, ffn),
            ("mlp.c_proj", ffn, size),
        ):
            yield f"{at}.{name}.weight", (rows, columns)
            yield f"{at}.{name}.bias", (columns,)
    yield from _norm("tfmr.ln_f", size)
    yield from _linear("cond_enc.spkr_enc", size, config["voice_encoder"]["embedding_size"])
    yield "text_emb.weight", (vocabulary, size)
    yield "speech_emb.weight", (c["speech_vocab"], size)
    yield "text_head.weight", (vocabulary, size)
    yield from _linear("speech_head", c["speech_vocab"], size)


def _s3tokenizer(c: Mapping[str, Any]) -> Named:
    size = c["hidden_size"]
    yield "_mel_filters", (c["mels"], 201)
    yield "window", (400,)
    yield from _conv("encoder.conv1", size, c["mels"], 3)
    yield from _conv("encoder.conv2", size, size, 3)
    for layer in range(c["layers"]):
        at = f"encoder.blocks.{layer}"
        yield from _linear(f"{at}.attn.query", size, size)
        yield from _linear(f"{at}.attn.key", size, size, bias=False)
        yield from _linear(f"{at}.attn.value", size, size)
        yield from _linear(f"{at}.attn.out", size, size)
        yield f"{at}.attn.fsmn_block.weight", (size, 1, c["fsmn_kernel"])
        yield from _norm(f"{at}.attn_ln", size)
        yield from _linear(f"{at}.mlp.0", 4 * size, size)
        yield from _linear(f"{at}.mlp.2", size, 4 * size)
        yield from _norm(f"{at}.mlp_ln", size)
    yield from _linear("quantizer._codebook.project_down", c["fsq_dims"], size)


def _speaker_encoder(c: Mapping[str, Any]) -> Named:
    head = c["head_channels"]
    yield "head.conv1.weight", (head, 1, 3, 3)
    yield from _batch_norm("head.bn1", head)
    for layer in (1, 2):
        for block in (0, 1):
            at = f"head.layer{layer}.{block}"
            for conv in (1, 2):
                yield f"{at}.conv{conv}.weight", (head, head, 3, 3)
                yield from _batch_norm(f"{at}.bn{conv}", head)
            if block == 0:
                yield f"{at}.shortcut.0.weight", (head, head, 1, 1)
                yield from _batch_norm(f"{at}.shortcut.1", head)
    yield "head.conv2.weight", (head, head, 3, 3)
    yield from _batch_norm("head.bn2", head)
    channels, growth = c["init_channels"], c["growth"]
    inner = c["bottleneck"] * growth
    yield "xvector.tdnn.linear.weight", (channels, head * (c["mels"] // 8), 5)
    yield from _batch_norm("xvector.tdnn.nonlinear.batchnorm", channels)
    for block, layers in enumerate(c["layers"], start=1):
        for layer in range(1, layers + 1):
            at = f"xvector.block{block}.tdnnd{layer}"
            yield from _batch_norm(f"{at}.nonlinear1.batchnorm", channels)
            yield from _conv(f"{at}.linear1", inner, channels, 1, bias=False)
            yield from _batch_norm(f"{at}.nonlinear2.batchnorm", inner)
            yield from _conv(f"{at}.cam_layer.linear_local", growth, inner, c["kernel"], bias=False)
            yield from _conv(f"{at}.cam_layer.linear1", inner // 2, inner, 1)
            yield from _conv(f"{at}.cam_layer.linear2", growth, inner // 2, 1)
            channels += growth
        yield from _batch_norm(f"xvector.transit{block}.nonlinear.batchnorm", channels)
        yield from _conv(f"xvector.transit{block}.linear", channels // 2, channels, 1, bias=False)
        channels //= 2
    yield from _batch_norm("xvector.out_nonlinear.batchnorm", channels)
    yield from _conv("xvector.dense.linear", c["embedding_size"], 2 * channels, 1, bias=False)
    yield from _batch_norm("xvector.dense.nonlinear.batchnorm", c["embedding_size"], affine=False)


def _flow(config: Mapping[str, Any]) -> Named:
    c = config["s3gen"]
    mels, encoder = c["mels"], c["encoder"]
    size = encoder["hidden_size"]
    yield "input_embedding.weight", (c["vocab"], size)
    yield from _linear("spk_embed_affine_layer", mels, config["speaker_encoder"]["embedding_size"])
    yield from _linear("encoder_proj", mels, size)
    for embed in ("embed", "up_embed"):
        yield from _linear(f"encoder.{embed}.out.0", size, size)
        yield from _norm(f"encoder.{embed}.out.1", size)
    yield from _conv("encoder.pre_lookahead_layer.conv1", size, size, encoder["lookahead"] + 1)
    yield from _conv("encoder.pre_lookahead_layer.conv2", size, size, 3)
    yield from _conv("encoder.up_layer.conv", size, size, 5)
    yield from _norm("encoder.after_norm", size)
    for stack, layers in (("encoders", encoder["layers"]), ("up_encoders", encoder["up_layers"])):
        for layer in range(layers):
            yield from _under(f"encoder.{stack}.{layer}", _conformer_layer(size, encoder["heads"], encoder["ffn_size"]))
    yield from _under("decoder.estimator", _estimator(c["estimator"], mels))


def _conformer_layer(size: int, heads: int, ffn: int) -> Named:
    for bias in ("u", "v"):
        yield f"self_attn.pos_bias_{bias}", (heads, size // heads)
    for name in ("q", "k", "v", "out"):
        yield from _linear(f"self_attn.linear_{name}", size, size)
    yield from _linear("self_attn.linear_pos", size, size, bias=False)
    yield from _linear("feed_forward.w_1", ffn, size)
    yield from _linear("feed_forward.w_2", size, ffn)
    yield from _norm("norm_ff", size)
    yield from _norm("norm_mha", size)


def _estimator(c: Mapping[str, Any], mels: int) -> Named:
    size, time = c["channels"], 4 * c["channels"]
    yield from _linear("time_mlp.linear_1", time, 4 * mels)
    yield from _linear("time_mlp.linear_2", time, time)
    yield "time_embed_mixer.weight", (time, 2 * time)
    blocks = [
        ("down_blocks.0", 4 * mels),
        *((f"mid_blocks.{i}", size) for i in range(c["mid_blocks"])),
        ("up_blocks.0", 2 * size),
    ]
    for at, inputs in blocks:
        yield from _linear(f"{at}.0.mlp.1", size, time)
        for block, width in (("block1", inputs), ("block2", size)):
            yield from _conv(f"{at}.0.{block}.block.0", size, width, 3)
            yield from _norm(f"{at}.0.{block}.block.2", size)
        yield from _conv(f"{at}.0.res_conv", size, inputs, 1)
        for i in range(c["blocks"]):
            yield from _under(f"{at}.1.{i}", _transformer_block(size, c["heads"] * c["head_size"]))
        if not at.startswith("mid"):
            yield from _conv(f"{at}.2", size, size, 3)
    yield from _conv("final_block.block.0", size, size, 3)
    yield from _norm("final_block.block.2", size)
    yield from _conv("final_proj", mels, size, 1)


def _transformer_block(size: int, inner: int) -> Named:
    yield from _norm("norm1", size)
    for name in ("q", "k", "v"):
        yield from _linear(f"attn1.to_{name}", inner, size, bias=False)
    yield from _linear("attn1.to_out.0", size, inner)
    yield from _norm("norm3", size)
    yield from _linear("ff.net.0.proj", 4 * size, size)
    yield from _linear("ff.net.2", size, 4 * size)


def _vocoder(s3gen: Mapping[str, Any]) -> Named:
    c, mels = s3gen["vocoder"], s3gen["mels"]
    base, bins = c["base_channels"], c["istft_size"] + 2
    yield from _linear("m_source.l_linear", 1, c["harmonics"] + 1)
    yield from _weight_norm("conv_pre", base, mels, 7)
    rates = c["upsample_rates"]
    for i, kernel in enumerate(c["upsample_kernels"]):
        width = base >> (i + 1)
        # ConvTranspose1d keeps [in, out, k], so that the gain is one per input channel.
        yield from _weight_norm(f"ups.{i}", 2 * width, width, kernel, bias=width)
        stride = 1
        for rate in rates[i + 1 :]:
            stride *= rate
        yield from _conv(f"source_downs.{i}", width, bins, 1 if stride == 1 else 2 * stride)
        dilations = len(c["resblock_dilations"])
        yield from _under(f"source_resblocks.{i}", _resblock(width, c["source_resblock_kernels"][i], dilations))
        for j, resblock_kernel in enumerate(c["resblock_kernels"]):
            at = f"resblocks.{i * len(c['resblock_kernels']) + j}"
            yield from _under(at, _resblock(width, resblock_kernel, dilations))
    yield from _weight_norm("conv_post", bins, base >> len(rates), 7)
    f0 = c["f0_channels"]
    for i in range(5):
        yield from _weight_norm(f"f0_predictor.condnet.{2 * i}", f0, f0 if i else mels, 3)
    yield from _linear("f0_predictor.classifier", 1, f0)


def _resblock(width: int, kernel: int, dilations: int) -> Named:
    for i in range(dilations):
        for convs in ("convs1", "convs2"):
            yield from _weight_norm(f"{convs}.{i}", width, width, kernel)
        for activations in ("activations1", "activations2"):
            yield f"{activations}.{i}.alpha", (width,)
