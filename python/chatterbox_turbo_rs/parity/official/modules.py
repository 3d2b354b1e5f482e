"""The official package (PyTorch) at any size, behind the stage contracts of chatterbox-turbo-rs: the oracle of its tests.

``load_official(directory)`` builds the official modules at the sizes of ``directory/config.json``, loads the checkpoint
strictly and returns an ``Official``: one method per stage key (``s3gen.flow`` is ``s3gen_flow``), arrays in and out time first
as NumPy float32 / int64, and ``.tts``, an assembled ``ChatterboxTurboTTS``. At the sizes of Turbo that is
``ChatterboxTurboTTS.from_local``. At other sizes upstream's own constructors run with other arguments; where upstream fixes a
size inside a class, the official class is built at the wanted size and put in its place. Runs in the environment of
``tools/reference_env.sh``. Source: resemble-ai/chatterbox at commit 5de7a54 (chatterbox-tts 0.1.7).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import librosa
import numpy as np
import torch
from chatterbox import tts_turbo
from chatterbox.models.s3gen import s3gen as s3gen_module
from chatterbox.models.s3gen import xvector as xvector_module
from chatterbox.models.s3gen.transformer import upsample_encoder
from chatterbox.models.s3tokenizer import s3tokenizer as s3tokenizer_module
from chatterbox.models.t3 import T3
from chatterbox.models.t3.llama_configs import LLAMA_CONFIGS
from chatterbox.models.t3.modules.cond_enc import T3Cond
from chatterbox.models.t3.modules.t3_config import T3Config
from chatterbox.models.voice_encoder import VoiceEncoder
from chatterbox.models.voice_encoder import voice_encoder as voice_encoder_module
from chatterbox.models.voice_encoder.config import VoiceEncConfig
from chatterbox.tts_turbo import ChatterboxTurboTTS, Conditionals
from s3tokenizer.model_v2 import ModelConfig, S3TokenizerV2
from safetensors.torch import load_file
from torch import nn
from transformers import AutoTokenizer

from .draws import Draws, injected

TURBO = Path(__file__).resolve().parents[2] / "config" / "turbo.json"
SIZES = ("text", "t3", "voice_encoder", "s3tokenizer", "speaker_encoder", "s3gen")
UNUSED_T3 = ("text_head.weight", "tfmr.wte.weight")


def load_official(directory: str | Path) -> Official:
    """Loads a checkpoint directory (on the CPU, float32, evaluation mode)."""
    directory = Path(directory)
    turbo = json.loads(TURBO.read_text())
    path = directory / "config.json"
    config = json.loads(path.read_text()) if path.exists() else turbo
    torch.set_grad_enabled(False)
    if all(config[section] == turbo[section] for section in SIZES):
        return Official(ChatterboxTurboTTS.from_local(directory, "cpu"), config)
    return Official(_assemble(directory, config), config)


def _assemble(directory: Path, config: Mapping[str, Any]) -> ChatterboxTurboTTS:
    files = config["files"]
    tokenizer = AutoTokenizer.from_pretrained(directory)
    if len(tokenizer) != config["text"]["vocab_size"]:
        raise ValueError(f"tokenizer of {directory}: expected {config['text']['vocab_size']} entries, found {len(tokenizer)}")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    voice_encoder = _voice_encoder(config["voice_encoder"])
    voice_encoder.load_state_dict(load_file(directory / files["voice_encoder"]))
    t3 = _t3(config)
    state = load_file(directory / files["t3"])
    for name in UNUSED_T3:
        state.setdefault(name, torch.zeros_like(t3.get_parameter(name)))
    t3.load_state_dict(state)
    del t3.tfmr.wte
    s3gen = _s3gen(config)
    s3gen.load_state_dict(load_file(directory / files["s3gen"]), strict=True)
    conds = directory / "conds.pt"
    voice = Conditionals.load(conds) if conds.exists() else None
    return ChatterboxTurboTTS(t3.eval(), s3gen.eval(), voice_encoder.eval(), tokenizer, "cpu", conds=voice)


def _voice_encoder(c: Mapping[str, Any]) -> VoiceEncoder:
    hp = VoiceEncConfig()
    hp.num_mels, hp.ve_hidden_size, hp.speaker_embed_size = c["mels"], c["hidden_size"], c["embedding_size"]
    _require("voice_encoder.layers", c["layers"], 3)
    return VoiceEncoder(hp)


def _t3(config: Mapping[str, Any]) -> T3:
    c = config["t3"]
    name = f"GPT2_{config['name']}"
    LLAMA_CONFIGS[name] = {
        **LLAMA_CONFIGS["GPT2_medium"],
        "n_embd": c["hidden_size"],
        "hidden_size": c["hidden_size"],
        "n_head": c["heads"],
        "n_layer": c["layers"],
        "n_positions": c["positions"],
        "n_ctx": c["positions"],
        "n_inner": c["ffn_size"],
        "layer_norm_epsilon": c["norm_eps"],
        "vocab_size": config["text"]["vocab_size"],
    }
    hp = T3Config(text_tokens_dict_size=config["text"]["vocab_size"])
    hp.llama_config_name = name
    hp.speech_tokens_dict_size = c["speech_vocab"]
    hp.start_speech_token, hp.stop_speech_token = c["start_token"], c["stop_token"]
    hp.input_pos_emb = None
    hp.speech_cond_prompt_len = c["prompt_tokens"]
    hp.use_perceiver_resampler = False
    hp.emotion_adv = False
    hp.speaker_embed_size = config["voice_encoder"]["embedding_size"]
    return T3(hp)


def _s3gen(config: Mapping[str, Any]) -> nn.Module:
    """Upstream's S3Gen constructor, with the classes that it builds replaced by the same ones at the wanted sizes."""
    s, sp, g = config["s3tokenizer"], config["speaker_encoder"], config["s3gen"]
    e, d, v = g["encoder"], g["estimator"], g["vocoder"]
    _require("s3tokenizer head size", s["hidden_size"] // s["heads"], 64)
    _require("speaker_encoder.head_channels", sp["head_channels"], 32)
    _require("speaker_encoder.layers", sp["layers"], [12, 24, 16])
    sizes = ModelConfig(n_mels=s["mels"], n_audio_state=s["hidden_size"], n_audio_head=s["heads"], n_audio_layer=s["layers"])

    def tokenizer(name: str) -> nn.Module:
        # S3Tokenizer does not hand its configuration on, so that the base class's default has to change.
        with mock.patch.object(S3TokenizerV2.__init__, "__defaults__", (sizes,)):
            return s3tokenizer_module.S3Tokenizer(name, sizes)

    def speaker_encoder(**options: Any) -> nn.Module:
        return xvector_module.CAMPPlus(
            feat_dim=sp["mels"],
            embedding_size=sp["embedding_size"],
            growth_rate=sp["growth"],
            bn_size=sp["bottleneck"],
            init_channels=sp["init_channels"],
            **options,
        )

    def encoder(**options: Any) -> nn.Module:
        size = e["hidden_size"]
        options |= {"input_size": size, "output_size": size, "attention_heads": e["heads"]}
        options |= {"linear_units": e["ffn_size"], "num_blocks": e["layers"]}
        module = upsample_encoder.UpsampleConformerEncoder(**options)
        module.pre_lookahead_layer = upsample_encoder.PreLookaheadLayer(size, e["lookahead"])
        module.up_layer = upsample_encoder.Upsample1D(size, size, 2)
        module.up_encoders = module.up_encoders[: e["up_layers"]]
        _require("s3gen.encoder.up_layers", len(module.up_encoders), e["up_layers"])
        return module

    def estimator(**options: Any) -> nn.Module:
        options |= {"in_channels": 4 * g["mels"], "out_channels": g["mels"], "channels": [d["channels"]]}
        options |= {"attention_head_dim": d["head_size"], "n_blocks": d["blocks"]}
        options |= {"num_mid_blocks": d["mid_blocks"], "num_heads": d["heads"]}
        return decoder_class(**options)

    def flow(**options: Any) -> nn.Module:
        return flow_class(input_size=e["hidden_size"], spk_embed_dim=sp["embedding_size"], vocab_size=g["vocab"], **options)

    def vocoder(**options: Any) -> nn.Module:
        dilations = v["resblock_dilations"]
        options |= {
            "base_channels": v["base_channels"],
            "nb_harmonics": v["harmonics"],
            "nsf_alpha": v["sine_amplitude"],
            "nsf_sigma": v["noise_std"],
            "nsf_voiced_threshold": v["voiced_threshold"],
            "upsample_rates": v["upsample_rates"],
            "upsample_kernel_sizes": v["upsample_kernels"],
            "istft_params": {"n_fft": v["istft_size"], "hop_len": v["istft_hop"]},
            "resblock_kernel_sizes": v["resblock_kernels"],
            "resblock_dilation_sizes": [dilations] * len(v["resblock_kernels"]),
            "source_resblock_kernel_sizes": v["source_resblock_kernels"],
            "source_resblock_dilation_sizes": [dilations] * len(v["source_resblock_kernels"]),
            "lrelu_slope": v["leaky_slope"],
            "audio_limit": v["audio_limit"],
        }
        return vocoder_class(**options)

    def f0_predictor() -> nn.Module:
        return f0_class(cond_channels=v["f0_channels"])

    decoder_class, flow_class = s3gen_module.ConditionalDecoder, s3gen_module.CausalMaskedDiffWithXvec
    vocoder_class, f0_class = s3gen_module.HiFTGenerator, s3gen_module.ConvRNNF0Predictor
    replaced: dict[str, Callable[..., nn.Module]] = {
        "S3Tokenizer": tokenizer,
        "CAMPPlus": speaker_encoder,
        "UpsampleConformerEncoder": encoder,
        "ConditionalDecoder": estimator,
        "CausalMaskedDiffWithXvec": flow,
        "HiFTGenerator": vocoder,
        "ConvRNNF0Predictor": f0_predictor,
    }
    with contextlib.ExitStack() as stack:
        for name, build in replaced.items():
            stack.enter_context(mock.patch.object(s3gen_module, name, build))
        return s3gen_module.S3Token2Wav(meanflow=True)


def _require(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise ValueError(f"{what}: the official classes only have {expected}, the configuration says {found}")


def _rows(tensor: torch.Tensor) -> np.ndarray:
    """[1, C, T] -> [T, C]."""
    return np.ascontiguousarray(tensor[0].T.float().numpy())


def _columns(array: np.ndarray) -> torch.Tensor:
    """[T, C] -> [1, C, T]."""
    return torch.from_numpy(np.ascontiguousarray(array.T))[None]


class Official:
    """The official modules as stage functions; see the stage table in ARCHITECTURE.md for every input and output."""

    def __init__(self, tts: ChatterboxTurboTTS, config: Mapping[str, Any]) -> None:
        self.tts, self.config = tts, config
        self.t3, self.s3gen, self.ve = tts.t3, tts.s3gen, tts.ve

    def root(self, key: str) -> nn.Module:
        """The module whose children's names are those of the checkpoint's tensors of stage ``key``."""
        return {"t3": self.t3, "voice_encoder": self.ve}.get(key.partition(".")[0], self.s3gen)

    def stage(self, key: str) -> Callable[..., Any]:
        """The function of a stage key."""
        return getattr(self, key.replace(".", "_"))

    def text_normalize(self, text: str) -> str:
        return tts_turbo.punc_norm(text)

    def text_tokenize(self, text: str) -> np.ndarray:
        ids = self.tts.tokenizer(text, return_tensors="pt", padding=True, truncation=True).input_ids
        return ids[0].numpy().astype(np.int64)

    def reference_load(self, source: Any) -> np.ndarray:
        samples, rate = librosa.load(source, sr=24000)
        if not len(samples) / rate > 5.0:
            raise ValueError("Audio prompt must be longer than 5 seconds!")
        return samples

    def reference_loudness(self, samples: np.ndarray) -> np.ndarray:
        return self.tts.norm_loudness(samples, 24000)

    def reference_resample(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        w16 = librosa.resample(samples, orig_sr=24000, target_sr=16000)
        first = torch.from_numpy(samples[: self.tts.DEC_COND_LEN])[None]
        return w16, s3gen_module.get_resampler(24000, 16000, "cpu")(first)[0].numpy()

    def voice_encoder_mel(self, w16: np.ndarray) -> np.ndarray:
        trimmed = librosa.effects.trim(w16, top_db=20)[0]
        return np.ascontiguousarray(voice_encoder_module.melspectrogram(trimmed, self.ve.hp).T, np.float32)

    def voice_encoder_embedding(self, mel: np.ndarray) -> np.ndarray:
        return self.ve.embeds_from_mels([mel], rate=1.3)[0]

    def s3tokenizer_mel(self, samples: np.ndarray) -> np.ndarray:
        return _rows(self.s3gen.tokenizer.log_mel_spectrogram(torch.from_numpy(samples)[None]))

    def s3tokenizer_tokens(self, mel: np.ndarray) -> np.ndarray:
        ids, _ = self.s3gen.tokenizer.quantize(_columns(mel), torch.tensor([len(mel)]))
        return ids[0].numpy().astype(np.int64)

    def s3tokenizer_levels(self, mel: np.ndarray) -> np.ndarray:
        """The 8 numbers of every token before they are rounded, [tokens, 8]."""
        tokenizer = self.s3gen.tokenizer
        hidden, _ = tokenizer.encoder(_columns(mel), torch.tensor([len(mel)]))
        return (tokenizer.quantizer._codebook.project_down(hidden).float().tanh() * 0.9990000128746033)[0].numpy()

    def speaker_encoder_fbank(self, r16: np.ndarray) -> np.ndarray:
        return xvector_module.extract_feature(torch.from_numpy(r16)[None])[0][0].numpy()

    def speaker_encoder_xvector(self, fbank: np.ndarray) -> np.ndarray:
        return self.s3gen.speaker_encoder(torch.from_numpy(fbank)[None])[0].numpy()

    def s3gen_prompt_mel(self, r24: np.ndarray) -> np.ndarray:
        return _rows(self.s3gen.mel_extractor(torch.from_numpy(r24)[None]))

    def t3_decoder(self, speaker: np.ndarray, prompt: np.ndarray, text: np.ndarray) -> OfficialSession:
        return OfficialSession(self.t3, self.conditioning(speaker, prompt), text)

    def conditioning(self, speaker: np.ndarray, prompt: np.ndarray) -> T3Cond:
        tokens = torch.from_numpy(prompt)[None]
        return T3Cond(speaker_emb=torch.from_numpy(speaker)[None], cond_prompt_speech_tokens=tokens)

    def t3_tokens(
        self, speaker: np.ndarray, prompt: np.ndarray, text: np.ndarray, uniforms: np.ndarray, max_gen_len: int, **sampling: Any
    ) -> np.ndarray:
        """The whole token loop; at most ``max_gen_len + 1`` tokens."""
        with injected(Draws(uniforms=uniforms)):
            tokens = self.t3.inference_turbo(
                self.conditioning(speaker, prompt), torch.from_numpy(text)[None], max_gen_len=max_gen_len, **sampling
            )
        return tokens[0].numpy()

    def s3gen_encoder(self, ids: np.ndarray) -> np.ndarray:
        flow = self.s3gen.flow
        hidden, _ = flow.encoder(flow.input_embedding(torch.from_numpy(ids)[None]), torch.tensor([len(ids)]))
        return flow.encoder_proj(hidden)[0].numpy()

    def s3gen_flow(self, mu: np.ndarray, xvector: np.ndarray, prompt_mel: np.ndarray, noise: np.ndarray) -> np.ndarray:
        flow = self.s3gen.flow
        speaker = flow.spk_embed_affine_layer(nn.functional.normalize(torch.from_numpy(xvector)[None], dim=1))
        cond = np.zeros_like(mu)
        cond[: len(prompt_mel)] = prompt_mel
        mask = torch.ones(1, 1, len(mu))
        no_prompt = torch.zeros(1, mu.shape[1], len(mu))  # its contents are replaced by the injected noise
        with injected(Draws(flow=noise)):
            mel, _ = flow.decoder(
                mu=_columns(mu), mask=mask, spks=speaker, cond=_columns(cond), n_timesteps=2, noised_mels=no_prompt, meanflow=True
            )
        return _rows(mel)[len(prompt_mel) :]

    def s3gen_f0(self, mel: np.ndarray) -> np.ndarray:
        """Fundamental frequency of every frame, Hz, [F]."""
        return self.s3gen.mel2wav.f0_predictor(_columns(mel))[0].numpy()

    def s3gen_vocoder(self, mel: np.ndarray, phases: np.ndarray, noise: np.ndarray) -> np.ndarray:
        return self.s3gen_vocoder_source(mel, phases, noise)[0]

    def s3gen_vocoder_source(self, mel: np.ndarray, phases: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The samples with the fade-in, and the excitation signal, both [480F]."""
        with injected(Draws(phases=phases, noise=noise)):
            samples, source = self.s3gen.hift_inference(_columns(mel), None)
        fade = self.s3gen.trim_fade
        samples = samples.clone()
        samples[:, : len(fade)] *= fade
        return samples[0].numpy(), source[0, 0].numpy()

    def watermark(self, samples: np.ndarray) -> np.ndarray:
        return self.tts.watermarker.apply_watermark(samples, sample_rate=24000)


class OfficialSession:
    """One utterance of T3: ``prefill`` once, then ``step`` per token; both return logits [speech_vocab]."""

    def __init__(self, t3: T3, cond: T3Cond, text: np.ndarray) -> None:
        self.t3, self.cond, self.text, self.cache = t3, cond, torch.from_numpy(text)[None], None

    def prefill(self) -> np.ndarray:
        start = torch.tensor([[self.t3.hp.start_speech_token]])
        embeds, _ = self.t3.prepare_input_embeds(t3_cond=self.cond, text_tokens=self.text, speech_tokens=start)
        return self._run(embeds)

    def step(self, token: int) -> np.ndarray:
        return self._run(self.t3.speech_emb(torch.tensor([[token]])))

    def _run(self, embeds: torch.Tensor) -> np.ndarray:
        out = self.t3.tfmr(inputs_embeds=embeds, past_key_values=self.cache, use_cache=True)
        self.cache = out.past_key_values
        return self.t3.speech_head(out[0][:, -1:])[0, -1].numpy().copy()
