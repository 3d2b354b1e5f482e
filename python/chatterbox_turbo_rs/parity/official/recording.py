"""Records what goes in and out of every stage while the official pipeline runs, and how long each stage takes.

``recording(tts, take, what)`` wraps the functions that ``ChatterboxTurboTTS`` or ``ChatterboxVC`` calls itself; nothing is
computed a second time and nothing is changed. Arrays are kept time first ([T, C]), under ``<stage key>/<in or out>.<name>``.
``s3tokenizer.*`` runs twice for a clip: for S3Gen (from r16) and for T3 (from w16), told apart as ``s3tokenizer.mel@s3gen`` and
``@t3``; of a conversion's source it is ``@source``.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import librosa
import numpy as np
import torch
from chatterbox import tts_turbo
from chatterbox.models.s3gen import xvector as xvector_module
from chatterbox.models.voice_encoder import voice_encoder as voice_encoder_module


@dataclass
class Take:
    """Arrays, texts and seconds of one clip, text or conversion."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    logits: list[np.ndarray] = field(default_factory=list)

    def keep(self, name: str, value: Any, transpose: bool = False) -> None:
        """Copies a tensor or array; a batch axis of 1 is dropped, ``transpose`` turns [C, T] into [T, C]."""
        array = value.detach().cpu().numpy() if torch.is_tensor(value) else np.asarray(value)
        if torch.is_tensor(value) and array.ndim > 1 and array.shape[0] == 1:
            array = array[0]
        array = array.T if transpose else array
        wanted = np.int64 if np.issubdtype(array.dtype, np.integer) else np.float32
        self.arrays[name] = np.array(array, wanted, order="C", copy=True)

    def keep_all(self, value: Any, *names: str) -> None:
        """The same under several names."""
        for name in names:
            self.keep(name, value)


Before = Callable[..., None]
After = Callable[[Any], None]


@contextlib.contextmanager
def recording(tts: Any, take: Take, what: str) -> Iterator[None]:
    """Records what ``tts`` does inside the context into ``take``; ``what`` is ``"clip"`` (voice), ``"text"`` (speech), or
    ``"conversion"``, whose ``tts`` is a ``ChatterboxVC``.
    """
    with contextlib.ExitStack() as stack:

        def tap(
            owner: Any, name: str, stage: str | Callable[[], str], after: After | None = None, before: Before | None = None
        ) -> None:
            original = getattr(owner, name)

            def wrapped(*arguments: Any, **options: Any) -> Any:
                if before:
                    before(*arguments, **options)
                start = time.perf_counter()
                result = original(*arguments, **options)
                take.seconds[stage() if callable(stage) else stage] += time.perf_counter() - start
                if after:
                    after(result)
                return result

            stack.enter_context(mock.patch.object(owner, name, wrapped))

        {"clip": _clip_taps, "text": _text_taps, "conversion": _conversion_taps}[what](tts, take, tap)
        yield
    if take.logits:
        take.arrays["t3.decoder/out.logits"] = np.stack(take.logits)
        take.seconds["t3.sampler"] = take.seconds.pop("t3") - take.seconds["t3.decoder"]


def _conversion_taps(vc: Any, take: Take, tap: Callable[..., None]) -> None:
    tap(librosa, "load", "reference.load", lambda result: take.keep("reference.load/out.samples", result[0]))
    _tokenizer_taps(vc, take, tap, "source")
    _sound_taps(vc, take, tap)


def _tokenizer_taps(tts: Any, take: Take, tap: Callable[..., None], *uses: str) -> None:
    """S3Tokenizer's calls, which are for ``uses`` in that order."""
    tokenizer = tts.s3gen.tokenizer
    calls = {"mel": 0, "tokens": 0}

    def whose(kind: str) -> str:
        return f"s3tokenizer.{kind}@{uses[calls[kind]]}"

    def mel_in(audio: torch.Tensor, *_: Any, **__: Any) -> None:
        take.keep(f"{whose('mel')}/in.samples", audio)

    def mel_out(mel: torch.Tensor) -> None:
        take.keep(f"{whose('mel')}/out.mel", mel, transpose=True)
        calls["mel"] += 1

    def tokens_in(mel: torch.Tensor, _: Any) -> None:
        take.keep(f"{whose('tokens')}/in.mel", mel, transpose=True)

    def tokens_out(result: Any) -> None:
        take.keep(f"{whose('tokens')}/out.ids", result[0])
        calls["tokens"] += 1

    tap(tokenizer, "log_mel_spectrogram", lambda: whose("mel"), mel_out, mel_in)
    tap(
        tokenizer.quantizer._codebook.project_down,
        "forward",
        "s3tokenizer.levels",
        # What is rounded to a digit of the token, [tokens, 8] (FSQCodebook.encode of s3tokenizer 0.3.0).
        lambda h: take.keep(f"{whose('tokens')}/out.levels", h.float().tanh() * 0.9990000128746033),
    )
    tap(tokenizer, "quantize", lambda: whose("tokens"), tokens_out, tokens_in)


def _clip_taps(tts: Any, take: Take, tap: Callable[..., None]) -> None:
    s3gen = tts.s3gen
    tap(librosa, "load", "reference.load", lambda result: take.keep("reference.load/out.samples", result[0]))
    tap(
        tts,
        "norm_loudness",
        "reference.loudness",
        lambda samples: take.keep("reference.loudness/out.samples", samples),
        lambda samples, rate: take.keep("reference.loudness/in.samples", samples),
    )
    # The other resampler's result, r16, is seen where the filter bank takes it.
    tap(
        librosa,
        "resample",
        "reference.resample",
        lambda samples: take.keep("reference.resample/out.w16", samples),
        lambda samples, **_: take.keep("reference.resample/in.samples", samples),
    )
    tap(librosa.effects, "trim", "voice_encoder.mel", None, lambda samples, **_: take.keep("voice_encoder.mel/in.w16", samples))
    tap(
        voice_encoder_module,
        "melspectrogram",
        "voice_encoder.mel",
        lambda mel: take.keep("voice_encoder.mel/out.mel", mel.T),
    )
    tap(
        tts.ve,
        "embeds_from_mels",
        "voice_encoder.embedding",
        lambda result: take.keep("voice_encoder.embedding/out.embedding", result[0]),
        lambda mels, **_: take.keep("voice_encoder.embedding/in.mel", mels[0]),
    )
    _tokenizer_taps(tts, take, tap, "s3gen", "t3")  # embed_ref tokenizes for S3Gen before prepare_conditionals does for T3
    tap(
        xvector_module,
        "extract_feature",
        "speaker_encoder.fbank",
        lambda result: take.keep("speaker_encoder.fbank/out.fbank", result[0]),
        lambda audio: take.keep_all(audio, "speaker_encoder.fbank/in.r16", "reference.resample/out.r16"),
    )
    tap(
        s3gen.speaker_encoder,
        "forward",
        "speaker_encoder.xvector",
        lambda result: take.keep("speaker_encoder.xvector/out.xvector", result),
        lambda fbank: take.keep("speaker_encoder.xvector/in.fbank", fbank),
    )
    tap(
        s3gen,
        "mel_extractor",
        "s3gen.prompt_mel",
        lambda mel: take.keep("s3gen.prompt_mel/out.mel", mel, transpose=True),
        lambda samples: take.keep("s3gen.prompt_mel/in.samples", samples),
    )


def _text_taps(tts: Any, take: Take, tap: Callable[..., None]) -> None:
    def t3_in(*, t3_cond: Any, text_tokens: torch.Tensor, **_: Any) -> None:
        take.keep("t3.decoder/in.speaker", t3_cond.speaker_emb)
        take.keep("t3.decoder/in.prompt", t3_cond.cond_prompt_speech_tokens)
        take.keep("t3.decoder/in.text", text_tokens)

    tap(
        tts_turbo,
        "punc_norm",
        "text.normalize",
        lambda text: take.texts.__setitem__("text.normalize/out", text),
        lambda text: take.texts.__setitem__("text.normalize/in", text),
    )
    tap(tts, "tokenizer", "text.tokenize", lambda result: take.keep("text.tokenize/out.ids", result.input_ids))
    tap(tts.t3, "inference_turbo", "t3", lambda tokens: take.keep("t3.sampler/out.tokens", tokens), t3_in)
    tap(tts.t3.tfmr, "forward", "t3.decoder")
    tap(tts.t3.speech_head, "forward", "t3.decoder", lambda logits: take.logits.append(logits[0, -1].numpy().copy()))
    _sound_taps(tts, take, tap)


def _sound_taps(tts: Any, take: Take, tap: Callable[..., None]) -> None:
    """S3Gen and the watermark, of a ``ChatterboxTurboTTS`` or a ``ChatterboxVC``."""
    flow, vocoder = tts.s3gen.flow, tts.s3gen.mel2wav

    def flow_in(*, token: torch.Tensor, prompt_token: torch.Tensor, prompt_feat: torch.Tensor, embedding: Any, **_: Any) -> None:
        ids = torch.cat([torch.atleast_2d(prompt_token).long(), token.long()], dim=1)
        take.keep("s3gen.encoder/in.ids", ids)
        take.keep("s3gen.flow/in.prompt_mel", prompt_feat)
        take.keep("s3gen.flow/in.xvector", embedding)

    def vocoder_out(result: Any) -> None:
        take.keep("s3gen.vocoder/out.source", result[1][:, 0])

    tap(flow, "inference", "s3gen", lambda result: take.keep("s3gen.flow/out.mel", result[0], transpose=True), flow_in)
    tap(flow.encoder, "forward", "s3gen.encoder")
    tap(flow.encoder_proj, "forward", "s3gen.encoder", lambda mu: take.keep("s3gen.encoder/out.mu", mu))
    tap(
        flow.decoder,
        "forward",
        "s3gen.flow",
        None,
        lambda *, mu, **_: take.keep("s3gen.flow/in.mu", mu, transpose=True),
    )
    tap(vocoder.f0_predictor, "forward", "f0", lambda f0: take.keep("s3gen.vocoder/out.f0", f0))
    tap(
        vocoder,
        "inference",
        "s3gen.vocoder",
        vocoder_out,
        lambda *, speech_feat, **_: take.keep("s3gen.vocoder/in.mel", speech_feat, transpose=True),
    )
    tap(
        tts.watermarker,
        "apply_watermark",
        "watermark",
        lambda samples: take.keep("watermark/out.samples", samples),
        # The vocoder's fade-in happens in S3Gen.inference, so that its result is seen here first.
        lambda samples, **_: take.keep_all(samples, "watermark/in.samples", "s3gen.vocoder/out.samples"),
    )
