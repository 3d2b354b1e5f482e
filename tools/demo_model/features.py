"""The teacher's sentences as the trainings of the sound take them: samples, log-mel, fundamental frequency and speech tokens.

``kind="slots"`` is what ``align.py`` made (``WORK/align/*.pkl`` with ``WORK/sound/*.npy``): speech whose every 40 ms has a token.
``kind="natural"`` is what ``natural.py`` made (``WORK/natural/*.npz``): the teacher at its own pace, for the vocoder. What is computed
of a shard is kept in ``WORK/features``. A token is 960 samples at 24 kHz, 2 mel frames.
"""

from __future__ import annotations

import os
import pickle
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from chatterbox_turbo_rs.engine import token_loop
from chatterbox_turbo_rs.stages.s3gen import prompt_mel as spec
from chatterbox_turbo_rs.stages.shared.dsp import mel_filters
from tokens import SILENCE, codes

TOKEN = 960
"""Samples of a speech token."""
FRAME = 480
F0_HOP = {"slots": 240, "natural": 300}
"""Samples between two values of the teacher's frequency."""
VOICED = 40.0
"""Hz below which the teacher's frequency means that there is no voice."""
LEVEL = 0.9 / 32768
"""Of a 16-bit sample: brings the teacher's speech to the -27 LUFS that ``reference.loudness`` gives a reference clip."""
CLOSING, CLOSED = token_loop.SILENCE_TOKENS, 0.25
"""Tokens of silence that end an utterance, and the share of pieces that end so."""
HELD_OUT = 40
"""Sentences of the held-out shard that the trainings look at."""


@lru_cache(maxsize=1)
def _mel_parts() -> tuple[Tensor, Tensor]:
    filters = torch.from_numpy(mel_filters(spec.RATE, spec.FFT_SIZE, spec.MELS, spec.HIGHEST))
    return torch.hann_window(spec.FFT_SIZE), filters


def magnitudes(wave: Tensor) -> Tensor:
    """The spectrum under the mel, with a gradient: float32 ``[B, n]`` → ``[B, 961, n // 480]``."""
    padded = F.pad(wave[:, None], (spec.PAD, spec.PAD), mode="reflect")[:, 0]
    spectrum = torch.stft(padded, spec.FFT_SIZE, spec.HOP, window=_mel_parts()[0], center=False, return_complex=True)
    return (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()


def log_mel(magnitude: Tensor) -> Tensor:
    """``[B, 961, F]`` → ``[B, 80, F]``."""
    return (_mel_parts()[1] @ magnitude).clamp(min=1e-5).log()


def mel(wave: Tensor) -> Tensor:
    """``s3gen.prompt_mel`` for batches: float32 ``[B, n]`` → ``[B, 80, n // 480]``."""
    return log_mel(magnitudes(wave))


def f0_at_frames(f0: np.ndarray, frames: int, hop: int) -> np.ndarray:
    """The teacher's frequency (Hz, one every ``hop`` samples) in the middle of every mel frame, 0 without a voice: ``[frames]``."""
    place = np.clip((FRAME * np.arange(frames) + FRAME / 2) / hop - 0.5, 0, len(f0) - 1)
    left = np.floor(place).astype(int)
    right = np.minimum(left + 1, len(f0) - 1)
    share = (place - left).astype(np.float32)
    a, b = f0[left], f0[right]
    both = (a >= VOICED) & (b >= VOICED)
    nearest = np.where(share < 0.5, a, b)
    return np.where(both, (1 - share) * a + share * b, np.where(nearest >= VOICED, nearest, 0)).astype(np.float32)


def shard(work: Path, kind: str, name: str) -> dict[str, np.ndarray]:
    """``wave`` int16, ``n`` tokens of every sentence, ``tokens``, ``mel`` float16 ``[frames, 80]`` and ``f0`` ``[frames]``."""
    if kind == "natural":
        with np.load(work / kind / f"{name}.npz") as file:
            wave, n, tokens, f0, counts = (file[key] for key in ("wave", "n", "tokens", "f0", "nf"))
        frequencies = np.split(f0, np.cumsum(counts)[:-1])
    else:
        items = pickle.loads((work / "align" / f"{name}.pkl").read_bytes())
        wave, n = np.load(work / "sound" / f"{name}.npy"), np.array([len(item["phone"]) for item in items])
        tokens = np.concatenate([codes(item)[0] for item in items]).astype(np.int16)
        frequencies = [item["f0"] for item in items]
    path = work / "features" / f"{kind}-{name}.npz"
    if not path.exists():
        _compute(path, wave, n, frequencies, F0_HOP[kind])
    with np.load(path) as file:
        return {"wave": wave, "n": n, "tokens": tokens, "mel": file["mel"], "f0": file["f0"]}


def _compute(path: Path, wave: np.ndarray, n: np.ndarray, frequencies: list[np.ndarray], hop: int) -> None:
    """Mel and frequency of a shard's sentences, into a file."""
    mels = []
    for part in np.split(wave, TOKEN * np.cumsum(n)[:-1]):
        mels.append(mel(torch.from_numpy(part.astype(np.float32) * np.float32(LEVEL))[None])[0].T.half().numpy())
    f0 = [f0_at_frames(values, 2 * count, hop) for values, count in zip(frequencies, n)]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.part")
    with open(temporary, "wb") as out:
        np.savez(out, mel=np.concatenate(mels), f0=np.concatenate(f0))
    temporary.replace(path)


def names(work: Path, kind: str) -> list[str]:
    """The shards that are there, the held-out one not among them."""
    pattern = "sound/*.npy" if kind == "slots" else f"{kind}/*.npz"
    found = sorted(path.stem for path in work.glob(pattern) if path.stem != "held_out")
    if not found:
        raise SystemExit(f"{work}/{pattern}: expected shards, found none")
    return found


class Data:
    """All sentences, one behind the other; ``starts`` and ``n`` count tokens. ``mels``: a folder of mels to be given in place of
    the true ones (``KIND-NAME.npy``). ``heard``: with the tokenizer's tokens (``heard.py``).
    """

    def __init__(
        self, work: Path, kind: str = "slots", held_out: bool = False, mels: str | None = None, heard: bool = False
    ) -> None:
        shards = ["held_out"] if held_out else names(work, kind)
        parts: dict[str, list[np.ndarray]] = {}
        for name in shards:
            values = shard(work, kind, name)
            if heard:
                values["tokens"] = np.load(work / "heard" / f"{name}.npy")
            if mels is not None:
                values["given"] = np.load(Path(mels) / f"{kind}-{name}.npy")
            for key, array in values.items():
                parts.setdefault(key, []).append(array)
        joined = {key: np.concatenate(arrays) for key, arrays in parts.items()}
        if held_out:
            tokens = int(joined["n"][:HELD_OUT].sum())
            rates = {"wave": TOKEN, "mel": 2, "f0": 2, "given": 2, "tokens": 1}
            joined = {key: array[: rates[key] * tokens] if key in rates else array[:HELD_OUT] for key, array in joined.items()}
        self.n, self.wave, self.f0, self.mel = joined["n"], joined["wave"], joined["f0"], joined["mel"]
        self.tokens, self.given = joined["tokens"].astype(np.int64), joined.get("given", self.mel)
        self.starts = np.concatenate([[0], np.cumsum(self.n)])

    def hours(self) -> float:
        return float(self.n.sum()) / 25 / 3600

    def sound_batch(self, rng: np.random.Generator, batch: int, frames: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pieces of speech: given mel and true mel ``[B, 80, F]``, frequency ``[B, F]``, samples ``[B, 480 F]``."""
        possible = np.flatnonzero(2 * self.n >= frames)
        which = rng.choice(possible, batch, p=self.n[possible] / self.n[possible].sum())
        at = [2 * int(self.starts[i]) + int(rng.integers(2 * self.n[i] - frames + 1)) for i in which]
        given, true = (
            torch.from_numpy(np.stack([array[k : k + frames] for k in at])).float().transpose(1, 2).contiguous()
            for array in (self.given, self.mel)
        )
        f0 = torch.from_numpy(np.stack([self.f0[k : k + frames] for k in at]))
        wave = np.stack([self.wave[FRAME * k : FRAME * (k + frames)] for k in at])
        return given, true, f0, LEVEL * torch.from_numpy(wave).float()

    def stream_batch(self, rng: np.random.Generator, batch: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Pieces of the stream of all sentences: ids int64 ``[B, T]``, mel ``[B, 80, 2T]``.

        Most ignore the borders of sentences; some end with a sentence and the silence that inference puts behind it.
        """
        ids, mels = [], []
        for _ in range(batch):
            closing = CLOSING if rng.random() < CLOSED else 0
            kept = tokens - closing
            ends = self.starts[np.searchsorted(self.starts, kept) :]
            end = int(rng.choice(ends)) if closing else int(rng.integers(kept, len(self.tokens) + 1))
            ids.append(np.concatenate([self.tokens[end - kept : end], np.full(closing, SILENCE)]))
            mel = self.mel[2 * (end - kept) : 2 * end]
            mels.append(np.concatenate([mel, np.repeat(mel[-1:], 2 * closing, axis=0)]))
        return torch.from_numpy(np.stack(ids)), torch.from_numpy(np.stack(mels)).float().transpose(1, 2).contiguous()
