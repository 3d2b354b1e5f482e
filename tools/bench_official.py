"""Times every network stage of chatterbox-turbo-rs beside the official package: same process, same inputs, in turn.

usage (in the environment of ``reference_env.sh``, with this package importable): bench_official.py CHECKPOINT [--tokens N]
[--repeat N] [--threads N]

The input is 10 s of audio by default (250 tokens and 3 of silence) with a 10 s voice. Prints the best of the repetitions of the
three parties, the ratios to the official package (below 1: faster) of the Python and the Rust side, and the CPU's features. Absolute times are noise between machines.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).resolve().parent
FEATURES = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
DECODE_STEPS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--tokens", type=int, default=250)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)  # read when the pool starts
    sys.path.insert(0, str(TOOLS.parent / "python"))
    sys.path.insert(0, str(TOOLS.parent / "python" / "chatterbox_turbo_rs" / "parity"))
    import torch

    torch.set_num_threads(options.threads)
    print(f"{options.threads} threads, {cpu()}, torch {torch.__version__}; seconds, best of {options.repeat}")
    print(f"{'stage':32} {'official':>9} {'python':>9} {'rust':>9} {'python':>7} {'rust':>7}")
    for name, *calls in cases(options.checkpoint, options.tokens):
        best = [float("inf")] * 3
        for _ in range(options.repeat):
            for side, call in enumerate(calls):
                started = time.perf_counter()
                call()
                best[side] = min(best[side], time.perf_counter() - started)
        ratios = f"{best[1] / best[0]:7.2f} {best[2] / best[0]:7.2f}"
        print(f"{name:32} {best[0]:9.3f} {best[1]:9.3f} {best[2]:9.3f} {ratios}", flush=True)


def cases(checkpoint: Path, count: int) -> list[tuple[Any, ...]]:
    """Name, official call, Python call, Rust call of every case."""
    import numpy as np
    from official.modules import load_official

    from chatterbox_turbo_rs import backends, config, draws
    from chatterbox_turbo_rs.resources import Resources

    official = load_official(checkpoint)
    resources = Resources(checkpoint, config.for_directory(checkpoint))

    def ours(key: str) -> list[Any]:
        return [backends.load(key, side, resources) for side in ("python", "rust")]

    clip = TOOLS.parent / "tests" / "data" / "clips" / "long.flac"
    samples = official.reference_loudness(official.reference_load(str(clip)))[:240_000]
    w16, r16 = official.reference_resample(samples)
    ve_mel, s3_mel = official.voice_encoder_mel(w16), official.s3tokenizer_mel(r16)
    fbank, prompt_mel = official.speaker_encoder_fbank(r16), official.s3gen_prompt_mel(samples)
    embedding, xvector = official.voice_encoder_embedding(ve_mel), official.speaker_encoder_xvector(fbank)
    prompt = official.s3tokenizer_tokens(s3_mel)[: len(prompt_mel) // 2]
    text = official.text_tokenize("The quick brown fox jumps over the lazy dog, and nobody is surprised.")
    random = np.random.default_rng(1)
    tokens = np.concatenate([prompt, random.integers(0, 6561, count), [4299] * 3]).astype(np.int64)
    mu = official.s3gen_encoder(tokens)
    noise = draws.normals(1, draws.FLOW, 0, len(mu), 80)
    mel = official.s3gen_flow(mu, xvector, prompt_mel, noise)
    phases, vocoder_noise = draws.phases(1, 9), draws.normals(1, draws.NOISE, 0, 480 * len(mel), 9)
    marked = official.s3gen_vocoder(mel, phases, vocoder_noise)
    decoders = ours("t3.decoder")
    speech = random.integers(0, 6561, DECODE_STEPS)

    def prefill(start: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: start().prefill()

    def decode(start: Callable[[], Any]) -> Callable[[], Any]:
        session = start()
        session.prefill()
        return lambda: [session.step(int(token)) for token in speech]

    room = 20 * DECODE_STEPS
    starts: list[Callable[[], Any]] = [lambda: official.t3_decoder(embedding, prompt, text)]
    starts += [bind(decoder.start, (embedding, prompt, text, room)) for decoder in decoders]
    found: list[tuple[Any, ...]] = [
        (f"t3.decoder prefill {2 + len(prompt) + len(text)}", *map(prefill, starts)),
        (f"t3.decoder {DECODE_STEPS} steps", *map(decode, starts)),
    ]
    inputs: dict[str, tuple[Any, ...]] = {
        "s3gen.encoder": (tokens,),
        "s3gen.flow": (mu, xvector, prompt_mel, noise),
        "s3gen.vocoder": (mel, phases, vocoder_noise),
        "watermark": (marked,),
        "voice_encoder.embedding": (ve_mel,),
        "s3tokenizer.tokens": (s3_mel,),
        "speaker_encoder.xvector": (fbank,),
        "voice_encoder.mel": (w16,),
        "s3tokenizer.mel": (r16,),
        "speaker_encoder.fbank": (r16,),
        "s3gen.prompt_mel": (samples,),
        "reference.resample": (samples,),
        "reference.loudness": (samples,),
    }
    for key, arguments in inputs.items():
        found.append((key, *(bind(stage, arguments) for stage in (official.stage(key), *ours(key)))))
    return found


def bind(call: Callable[..., Any], arguments: tuple[Any, ...]) -> Callable[[], Any]:
    return lambda: call(*arguments)


def cpu() -> str:
    """The processor's name and the vector extensions that it has."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return "unknown CPU"
    name = next((line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")), "CPU")
    flags = set(next((line for line in text.splitlines() if line.startswith("flags")), "").split())
    return f"{name} ({' '.join(f for f in FEATURES if f in flags) or 'no vector extensions known here'})"


if __name__ == "__main__":
    main()
