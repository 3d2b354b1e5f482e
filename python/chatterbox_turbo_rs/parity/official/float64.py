"""Official functions in float64, for inputs on which their float32 transforms are noisier than the tolerance.

The mel of S3Gen at a band without any signal is the logarithm of rounding noise: there the official function differs from
itself in float64 by up to 1e-3, which says nothing about another implementation. Runs in the official environment.
"""

from __future__ import annotations

import numpy as np
import torch
from chatterbox.models.s3gen.utils import mel


def s3gen_prompt_mel(samples: np.ndarray) -> np.ndarray:
    """``mel_spectrogram`` of upstream over float64, with its own float32 window and filters: float64 [M, 80]."""
    mel.mel_spectrogram(torch.from_numpy(samples)[None])  # fills the tables
    tables = (mel.mel_basis, mel.hann_window)
    kept = [dict(table) for table in tables]
    for table in tables:
        table.update({key: value.double() for key, value in table.items()})
    try:
        return mel.mel_spectrogram(torch.from_numpy(samples).double()[None])[0].numpy().T
    finally:
        for table, values in zip(tables, kept, strict=True):
            table.update(values)
