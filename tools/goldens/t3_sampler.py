"""Writes tests/goldens/t3_sampler.npz: tokens chosen by the official package's processors, and our draw, in 640 cases.

Run with the environment that tools/reference_env.sh builds (torch, transformers 5.2.0): python tools/goldens/t3_sampler.py

The processors are transformers' own, in the order of ``inference_turbo`` in ``src/chatterbox/models/t3/t3.py`` at 5de7a54.
Two things differ from a run of the package: the draw is an inverse CDF with a given uniform instead of torch.multinomial,
and ``torch.sort`` is asked to be stable, because otherwise the order of equal scores depends on the processor.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
CASES = 640
VOCABULARY = 6563


def case(index: int) -> tuple[np.ndarray, np.ndarray, dict[str, float], np.ndarray]:
    """Logits, history, parameters and uniforms; made of integers and dyadic fractions, so the same everywhere."""
    chance = np.random.RandomState(index)
    bell = chance.randint(0, 1 << 14, (4, VOCABULARY)).sum(axis=0) - (1 << 15)  # deviation about 9459
    logits = bell * chance.choice([0.5, 2.0, 4.0, 8.0]) / 8192 + chance.choice([-30, -8, 0, 5])
    peaks = chance.randint(0, VOCABULARY, chance.choice([0, 1, 5, 40]))
    logits[peaks] += chance.randint(0, 96, len(peaks)) / 8
    kind = index % 8
    if kind == 1:  # coarse steps: ties at every boundary
        logits = np.round(logits)
    elif kind == 2:  # some tokens are impossible
        logits[chance.randint(0, VOCABULARY, chance.choice([1, 100, 20000]))] = -np.inf
    elif kind == 3:  # ties and impossible tokens
        logits = np.where(chance.randint(0, 2, VOCABULARY) == 0, -np.inf, np.round(logits / 2))
    elif index % 160 == 4:  # nothing is possible
        logits[:] = -np.inf
    elif index % 160 == 12:  # everything is equal
        logits[:] = 1.0
    history = chance.randint(0, VOCABULARY, chance.choice([1, 10, 300, 1000])).astype(np.int64)
    likely = np.argsort(logits, kind="stable")[-chance.randint(1, 30) :]
    history[: len(likely)] = likely[: len(history)]
    parameters = {
        "temperature": float(chance.choice([0.8, 0.8, 0.8, 1.0, 0.3, 1.7, 0.05, 0.0, -1.0])),
        "top_k": int(chance.choice([1000, 1000, 1000, 0, 1, 2, 50, 6562, 6563, 10000])),
        "top_p": float(chance.choice([0.95, 0.95, 0.95, 1.0, 1.5, 0.0, 0.1, 0.5, 0.8, 0.999])),
        "repetition_penalty": float(chance.choice([1.2, 1.2, 1.2, 1.0, 2.0, 0.7, 1.05])),
    }
    uniforms = np.array([0.0, 1 - 2.0**-40, *chance.random_sample(4)])
    return logits.astype(np.float32), history, parameters, uniforms


def digest(logits: np.ndarray, history: np.ndarray, parameters: dict[str, float], uniforms: np.ndarray) -> int:
    """Proves that the test has the inputs that the golden was made from."""
    return zlib.crc32(logits.tobytes() + history.tobytes() + repr(parameters).encode() + uniforms.tobytes())


def main() -> None:
    import torch
    from transformers.generation.logits_process import (
        LogitsProcessorList,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    plain_sort = torch.sort
    moved = 0
    tokens, kept, digests = np.full((CASES, 6), -1, np.int32), np.zeros(CASES, np.int32), np.zeros(CASES, np.int64)
    for index in range(CASES):
        logits, history, parameters, uniforms = inputs = case(index)
        processors = LogitsProcessorList()
        if parameters["temperature"] > 0 and parameters["temperature"] != 1.0:
            processors.append(TemperatureLogitsWarper(parameters["temperature"]))
        if parameters["top_k"] > 0:
            processors.append(TopKLogitsWarper(parameters["top_k"]))
        if parameters["top_p"] < 1.0:
            processors.append(TopPLogitsWarper(parameters["top_p"]))
        if parameters["repetition_penalty"] != 1.0:
            processors.append(RepetitionPenaltyLogitsProcessor(parameters["repetition_penalty"]))
        ids, row = torch.from_numpy(history)[None], torch.from_numpy(logits)[None]
        unstable = processors(ids, row)
        torch.sort = lambda scores, descending=False: plain_sort(scores, dim=-1, descending=descending, stable=True)
        scores = processors(ids, row)
        torch.sort = plain_sort
        moved += not torch.equal(scores, unstable)
        kept[index], digests[index] = int((scores > -torch.inf).sum()), digest(*inputs)
        if torch.all(scores == -float("inf")):
            continue
        cumulative = torch.nn.functional.softmax(scores, dim=-1)[0].double().numpy().cumsum()
        tokens[index] = np.searchsorted(cumulative, uniforms * cumulative[-1], side="right")
    np.savez_compressed(ROOT / "tests/goldens/t3_sampler.npz", tokens=tokens, kept=kept, digests=digests)
    print(f"{CASES} cases, {(kept == 0).sum()} without a possible token, kept {kept.min()} to {kept.max()}")
    print(f"{moved} cases in which torch's own order of equal scores keeps other tokens")


if __name__ == "__main__":
    main()
