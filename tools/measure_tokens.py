"""What a precision does to T3's choice of tokens with a trained voice: the next token's distribution beside float32's.

usage: measure_tokens.py [PRECISION[@MODEL] …] [--model demo] [--sentences 50] [--seeds 1]

Every party reads the tokens that f32 drew for the sentences of ``make demo-quality`` with default arguments. Of every step: the
Kullback-Leibler divergence of the distribution at temperature 0.8 from f32's, whether the most probable token is the same, and whether
the sampler draws the same token with the same number. ``PRECISION@MODEL`` takes the weights of another directory (of the same voice).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).resolve().parent
sys.path[:0] = [str(TOOLS.parent / "python")]

import numpy as np  # noqa: E402

from chatterbox_turbo_rs import ChatterboxTurbo  # noqa: E402
from chatterbox_turbo_rs.engine import draws  # noqa: E402
from chatterbox_turbo_rs.stages.t3.sampler import SamplerParameters  # noqa: E402

TEMPERATURE = 0.8
MAX_TOKENS = 300


def log_softmax(logits: np.ndarray) -> np.ndarray:
    scaled = logits.astype(np.float64) / TEMPERATURE
    scaled -= scaled.max(1, keepdims=True)
    return scaled - np.log(np.exp(scaled).sum(1, keepdims=True))


def logits_of(model: Any, ids: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """The logits before each of ``tokens``, [n, vocabulary]."""
    voice = model.builtin_voice
    decoder = model._pipeline.stage("t3.decoder", "rust")
    session = decoder.start(voice.speaker_embedding, voice.t3_prompt_tokens, ids, len(tokens))
    return np.array([session.prefill(), *(session.step(int(token)) for token in tokens[:-1])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parties", nargs="*", default=["int8", "int4"], metavar="PRECISION[@MODEL]")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--sentences", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    sentences = (TOOLS / "demo_model/quality_sentences.txt").read_text(encoding="utf-8").splitlines()[: options.sentences]
    exact = ChatterboxTurbo.from_pretrained(options.model, precision="f32")
    parties = {}
    for name in options.parties:
        precision, _, model = name.partition("@")
        parties[name] = ChatterboxTurbo.from_pretrained(model or options.model, precision=precision)
    stage, parameters = exact._pipeline.stage, SamplerParameters()
    normalize, tokenize = (stage(f"text.{name}", "rust") for name in ("normalize", "tokenize"))
    decoder, sampler = stage("t3.decoder", "rust"), stage("t3.sampler", "rust")
    voice = exact.builtin_voice
    rows: dict[str, list[np.ndarray]] = {name: [] for name in parties}
    steps, entropy = 0, 0.0
    for seed in range(options.seeds):
        for i, text in enumerate(sentences):
            ids, number = tokenize(normalize(text)), 1000 * seed + i
            prompt = (voice.speaker_embedding, voice.t3_prompt_tokens, ids)
            tokens = decoder.generate(*prompt, parameters, MAX_TOKENS, seed=number)
            tokens = np.append(tokens, decoder.stop_token) if len(tokens) <= MAX_TOKENS else tokens
            p = log_softmax(logits_of(exact, ids, tokens))
            entropy -= float((np.exp(p) * p).sum())
            steps += len(tokens)
            for name, model in parties.items():
                logits = logits_of(model, ids, tokens)
                q = log_softmax(logits)
                history = [np.array([decoder.start_token], np.int64), *(tokens[:n] for n in range(1, len(tokens)))]
                uniforms = (float(draws.uniforms(number, draws.T3, n, 1)[0]) for n in range(len(tokens)))
                drawn = [sampler(x, h, parameters, u) for x, h, u in zip(logits, history, uniforms)]
                rows[name].append(np.array([(np.exp(p) * (p - q)).sum(1), p.argmax(1) == q.argmax(1), drawn == tokens]))
    print(f"{steps} steps, entropy {entropy / steps:.2f} nats")
    print("| | KL mean | KL 99 % | same best token | same token drawn |\n|---|---|---|---|---|")
    for name, found in rows.items():
        divergence, best, drawn = np.concatenate(found, axis=1)
        figures = f"{divergence.mean():.5f} | {np.quantile(divergence, 0.99):.4f} | {best.mean():.1%} | {drawn.mean():.1%}"
        print(f"| {name} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
