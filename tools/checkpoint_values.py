"""Random values for every tensor of a checkpoint, with scales that keep the signal alive in every stage.

Every tensor has its own Philox4x64 stream, keyed by the seed and the tensor's name, so that no value depends on the order in
which tensors are made. The generator's raw bits become odd multiples of 2^-23 in (-1, 1): exact in float32, never zero, and the
same on every machine and NumPy. A rule per kind of tensor then says ``offset + width * uniform``.

Nothing is left at a neutral value: normalisation statistics, snake alphas, the time mixer, weight-norm gains and the
S3Tokenizer's own mel filters and window are random as well.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator

import numpy as np

from checkpoint_layout import Shape

CHUNK = 1 << 22
SQRT3 = math.sqrt(3.0)

# Name pattern -> (offset, standard deviation); "fan" and "rows" divide by the square root of the number of inputs of one
# output, "balanced" takes the mean out of every row, so that the level of a log-mel does not drown its changes.
# Searched in order, in the name with its file's group in front ("t3.", "s3gen.", "ve.").
RULES: tuple[tuple[str, float, float, str], ...] = (
    # voice encoder
    (r"^ve\.similarity_weight", 10.0, 1.0, ""),
    (r"^ve\.similarity_bias", -5.0, 1.0, ""),
    (r"^ve\.lstm\.weight_ih_l0", 0.0, 2.0, "fan"),
    (r"^ve\.lstm\.weight", 0.0, 1.5, "fan"),
    (r"^ve\.lstm\.bias", 0.0, 0.1, ""),
    (r"^ve\.proj\.weight", 0.0, 3.0, "fan"),
    (r"^ve\.proj\.bias", 0.0, 0.1, ""),
    # T3
    (r"^t3\.(text_emb|speech_emb|tfmr\.wte)\.weight", 0.0, 1.0, ""),
    (r"^t3\.tfmr\.wpe\.weight", 0.0, 0.5, ""),
    (r"^t3\.cond_enc\.spkr_enc\.weight", 0.0, 1.0, ""),
    (r"^t3\..*c_attn\.weight", 0.0, 1.3, "rows"),
    (r"^t3\..*c_fc\.weight", 0.0, 1.0, "rows"),
    (r"^t3\..*c_proj\.weight", 0.0, 0.8, "rows"),
    (r"^t3\.(speech|text)_head\.weight", 0.0, 2.5, "fan"),
    (r"^t3\.speech_head\.bias", 0.0, 0.3, ""),
    # S3Tokenizer
    (r"tokenizer\.encoder\.conv\d\.weight", 0.0, 1.5, "fan"),
    (r"tokenizer.*fsmn_block\.weight", 0.0, 0.5, "fan"),
    (r"tokenizer.*attn\.(query|key)\.weight", 0.0, 1.2, "fan"),
    (r"tokenizer.*project_down\.weight", 0.0, 0.8, "fan"),
    (r"tokenizer.*project_down\.bias", 0.0, 0.1, ""),
    # CAMPPlus
    (r"num_batches_tracked", 0.0, 0.0, "count"),
    (r"running_mean", 0.0, 0.2, ""),
    (r"running_var", 1.0, 0.25, ""),
    (r"speaker_encoder.*(bn\d|shortcut\.1|batchnorm)\.weight", 1.0, 0.2, ""),
    (r"speaker_encoder.*(bn\d|shortcut\.1|batchnorm)\.bias", 0.0, 0.2, ""),
    (r"speaker_encoder\.head\.conv1\.weight", 0.0, 0.7, "fan"),
    (r"speaker_encoder.*cam_layer.*bias", 0.0, 0.2, ""),
    (r"speaker_encoder.*weight", 0.0, 1.2, "fan"),
    # flow encoder; the input's norm is multiplied by sqrt(hidden size), so its gain is divided by it
    (r"flow\.input_embedding\.weight", 0.0, 1.0, ""),
    (r"flow\.encoder\.(up_)?embed\.out\.1\.(weight|bias)", 1.5, 0.3, "root"),
    (r"flow\.encoder.*pos_bias", 0.0, 0.3, ""),
    (r"flow\.encoder.*linear_(q|k|pos)\.weight", 0.0, 1.0, "fan"),
    (r"flow\.encoder_proj\.weight", 0.0, 1.5, "fan"),
    (r"flow\.encoder_proj\.bias", -4.0, 1.0, ""),
    (r"flow\.spk_embed_affine_layer\.weight", 0.0, 1.0, ""),
    # estimator; its last bias puts the output where log-mels are
    (r"time_embed_mixer\.weight", 0.0, 1.0, "fan"),
    (r"estimator.*attn1\.to_(q|k)\.weight", 0.0, 1.2, "fan"),
    (r"estimator.*res_conv\.weight", 0.0, 0.8, "fan"),
    (r"estimator\.final_proj\.weight", 0.0, 4.0, "fan"),
    (r"estimator\.final_proj\.bias", -5.0, 1.0, ""),
    # vocoder
    (r"m_source\.l_linear\.weight", 0.0, 1.0, ""),
    (r"m_source\.l_linear\.bias", 0.0, 0.02, ""),
    (r"mel2wav.*alpha$", 1.0, 0.25, ""),
    (r"f0_predictor\.condnet\.0.*original1$", 0.0, 1.0, "balanced"),
    (r"mel2wav.*original1$", 0.0, 1.0, ""),
    (r"mel2wav\.conv_pre.*original0$", 0.3, 0.05, ""),
    (r"mel2wav\.ups\.0.*original0$", 2.0, 0.2, ""),
    (r"mel2wav\.ups\.1.*original0$", 1.6, 0.2, ""),
    (r"mel2wav\.ups\.2.*original0$", 1.2, 0.15, ""),
    (r"mel2wav\.conv_post.*original0$", 0.35, 0.05, ""),
    (r"mel2wav\.conv_post\.bias", -0.8, 0.3, ""),
    (r"f0_predictor\.condnet\.0.*original0$", 1.0, 0.15, ""),
    (r"f0_predictor\.condnet.*original0$", 1.2, 0.15, ""),
    (r"f0_predictor\.classifier\.weight", 0.0, 170.0, "fan"),
    (r"f0_predictor\.classifier\.bias", 60.0, 5.0, ""),
    (r"mel2wav.*convs1.*original0$", 0.7, 0.1, ""),
    (r"mel2wav.*convs2.*original0$", 0.4, 0.1, ""),
    (r"source_downs.*weight", 0.0, 3.0, "fan"),
    # everything else
    (r"(norm\w*|ln(_\w+)?|_ln|block\.2|out\.1)\.weight$", 1.0, 0.2, ""),
    (r"bias$", 0.0, 0.1, ""),
    (r"weight$", 0.0, 1.0, "fan"),
)
_RULES = tuple((re.compile(pattern), *rest) for pattern, *rest in RULES)

# Far enough below the other logits that generation goes on until the caller's limit.
STOP_LOGIT = -8.0


def uniforms(seed: int, name: str, count: int) -> Iterator[np.ndarray]:
    """``count`` float32 values in (-1, 1), a chunk at a time: odd multiples of 2^-23 from the stream (seed, name)."""
    digest = hashlib.sha256(f"chatterbox-turbo checkpoint {seed} {name}".encode()).digest()
    bits = np.random.Philox(key=np.frombuffer(digest[:16], "<u8").astype(np.uint64))
    for start in range(0, count, CHUNK):
        n = min(CHUNK, count - start)
        raw = bits.random_raw((n + 1) // 2).astype("<u8").view("<u4")[:n]
        odd = (raw >> np.uint32(9)).view(np.int32)
        odd <<= 1
        odd -= (1 << 23) - 1
        value = odd.astype(np.float32)
        value *= np.float32(2.0**-23)
        yield value


def rule(group: str, name: str, shape: Shape) -> tuple[float, float, str]:
    """Offset, half-width and kind of the uniform distribution of one tensor."""
    full = f"{group}.{name}"
    for pattern, offset, deviation, kind in _RULES:
        if pattern.search(full):
            if kind == "fan":
                deviation /= math.sqrt(math.prod(shape[1:]))
            elif kind == "rows":
                deviation /= math.sqrt(shape[0])
            elif kind == "root":
                offset, deviation = offset / math.sqrt(shape[0]), deviation / math.sqrt(shape[0])
                offset = offset if name.endswith("weight") else 0.0
            return offset, SQRT3 * deviation, kind
    raise ValueError(f"no rule for tensor {full}")


def values(group: str, name: str, shape: Shape, seed: int, stop_token: int) -> Iterator[np.ndarray]:
    """The tensor's values in order, in flat float32 (int64 for counters) pieces."""
    count = math.prod(shape)
    if name.endswith("_mel_filters") or name.endswith("tokenizer.window"):
        noise = np.concatenate(list(uniforms(seed, name, count)))
        yield _filters(noise.reshape(shape)).ravel() if name.endswith("_mel_filters") else _window(noise)
        return
    offset, width, kind = rule(group, name, shape)
    for piece in uniforms(seed, name, count):
        if kind == "count":
            yield (100_000 + 50_000 * piece.astype(np.float64)).astype(np.int64)
            continue
        piece *= np.float32(width)
        piece += np.float32(offset)
        if kind == "balanced":
            rows = piece.reshape(shape[0], -1)
            piece = (rows - rows.mean(axis=1, keepdims=True, dtype=np.float64)).astype(np.float32).ravel()
        if name == "speech_head.bias":
            piece[stop_token] += np.float32(STOP_LOGIT)
        yield piece


def slaney_filters(rate: float, fft: int, bands: int) -> np.ndarray:
    """Triangular filters on Slaney's mel scale, each of unit area, [bands, fft / 2 + 1] float64 (as ``librosa.filters.mel``).

    Source: Slaney, "Auditory Toolbox", Interval Research technical report 1998-010.
    """
    step = math.log(6.4) / 27.0
    top = rate / 2
    mels = np.linspace(0.0, 15.0 + math.log(top / 1000.0) / step if top >= 1000.0 else top * 3.0 / 200.0, bands + 2)
    edges = np.where(mels < 15.0, mels * 200.0 / 3.0, 1000.0 * np.exp(step * (mels - 15.0)))
    bins = np.arange(fft // 2 + 1) * rate / fft
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))[:, None]


def _filters(noise: np.ndarray) -> np.ndarray:
    real = slaney_filters(16000.0, 2 * (noise.shape[1] - 1), noise.shape[0])
    return (real * (1.0 + 0.2 * noise) + 1e-7 * (1.0 + noise)).astype(np.float32)


def _window(noise: np.ndarray) -> np.ndarray:
    hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(noise.size) / noise.size)
    return (hann * (1.0 + 0.05 * noise) + 1e-3 * (1.0 + noise)).astype(np.float32)
