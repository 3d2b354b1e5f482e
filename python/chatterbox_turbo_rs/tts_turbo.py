"""Drop-in for ``chatterbox.tts_turbo``: change the import line, keep the rest.

Names, arguments, defaults and errors are those of ``src/chatterbox/tts_turbo.py`` of resemble-ai/chatterbox at commit
5de7a54. ``generate`` returns a torch tensor ``[1, n]`` where torch is installed and a NumPy array otherwise. Random draws
come from this package's own counter-based generator, seeded from torch's when torch is imported (so that
``torch.manual_seed`` reproduces an utterance) and from the system otherwise: single utterances differ from upstream's, their
distribution does not.
"""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from . import _core
from .checkpoint import conds_pt, locate, torch_archive
from .checkpoint import config as configuration
from .constants import ENCODER_RATE, SAMPLE_RATE
from .engine import devices
from .errors import AbsentError, ArgumentError, AudioError, CheckpointError, VoiceError
from .model import ChatterboxTurbo
from .stages.reference.load import MIN_SECONDS
from .tts_turbo_parts import Part, Tokenizer, Watermarker
from .voice import Voice

logger = logging.getLogger(__name__)

REPO_ID = "ResembleAI/chatterbox-turbo"
NANO_REPO_ID = "ResembleAI/chatterbox-nano"


def punc_norm(text: str) -> str:
    """Upstream's quick clean-up of punctuation (stage ``text.normalize``)."""
    from .stages.text.normalize.python import normalize

    return normalize(text)


@dataclass
class T3Cond:
    """T3's conditioning, as upstream names it; arrays are NumPy (torch tensors are accepted)."""

    speaker_emb: Any
    clap_emb: Any = None
    cond_prompt_speech_tokens: Any = None
    cond_prompt_speech_emb: Any = None
    emotion_adv: Any = 0.5

    def to(self, *, device: Any = None, dtype: Any = None) -> T3Cond:
        """Kept for compatibility: arrays live on the host."""
        del device, dtype
        return self

    def save(self, fpath: str | Path) -> None:
        """Writes the fields as a torch archive."""
        torch_archive.save(fpath, {name: _host(value) for name, value in vars(self).items()})

    @staticmethod
    def load(fpath: str | Path, map_location: Any = "cpu") -> T3Cond:
        """Reads what ``save`` wrote; nothing in it is executed."""
        del map_location
        return T3Cond(**torch_archive.read(fpath))


@dataclass
class Conditionals:
    """``t3`` (:class:`T3Cond`) and ``gen`` (S3Gen's reference dictionary), in upstream's file format."""

    t3: T3Cond
    gen: dict[str, Any]

    def to(self, device: Any) -> Conditionals:
        """Kept for compatibility: arrays live on the host."""
        del device
        return self

    def save(self, fpath: str | Path) -> None:
        """Writes a torch archive that ``torch.load(weights_only=True)`` and upstream read."""
        t3 = {name: _host(value) for name, value in vars(self.t3).items()}
        torch_archive.save(fpath, {"t3": t3, "gen": {name: _host(value) for name, value in self.gen.items()}})

    @classmethod
    def load(cls, fpath: str | Path, map_location: Any = "cpu") -> Conditionals:
        """Reads upstream's ``conds.pt``; nothing in it is executed. Raises ``FileNotFoundError`` and ``VoiceError``."""
        del map_location
        if not os.path.exists(fpath):
            raise FileNotFoundError(f"[Errno 2] No such file or directory: {os.fspath(fpath)!r}")
        try:
            t3, gen = conds_pt.sections(torch_archive.read(fpath))
            return cls(T3Cond(**t3), gen)
        except (VoiceError, CheckpointError, TypeError) as error:
            raise VoiceError(f"{fpath}: {error}") from None

    def voice(self) -> Voice:
        """The same voice for :class:`~chatterbox_turbo_rs.ChatterboxTurbo`."""
        t3 = {name: _host(value) for name, value in vars(self.t3).items()}
        return Voice(**conds_pt.from_dicts(t3, {name: _host(value) for name, value in self.gen.items()}))


class ChatterboxTurboTTS:
    """Upstream's class over this package's engine.

    ``watermarker`` marks every utterance, as upstream's does: another object with ``apply_watermark(wav, sample_rate)`` in its
    place, or another function in its ``apply_watermark``, does so instead, and None marks nothing. ``tokenizer`` has ``encode``.
    ``t3``, ``s3gen`` and ``ve``, upstream's torch modules, are an ``AttributeError`` that names what there is instead.
    """

    ENC_COND_LEN = 15 * ENCODER_RATE
    DEC_COND_LEN = 10 * SAMPLE_RATE
    t3 = Part()
    s3gen = Part()
    ve = Part()

    def __init__(
        self, engine: ChatterboxTurbo, device: str, conds: Conditionals | None = None, model_label: str = "Turbo"
    ) -> None:
        self.sr = engine.sample_rate
        self.engine = engine
        self.device = device
        self.conds = conds
        self.model_label = model_label
        self._last: Voice | None = None
        self._tokenizer = Tokenizer(engine)
        self._watermarker: Any = Watermarker(engine)

    @property
    def watermarker(self) -> Any:
        """What marks the sound: see the class."""
        return self._watermarker

    @watermarker.setter
    def watermarker(self, value: Any) -> None:
        if value is not None and not callable(getattr(value, "apply_watermark", None)):
            raise ArgumentError(
                f"watermarker: expected an object with apply_watermark(wav, sample_rate), or None, got {type(value).__name__}"
            )
        self._watermarker = value

    @property
    def tokenizer(self) -> Tokenizer:
        """``encode(text)`` gives T3's ids; for another vocabulary, ``ChatterboxTurbo.from_pretrained(…, tokenizer=PATH)``."""
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, value: object) -> NoReturn:
        raise AbsentError(
            "tokenizer: a loaded model keeps its own; ChatterboxTurbo.from_pretrained(…, tokenizer=PATH) takes another"
        )

    @classmethod
    def from_local(cls, ckpt_dir: str | os.PathLike[str], device: Any, nano: bool = False) -> ChatterboxTurboTTS:
        """Loads upstream's files from ``ckpt_dir``; where it holds both models, ``nano`` chooses."""
        return cls._wrap(ChatterboxTurbo._open(partial(_local, Path(ckpt_dir), nano), devices.named(device)), device, nano)

    @classmethod
    def from_pretrained(cls, device: Any, nano: bool = False) -> ChatterboxTurboTTS:
        """Downloads (once) and loads Turbo, or Nano with ``nano=True``; ``"mps"`` becomes the CPU where there is none."""
        if devices.named(device) == "metal" and "metal" not in _core.build_info()["features"]:
            logger.warning("MPS not available because this build has no Metal support; using the CPU.")
            device = "cpu"
        return cls._wrap(ChatterboxTurbo.from_pretrained("nano" if nano else "turbo", device=device), device, nano)

    @classmethod
    def _wrap(cls, engine: ChatterboxTurbo, device: Any, nano: bool) -> ChatterboxTurboTTS:
        conds = None
        if engine.builtin_voice is not None:
            t3, gen = conds_pt.to_dicts(engine.builtin_voice)
            conds = Conditionals(T3Cond(**t3), gen)
        return cls(engine, str(device), conds, "Nano" if nano else "Turbo")

    def norm_loudness(self, wav: np.ndarray, sr: int, target_lufs: float = -27) -> np.ndarray:
        """Scales ``wav`` to ``target_lufs`` (BS.1770), unchanged where the loudness is not finite."""
        import pyloudnorm

        try:
            gain = 10.0 ** ((target_lufs - pyloudnorm.Meter(sr).integrated_loudness(wav)) / 20.0)
            return wav * np.float32(gain) if np.isfinite(gain) and gain > 0.0 else wav
        except ValueError as error:
            logger.warning("Error in norm_loudness, skipping: %s", error)
            return wav

    def _voice(self, conds: Conditionals) -> Voice:
        """The voice of ``conds``: the last one where nothing has changed, since T3 keeps the prefix of a voice that it knows."""
        voice, last = conds.voice(), self._last
        if last is not None and voice.same_arrays(last):
            return last
        self._last = voice
        return voice

    def prepare_conditionals(self, wav_fpath: Any, exaggeration: float = 0.5, norm_loudness: bool = True) -> None:
        """Prepares ``self.conds`` from a clip longer than 5 seconds (AssertionError otherwise, as upstream)."""
        path = os.fspath(wav_fpath) if isinstance(wav_fpath, os.PathLike) else wav_fpath
        if isinstance(path, str) and not os.path.exists(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        try:
            voice = self.engine.voice(wav_fpath, loudness="bs1770" if norm_loudness else None)
        except AudioError as error:
            if f"must be longer than {MIN_SECONDS} s" in str(error):
                raise AssertionError("Audio prompt must be longer than 5 seconds!") from error
            raise
        t3, gen = conds_pt.to_dicts(voice, exaggeration)
        self.conds = Conditionals(T3Cond(**t3), gen)

    def generate(
        self,
        text: str,
        repetition_penalty: float = 1.2,
        min_p: float = 0.00,
        top_p: float = 0.95,
        audio_prompt_path: Any = None,
        exaggeration: float = 0.0,
        cfg_weight: float = 0.0,
        temperature: float = 0.8,
        top_k: int = 1000,
        norm_loudness: bool = True,
    ) -> Any:
        """Speaks ``text``; float32 ``[1, n]`` at ``self.sr``, watermarked. Raises upstream's errors for upstream's reasons."""
        if audio_prompt_path:
            self.prepare_conditionals(audio_prompt_path, exaggeration=exaggeration, norm_loudness=norm_loudness)
        else:
            assert self.conds is not None, "Please `prepare_conditionals` first or specify `audio_prompt_path`"
        conds: Any = self.conds
        if cfg_weight > 0.0 or exaggeration > 0.0 or min_p > 0.0:
            logger.warning(
                "CFG, min_p and exaggeration are not supported by the %s version and will be ignored.", self.model_label
            )
        _check_as_upstream(temperature, top_k, top_p, repetition_penalty)
        marker = self.watermarker
        if isinstance(marker, Watermarker):
            _ = marker.stage  # refuses before the work, not after it
        speech = self.engine.generate(
            text,
            voice=self._voice(conds),
            seed=_seed(),
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            repetition_penalty=repetition_penalty,
            watermark=None,
            split="never",
        )
        marked = speech.samples if marker is None else marker.apply_watermark(speech.samples, sample_rate=self.sr)
        samples = np.ascontiguousarray(_host(marked), np.float32).reshape(1, -1)
        if importlib.util.find_spec("torch") is None:
            return samples
        import torch

        return torch.from_numpy(samples)


def _local(directory: Path, nano: bool) -> tuple[Path, dict[str, Any]]:
    """A directory's files and configuration; where it holds both models, ``nano`` chooses."""
    found, config = locate.locate(directory)
    name = "nano" if nano else "turbo"
    if config["name"] in ("turbo", "nano") and config["name"] != name:
        config = configuration.builtin(name)
        missing = [file for file in config["files"].values() if not (found / file).is_file()]
        if missing:
            raise CheckpointError(f"{found}: missing {', '.join(missing)}, which nano={nano} needs")
    return found, config


def _check_as_upstream(temperature: Any, top_k: Any, top_p: Any, repetition_penalty: Any) -> None:
    """The checks of the processors that ``inference_turbo`` builds (transformers 5.2.0): an int is refused where it is there."""
    if temperature > 0 and temperature != 1.0 and not isinstance(temperature, float):
        raise ValueError(
            f"`temperature` (={temperature}) has to be a strictly positive float, otherwise your next token "
            "scores will be invalid."
        )
    if top_k > 0 and not isinstance(top_k, int):
        raise ValueError(f"`top_k` has to be a strictly positive integer, but is {top_k}")
    if top_p < 0:
        raise ValueError(f"`top_p` has to be a float > 0 and < 1, but is {top_p}")
    if repetition_penalty != 1.0 and not (isinstance(repetition_penalty, float) and repetition_penalty > 0):
        raise ValueError(f"`penalty` has to be a strictly positive float, but is {repetition_penalty}")


def _seed() -> int | None:
    """A seed from torch's generator where torch is in use, so that ``torch.manual_seed`` keeps its meaning."""
    torch = sys.modules.get("torch")
    return None if torch is None else int(torch.randint(0, 2**63 - 1, (1,)).item())


def _host(value: Any) -> Any:
    """A torch tensor as a NumPy array (bfloat16, which NumPy does not know, as float32); everything else as it is."""
    if not hasattr(value, "detach"):
        return value
    value = value.detach().cpu()
    return (value.float() if str(getattr(value, "dtype", "")) == "torch.bfloat16" else value).numpy()
