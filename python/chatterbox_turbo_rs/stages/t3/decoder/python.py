"""`t3.decoder` in PyTorch: GPT-2 over ``[speaker | prompt tokens | text ids | start token | generated tokens]``.

``T3`` is the network, for training too: batches in, logits [B, S, speech_vocab] of every speech token out. ``Decoder`` and
``Session`` are the stage of ``__init__.py`` over it, with the keys and values of an utterance in one preallocated cache.
C is the width, H the number of heads, D = C / H.

Source: ``T3.prepare_input_embeds`` and ``inference_turbo`` of ``src/chatterbox/models/t3/t3.py``, ``T3CondEnc`` of
``modules/cond_enc.py`` beside it, both of resemble-ai/chatterbox at 5de7a54; ``GPT2Model`` of transformers 5.2.0 with
``GPT2_medium`` of ``llama_configs.py``. ``text_head`` (the loss on text) and ``tfmr.wte`` (GPT-2's own table) are left out.
"""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....checkpoint.resources import Resources
from ....checkpoint.tensor_file import TensorFile
from ....errors import ArgumentError, CheckpointError
from ...shared import arrays, torch_network
from . import Callback


def create(resources: Resources) -> Decoder:
    return Decoder(resources)


class Conv1D(nn.Module):
    """GPT-2's linear layer, whose weight is [in, out]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        return torch.addmm(self.bias, x.flatten(0, 1), self.weight).unflatten(0, (b, t))


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, (size // heads) ** -0.5
        self.c_attn, self.c_proj = Conv1D(size, 3 * size), Conv1D(size, size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: Tensor | None, start: int) -> Tensor:
        """x [B, T, C] and, where there is a cache, what it holds of the ``start`` rows before (see ``GPT2.forward``)."""
        b, t, c = x.shape
        packed = self.c_attn(x).view(b, t, 3, self.heads, c // self.heads)
        q, k, v = packed.permute(2, 0, 3, 1, 4)  # [B, H, T, D] each
        if cache is not None:
            cache[0, :, :, start : start + t], cache[1, :, :, start : start + t] = k, v
            k, v = cache[:, :, :, : start + t]  # [B, H, start + T, D] each, without a copy
        p = self.dropout.p if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=t > 1, scale=self.scale)
        return self.dropout(self.c_proj(y.transpose(1, 2).reshape(b, t, c)))


class GELUTanh(nn.Module):
    """``gelu_new``, operation by operation as upstream, which gives the same bits; ``nn.GELU("tanh")`` rounds otherwise."""

    name = "gelu_tanh"

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


class MLP(nn.Module):
    def __init__(self, size: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.c_fc, self.c_proj = Conv1D(size, inner), Conv1D(inner, size)
        self.act = GELUTanh()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.c_proj(self.act(self.c_fc(x))))


class Block(nn.Module):
    def __init__(self, size: int, heads: int, inner: int, eps: float, dropout: float) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(size, eps), Attention(size, heads, dropout)
        self.ln_2, self.mlp = nn.LayerNorm(size, eps), MLP(size, inner, dropout)

    def forward(self, x: Tensor, cache: Tensor | None, start: int) -> Tensor:
        x = x + self.attn(self.ln_1(x), cache, start)
        return x + self.mlp(self.ln_2(x))


class GPT2(nn.Module):
    """The backbone; its rows are embeddings, which it adds the position table to."""

    def __init__(self, c: Mapping[str, Any], dropout: float) -> None:
        super().__init__()
        size, eps = c["hidden_size"], c["norm_eps"]
        self.wpe = nn.Embedding(c["positions"], size)
        self.drop = nn.Dropout(dropout)
        self.h = nn.ModuleList(Block(size, c["heads"], c["ffn_size"], eps, dropout) for _ in range(c["layers"]))
        self.ln_f = nn.LayerNorm(size, eps)

    def forward(
        self, x: Tensor, cache: Tensor | None = None, start: int = 0, report: Callable[[int, int], Any] | None = None
    ) -> Tensor:
        """x [B, T, C] at the positions from ``start`` on → [B, T, C]; ``report(blocks done, blocks)`` after every block.

        ``cache`` [layers, keys and values, B, H, positions, D] is filled with these rows. With rows before them (``start``
        above 0) they come one at a time.
        """
        t = x.shape[1]
        if start and (cache is None or t != 1):
            raise ValueError(
                f"start {start}: expected a cache and 1 row, got {'no' if cache is None else 'a'} cache and {t} rows"
            )
        x = self.drop(x + self.wpe.weight[start : start + t])
        for i, block in enumerate(self.h):
            x = block(x, None if cache is None else cache[i], start)
            if report is not None:
                report(i + 1, len(self.h))
        return self.ln_f(x)


class T3(nn.Module):
    """The network at the sizes of a configuration; ``dropout`` is upstream's, for training."""

    def __init__(self, config: Mapping[str, Any], dropout: float = 0.1) -> None:
        super().__init__()
        c = config["t3"]
        size = c["hidden_size"]
        self.start_token, self.stop_token = c["start_token"], c["stop_token"]
        self.cond_enc = nn.ModuleDict({"spkr_enc": nn.Linear(config["voice_encoder"]["embedding_size"], size)})
        self.text_emb = nn.Embedding(config["text"]["vocab_size"], size)
        self.speech_emb = nn.Embedding(c["speech_vocab"], size)
        self.tfmr = GPT2(c, dropout)
        self.speech_head = nn.Linear(size, c["speech_vocab"])

    def embed(self, speaker: Tensor, prompt: Tensor, text: Tensor, speech: Tensor) -> Tensor:
        """speaker [B, E], prompt [B, P], text [B, T], speech [B, S] (from the start token on) → [B, 1 + P + T + S, C]."""
        spoken = self.cond_enc["spkr_enc"](speaker)[:, None]  # [B, 1, C]
        return torch.cat([spoken, self.speech_emb(prompt), self.text_emb(text), self.speech_emb(speech)], dim=1)

    def forward(self, speaker: Tensor, prompt: Tensor, text: Tensor, speech: Tensor) -> Tensor:
        """Logits [B, S, speech_vocab]: row i is for the token after ``speech[:, i]``."""
        hidden = self.tfmr(self.embed(speaker, prompt, text, speech))
        return self.speech_head(hidden[:, -speech.shape[1] :])


class Decoder:
    """The contract's ``Decoder``."""

    prefix = ""

    def __init__(self, resources: Resources) -> None:
        config, file = resources.config, resources.tensors("t3")
        self.device = torch_network.device(resources.device)
        self._prompt_tokens = config["t3"]["prompt_tokens"]
        with torch.device("meta"):  # no time spent on random weights
            module = T3(config)
        _expect_shape(file, "tfmr.wte.weight", module.text_emb.weight)
        _expect_shape(file, "text_head.weight", module.text_emb.weight)
        unused = ("tfmr.wte.weight", "text_head.weight")
        self.module = torch_network.load(module.to_empty(device=self.device), file, unused=unused)
        self.start_token, self.stop_token = self.module.start_token, self.module.stop_token

    def start(self, speaker_embedding: np.ndarray, prompt_tokens: np.ndarray, text_ids: np.ndarray, max_tokens: int) -> Session:
        """See the contract in ``__init__.py``."""
        speaker = arrays.vector("speaker_embedding", speaker_embedding)
        prompt, text = arrays.ids("prompt_tokens", prompt_tokens), arrays.ids("text_ids", text_ids)
        steps, module = _whole("max_tokens", max_tokens), self.module
        size, positions = module.cond_enc["spkr_enc"].in_features, module.tfmr.wpe.num_embeddings
        if len(speaker) != size:
            raise ArgumentError(f"speaker_embedding: expected {size} numbers, got {len(speaker)}")
        bad = np.flatnonzero(~np.isfinite(speaker))
        if len(bad):
            found = arrays.number(speaker[bad[0]])
            raise ArgumentError(f"speaker_embedding: expected finite numbers, got {found} at position {bad[0]}")
        if len(prompt) > self._prompt_tokens:
            raise ArgumentError(f"prompt_tokens: expected at most {self._prompt_tokens} tokens, got {len(prompt)}")
        if not len(text):
            raise ArgumentError("text_ids: expected at least 1 id, got none")
        arrays.table("prompt_tokens", prompt, module.speech_emb.num_embeddings)
        arrays.table("text_ids", text, module.text_emb.num_embeddings)
        needed = 2 + len(prompt) + len(text) + steps
        if needed > positions:
            raise ArgumentError(
                f"text_ids and max_tokens: expected at most {positions} positions, got {needed} "
                f"(2 + {len(prompt)} prompt tokens + {len(text)} text ids + {steps} steps)"
            )
        speech = np.array([self.start_token])
        return Session(module, [torch_network.tensor(value, self.device) for value in (speaker, prompt, text, speech)], steps)

    def hyperparameters(self) -> dict[str, Any]:
        """What the network is built and run with, as the loaded module has it."""
        module, block = self.module, self.module.tfmr.h[0]
        return {
            "hidden_size": module.tfmr.wpe.embedding_dim,
            "layers": len(module.tfmr.h),
            "heads": block.attn.heads,
            "ffn_size": block.mlp.c_fc.weight.shape[1],
            "positions": module.tfmr.wpe.num_embeddings,
            "norm_eps": block.ln_1.eps,
            "activation": getattr(block.mlp.act, "name", type(block.mlp.act).__name__.lower()),
            "text_vocab": module.text_emb.num_embeddings,
            "speech_vocab": module.speech_head.out_features,
            "start_token": self.start_token,
            "stop_token": self.stop_token,
            "attention_scale": block.attn.scale,
            "head_bias": module.speech_head.bias is not None,
        }


class Session:
    """The contract's ``Session``."""

    def __init__(self, module: T3, inputs: list[Tensor], steps: int) -> None:
        self._module, self._inputs, self._steps = module, inputs, steps
        self._cache: Tensor | None = None
        self._length = self._beginning = 0  # rows in the cache; those of the prefill
        self._lock = threading.Lock()

    @torch.inference_mode()
    def prefill(self, callback: Callback | None = None) -> np.ndarray:
        """See the contract; ``callback("t3.prefill", blocks done, blocks)`` is called after every block."""
        with self._alone():
            self._cache = None
            report = None if callback is None else lambda done, total: callback("t3.prefill", done, total)
            x = self._module.embed(*self._inputs)  # [1, 2 + P + T, C]
            rows, block = x.shape[1], self._module.tfmr.h[0].attn
            shape = (len(self._module.tfmr.h), 2, 1, block.heads, rows + self._steps, x.shape[2] // block.heads)
            cache = x.new_empty(shape)
            logits = self._logits(self._module.tfmr(x, cache, 0, report))
            self._cache, self._length, self._beginning = cache, rows, rows
            return logits

    @torch.inference_mode()
    def step(self, token: int) -> np.ndarray:
        """See the contract."""
        with self._alone():
            if self._cache is None:
                raise ArgumentError("step: expected a session after prefill, got one before it")
            ids = arrays.table("token", np.array([operator.index(token)]), self._module.speech_emb.num_embeddings)
            if self._length - self._beginning >= self._steps:
                raise ArgumentError(f"step: expected at most max_tokens = {self._steps} steps, got one more")
            x = self._module.speech_emb(torch_network.tensor(ids, self._cache.device))  # [1, 1, C]
            logits = self._logits(self._module.tfmr(x, self._cache, self._length))
            self._length += 1
            return logits

    def _logits(self, hidden: Tensor) -> np.ndarray:
        return torch_network.array(self._module.speech_head(hidden[:, -1:]))[0]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise ArgumentError("session: expected one thread at a time, another one is using it")
        try:
            yield
        finally:
            self._lock.release()


def _whole(name: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number < 1 << 64:
        raise ArgumentError(f"{name}: expected a whole number from 0 to 2^64 - 1, got {value!r}")
    return number


def _expect_shape(file: TensorFile, name: str, like: Tensor) -> None:
    """An unused tensor may be missing; another shape means another model."""
    shape = tuple(like.shape)
    if name in file.names() and file.shape(name) != shape:
        raise CheckpointError(f"{file.path}: tensor {name}: expected shape {list(shape)}, found {list(file.shape(name))}")
