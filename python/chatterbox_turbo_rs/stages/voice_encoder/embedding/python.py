"""``voice_encoder.embedding`` in PyTorch; see the contract in ``__init__.py``.

``VoiceEncoder`` turns partials ``[B, 160, 40]`` into vectors ``[B, 256]`` of length 1; ``Embedding`` cuts a clip into partials and
averages their vectors. Source: ``src/chatterbox/models/voice_encoder/voice_encoder.py`` at 5de7a54 (GE2E, arXiv:1710.10467).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ....checkpoint.resources import Resources
from ....constants import ENCODER_RATE
from ....errors import AudioError, ConfigError
from ...shared import arrays, torch_network

STAGE = "voice_encoder.embedding"
RATE = ENCODER_RATE
"""Samples a second of the clip behind the mel spectrogram."""
BATCH = 32
"""Partials that go through the network together, at most."""


class VoiceEncoder(nn.Module):
    """The LSTM voice encoder; ``config`` is the section ``voice_encoder`` of the configuration.

    ``similarity_weight`` and ``similarity_bias`` scale the cosines in the training loss and have no part in an embedding.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.partial_frames: int = config["partial_frames"]
        self.partials_per_second: float = config["partials_per_second"]
        self.min_coverage: float = config["min_coverage"]
        self.lstm = nn.LSTM(config["mels"], config["hidden_size"], num_layers=config["layers"], batch_first=True)
        self.proj = nn.Linear(config["hidden_size"], config["embedding_size"])
        self.final_activation = F.relu
        self.similarity_weight = nn.Parameter(torch.tensor([10.0]))
        self.similarity_bias = nn.Parameter(torch.tensor([-5.0]))

    def forward(self, partials: torch.Tensor) -> torch.Tensor:
        """``[B, partial_frames, mels]`` → ``[B, embedding_size]``, of length 1; NaN where nothing is activated."""
        _, (hidden, _) = self.lstm(partials)  # [layers, B, hidden_size]
        raw = self.final_activation(self.proj(hidden[-1]))
        return raw / torch.linalg.norm(raw, dim=1, keepdim=True)

    @property
    def step(self) -> int:
        """Frames between the starts of two partials. Upstream divides by the partial's length where it means the mel's hop."""
        return round(RATE / self.partials_per_second / self.partial_frames)

    def partials(self, mel: torch.Tensor) -> torch.Tensor:
        """``[B, frames, mels]`` → ``[B, partials, partial_frames, mels]``, the last one filled up with zeros or left out."""
        frames, size, step = mel.shape[1], self.partial_frames, self.step
        count, rest = divmod(max(frames - size + step, 0), step)
        if count == 0 or (rest + size - step) / size >= self.min_coverage:
            count += 1
        end = size + step * (count - 1)
        mel = F.pad(mel[:, :end], (0, 0, 0, max(end - frames, 0)))
        return mel.unfold(1, size, step).transpose(2, 3).contiguous()  # unfold: [B, partials, mels, partial_frames]


class Embedding:
    """The stage over one loaded network."""

    prefix = ""

    def __init__(self, module: VoiceEncoder, device: torch.device) -> None:
        self.module = module
        self._device = device

    @torch.inference_mode()
    def __call__(self, mel: np.ndarray, callback: torch_network.Callback | None = None) -> np.ndarray:
        """``[frames, mels]`` → ``[embedding_size]``; progress is reported per batch of partials."""
        mel = arrays.frames("mel", mel, self.module.lstm.input_size)
        partials = self.module.partials(torch_network.tensor(mel, self._device))[0]
        batches = partials.chunk(-(-len(partials) // BATCH))
        advance = torch_network.reporter(STAGE, callback, len(batches))
        vectors = []
        for batch in batches:
            vectors.append(self.module(batch).cpu())
            advance()
        embeddings = torch.cat(vectors)  # [partials, embedding_size]
        self._require_voice(embeddings, len(mel))
        mean = embeddings.mean(dim=0, keepdim=True)
        return torch_network.array(mean / torch.linalg.norm(mean, dim=1, keepdim=True))

    def _require_voice(self, embeddings: torch.Tensor, frames: int) -> None:
        silent = torch.nonzero(~embeddings.isfinite().all(dim=1))
        if len(silent):
            start = int(silent[0]) * self.module.step
            raise AudioError(
                f"{STAGE}: expected a voice throughout the clip, found none in frames {start} to "
                f"{start + self.module.partial_frames} of {frames} (every activation of the voice encoder is zero)"
            )

    def hyperparameters(self) -> dict[str, Any]:
        """What the loaded module computes with."""
        module = self.module
        return {
            "mels": module.lstm.weight_ih_l0.shape[1],
            "hidden_size": module.lstm.weight_hh_l0.shape[1],
            "layers": module.lstm.num_layers,
            "embedding_size": module.proj.weight.shape[0],
            "partial_frames": module.partial_frames,
            "partials_per_second": module.partials_per_second,
            "min_coverage": module.min_coverage,
            "final_activation": module.final_activation.__name__,
        }


def create(resources: Resources) -> Embedding:
    """The stage with the checkpoint's weights, on the device of ``resources``."""
    device = torch_network.device(resources.device)
    module = torch_network.blank(lambda: VoiceEncoder(resources.config["voice_encoder"]), device)
    if not 1 <= module.step <= module.partial_frames:
        raise ConfigError(
            f"voice_encoder.partials_per_second: expected partials 1 to {module.partial_frames} frames apart, found {module.step}"
        )
    return Embedding(torch_network.load(module, resources.tensors("voice_encoder")), device)
