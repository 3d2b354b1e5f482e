"""Writes the goldens of the network stages: inputs and outputs of the official modules at tiny size.

usage: dump_goldens.py CHECKPOINT_DIR [OUTPUT_DIR]
       CHECKPOINT_DIR from ``make_checkpoint.py --size tiny --seed 1234``, OUTPUT_DIR is tests/goldens

Every golden is ``<group>_<name>.npz``: entries ``<case>.<input or output>``, arrays time first. Draws are stored as float16
(the values used are exactly these); everything else is float32 or int64. ``manifest.json`` says what they rest on.
Runs in the environment of ``tools/reference_env.sh``, on the CPU.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
PARITY = ROOT / "python" / "chatterbox_turbo_rs" / "parity"
sys.path.insert(0, str(PARITY))  # the oracle needs no chatterbox_turbo_rs

from official.draws import Draws, injected  # noqa: E402
from official.modules import Official, load_official  # noqa: E402

from liveliness import measure, outside  # noqa: E402

CLIP = ROOT / "tests" / "data" / "clips" / "short.flac"
SEED = 1234
COMMIT = "5de7a54"
SCRIPTS = (
    "tools/dump_goldens.py",
    "python/chatterbox_turbo_rs/parity/official/modules.py",
    "python/chatterbox_turbo_rs/parity/official/draws.py",
    "tools/make_checkpoint.py",
    "tools/checkpoint_layout.py",
    "tools/checkpoint_values.py",
)
PACKAGES = ("chatterbox-tts", "torch", "torchaudio", "transformers", "s3tokenizer", "librosa", "diffusers", "numpy", "soxr")
TEXT = "Well, this is [laugh] a test of the voice."
LAST = 1.0 - 2.0**-53  # the largest uniform: picks the last id that can occur
MAX_BYTES = 300_000


class Dump:
    """Everything that the goldens need, computed once from the reference clip."""

    def __init__(self, official: Official, output: Path) -> None:
        self.official, self.output = official, output
        self.random = np.random.Generator(np.random.Philox(SEED))
        self.files: dict[str, dict[str, Any]] = {}
        w24 = official.reference_loudness(official.reference_load(str(CLIP)))
        self.w16, self.r16 = official.reference_resample(w24)
        self.prompt_mel = official.s3gen_prompt_mel(w24[:240000])
        self.voice_mel = official.voice_encoder_mel(self.w16)
        self.token_mel = official.s3tokenizer_mel(self.w16)
        self.fbank = official.speaker_encoder_fbank(self.r16)
        self.text = official.text_tokenize(official.text_normalize(TEXT))

    def normal(self, *shape: int) -> np.ndarray:
        """Standard normals that float16 holds exactly, as float32."""
        return self.random.standard_normal(shape).astype(np.float16).astype(np.float32)

    def phases(self) -> np.ndarray:
        return self.random.uniform(-np.pi, np.pi, 9).astype(np.float16).astype(np.float32)

    def save(self, name: str, **entries: Any) -> None:
        draws = ("noise", "phases", "flow")
        arrays = {
            key: np.asarray(value, np.float16) if key.rsplit(".", 1)[-1] in draws else np.ascontiguousarray(value)
            for key, value in entries.items()
        }
        path = self.output / f"{name}.npz"
        np.savez_compressed(path, **arrays)
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path}: expected at most {MAX_BYTES} bytes, found {path.stat().st_size}")
        self.note(path, {key: [str(value.dtype), *value.shape] for key, value in arrays.items()})

    def note(self, path: Path, entries: dict[str, Any]) -> None:
        self.files[path.name] = {"sha256": digest(path), "entries": entries}

    def encoders(self) -> None:
        cases: dict[str, np.ndarray] = {}
        for case, frames in (("short", 100), ("one", 160), ("several", 330)):
            mel = self.voice_mel[20 : 20 + frames]
            cases |= {f"{case}.mel": mel, f"{case}.embedding": self.official.voice_encoder_embedding(mel)}
        self.save("voice_encoder_embedding", **cases)
        cases = {}
        for case, start, frames in (("a", 0, 97), ("b", 100, 150), ("c", 250, 204)):
            mel = np.ascontiguousarray(self.token_mel[start : start + frames])
            tokens, levels = self.official.s3tokenizer_tokens(mel), self.official.s3tokenizer_levels(mel)
            cases |= {f"{case}.mel": mel, f"{case}.tokens": tokens, f"{case}.levels": levels}
        self.save("s3tokenizer_tokens", **cases)
        cases = {}
        for case, frames in (("one_segment", 98), ("full_segments", 200), ("partial_segment", 299)):
            fbank = self.fbank[:frames]
            cases |= {f"{case}.fbank": fbank, f"{case}.xvector": self.official.speaker_encoder_xvector(fbank)}
        self.save("speaker_encoder_xvector", **cases)
        self.speaker = self.official.voice_encoder_embedding(self.voice_mel)
        self.prompt = self.official.s3tokenizer_tokens(self.token_mel)
        self.xvector = self.official.speaker_encoder_xvector(self.fbank)

    def decoder(self) -> None:
        """Prefill and 24 teacher-forced steps. All logits of three steps, every 8th logit of all steps."""
        prompt, forced = self.prompt[:30], self.random.integers(0, 6561, 24)
        session = self.official.t3_decoder(self.speaker, prompt, self.text)
        logits = np.stack([session.prefill(), *(session.step(int(token)) for token in forced)])
        steps = np.array([0, 1, 24])
        inputs = {"speaker": self.speaker, "prompt": prompt, "text": self.text, "forced": forced}
        self.save("t3_decoder", **inputs, steps=steps, logits=logits[steps], every_8th=logits[:, ::8])

    def loop(self) -> None:
        """The token loop: tokens as upstream returns them, before the filter. A run is limited to ``max_gen_len + 1`` tokens."""
        default = {"temperature": 0.8, "top_k": 1000, "top_p": 0.95, "repetition_penalty": 1.2}
        everything = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
        stop_at_9, stop_at_0 = self.random.random(31), self.random.random(31)
        stop_at_9[9] = stop_at_0[0] = LAST
        cases: dict[str, tuple[dict[str, Any], np.ndarray, int]] = {
            "greedy": ({**default, "top_k": 1}, self.random.random(221), 220),
            "sampled": (default, self.random.random(301), 300),
            "hot": ({"temperature": 1.4, "top_k": 40, "top_p": 0.5, "repetition_penalty": 1.8}, self.random.random(201), 200),
            "stops": ({**everything, "repetition_penalty": 1.3}, stop_at_9, 30),
            "first_is_stop": (everything, stop_at_0, 30),
        }
        arrays: dict[str, Any] = {"speaker": self.speaker, "prompt": self.prompt, "text": self.text}
        for case, (sampling, uniforms, limit) in cases.items():
            tokens = self.official.t3_tokens(self.speaker, self.prompt, self.text, uniforms, limit, **sampling)
            names = ("temperature", "top_k", "top_p", "repetition_penalty")
            arrays |= {f"{case}.tokens": tokens, f"{case}.uniforms": uniforms, f"{case}.max_gen_len": np.array(limit)}
            arrays[f"{case}.sampling"] = np.array([float(sampling[name]) for name in names])
        if len(arrays["stops.tokens"]) != 9 or arrays["first_is_stop.tokens"][0] != 6562:
            raise ValueError("the stop cases did not stop where they were told to")
        self.save("t3_loop", **arrays)
        self.tokens = arrays["sampled.tokens"]

    def synthesis(self) -> None:
        cases: dict[str, np.ndarray] = {}
        generated = self.tokens[self.tokens < 6561]
        for case, ids in (("a", np.concatenate([self.prompt[:20], generated[:14], [4299] * 3])), ("b", generated[20:30])):
            cases |= {f"{case}.ids": ids, f"{case}.mu": self.official.s3gen_encoder(ids)}
        self.save("s3gen_encoder", **cases)
        mu, flow = cases["a.mu"], {}
        for case, frames in (("even", 40), ("odd", 41), ("no_prompt", 0)):
            prompt, noise = self.prompt_mel[60 : 60 + frames], self.normal(len(mu), 80)
            mel = self.official.s3gen_flow(mu, self.xvector, prompt, noise)
            flow |= {f"{case}.prompt_mel": prompt, f"{case}.noise": noise, f"{case}.mel": mel}
        self.save("s3gen_flow", mu=mu, xvector=self.xvector, **flow)
        mel = np.concatenate([flow["no_prompt.mel"], flow["even.mel"]])
        voiced = self.official.s3gen_f0(mel) > 10.0
        start = next(i for i in range(4, len(mel) - 20) if not voiced[i + 4 : i + 16].all())
        mel, noise, phases = mel[start : start + 20], self.normal(480 * 20, 9), self.phases()
        samples, source = self.official.s3gen_vocoder_source(mel, phases, noise)
        f0 = self.official.s3gen_f0(mel)
        if (f0 > 10).all() or not (f0 > 10).any():
            raise ValueError("the vocoder's golden needs voiced and unvoiced frames")
        self.save("s3gen_vocoder", mel=mel, phases=phases, noise=noise, f0=f0, source=source, samples=samples)

    def end_to_end(self) -> None:
        """``generate`` of the whole package, without the watermark, and its voice files as upstream saves them."""
        tts, steps = self.official.tts, 8
        tts.prepare_conditionals(str(CLIP))
        # Detached, since a saved tensor may otherwise carry far more storage than it shows.
        tts.conds.gen = {k: v.clone() if torch.is_tensor(v) else v for k, v in tts.conds.gen.items()}
        voice = {
            "speaker": tts.conds.t3.speaker_emb[0].numpy().copy(),
            "prompt": tts.conds.t3.cond_prompt_speech_tokens[0].numpy().copy(),
            "prompt_token": tts.conds.gen["prompt_token"][0].numpy().copy(),
            "xvector": tts.conds.gen["embedding"][0].numpy().copy(),
        }
        fresh, used = self.output / "conds_fresh.pt", self.output / "conds_used.pt"
        tts.conds.save(fresh)
        rows = 2 * (len(voice["prompt_token"]) + steps + 1 + 3)
        draws = Draws(self.random.random(steps + 1), self.normal(rows, 80), self.phases(), self.normal(480 * 2 * (steps + 4), 9))
        tts.t3.inference_turbo = functools.partial(tts.t3.inference_turbo, max_gen_len=steps)
        tts.watermarker.apply_watermark = lambda samples, sample_rate: samples
        with injected(draws):
            samples = tts.generate(TEXT)[0].numpy()
        tts.conds.save(used)
        self.save(
            "end_to_end",
            **voice,
            text=np.array(TEXT),
            max_gen_len=np.array(steps),
            uniforms=draws.uniforms,
            flow=draws.flow,
            phases=draws.phases,
            noise=draws.noise,
            samples=samples,
        )
        for path in (fresh, used):
            saved = torch.load(path, weights_only=True)
            entries = {f"{part}.{k}": describe(v) for part in saved for k, v in saved[part].items()}
            self.note(path, entries)


def describe(value: Any) -> Any:
    """Dtype and shape of a tensor in a voice file."""
    return [str(value.dtype).removeprefix("torch."), *value.shape] if torch.is_tensor(value) else value


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    checkpoint = Path(sys.argv[1])
    output = Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "tests" / "goldens"
    output.mkdir(parents=True, exist_ok=True)
    official = load_official(checkpoint)
    figures = measure(official, str(CLIP))
    if outside(figures):
        raise ValueError("; ".join(outside(figures)))
    dump = Dump(official, output)
    for part in (dump.encoders, dump.decoder, dump.loop, dump.synthesis, dump.end_to_end):
        part()
    manifest = {
        "upstream": {"repository": "resemble-ai/chatterbox", "commit": COMMIT},
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "checkpoint": {
            "command": f"make_checkpoint.py --size tiny --seed {SEED}",
            "sha256": {path.name: digest(path) for path in sorted(checkpoint.glob("*.safetensors"))},
        },
        "scripts": {name: digest(ROOT / name) for name in SCRIPTS},
        "liveliness": figures,
        "files": dump.files,
    }
    (output / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
