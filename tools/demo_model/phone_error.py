"""How well T3 reads: phone error and stops on held-out sentences, sampled by the product's own token loop and sampler.

The tokens that T3 says are put back into phones (``tokens.phones``) and compared with the teacher's, without stress, by edit distance.

usage: phone_error.py --work WORK [--run t3] [--count 60] [--all]      a line of JSON to WORK/logs/phone_error.jsonl
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

import reading
import sizes
import tokens
import training
from chatterbox_turbo_rs.engine import token_loop
from chatterbox_turbo_rs.stages.t3.decoder.python import T3, Session
from chatterbox_turbo_rs.stages.t3.sampler import SamplerParameters
from chatterbox_turbo_rs.stages.t3.sampler.python import sample

DEFAULT = SamplerParameters(temperature=0.8, top_p=0.95, top_k=1000, repetition_penalty=1.2)
OTHERS = (
    SamplerParameters(temperature=0.8, top_p=0.95, top_k=1000, repetition_penalty=1.0),
    SamplerParameters(temperature=0.3, top_p=0.95, top_k=1000, repetition_penalty=1.0),
)
MOST = 400
"""Tokens; a sentence that has not stopped by then does not stop."""


class Decoder:
    """What ``token_loop.generate`` needs of a decoder, over a network in training."""

    start_token = tokens.START
    stop_token = tokens.STOP

    def __init__(self, network: T3) -> None:
        self.network = network

    def start(self, speaker: np.ndarray, prompt: np.ndarray, text: np.ndarray, steps: int) -> Session:
        parts = [torch.from_numpy(np.asarray(a))[None] for a in (speaker, prompt, text, np.array([self.start_token]))]
        return Session(self.network, parts, steps)


def distance(a: Sequence[Any], b: Sequence[Any]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def load(state: dict[str, Any], kind: str) -> T3:
    network = T3(sizes.config(tokens.TEXT_IDS, tokens.SILENCE, state["config"]), dropout=0.0)
    network.load_state_dict(state[kind])
    return network.eval()


def measure(network: T3, speaker: np.ndarray, held: list[reading.Item], parameters: SamplerParameters) -> dict[str, Any]:
    decoder, prompt = Decoder(network), reading.beginning(held[-1]).astype(np.int64)
    wrong = total = stopped = slots = long_wrong = long_total = 0
    said = []
    for k, one in enumerate(held):
        text, draws = one.text.astype(np.int64), np.random.default_rng(k).random(MOST + 1)
        found = token_loop.generate(decoder, sample, speaker, prompt, text, parameters, draws.__getitem__, MOST)
        stopped += len(found) <= MOST
        wanted, got = tokens.phones(one.speech), tokens.phones(found)
        errors = distance(wanted, got)
        wrong, total, slots = wrong + errors, total + len(wanted), slots + len(found)
        if len(text) > 60:
            long_wrong, long_total = long_wrong + errors, long_total + len(wanted)
        said.append("".join(wanted) + " | " + "".join(got))
    length = slots / sum(len(one.speech) for one in held)
    return {
        "temperature": parameters.temperature,
        "penalty": parameters.repetition_penalty,
        "phone_error": round(wrong / total, 4),
        "over_60_characters": round(long_wrong / max(long_total, 1), 4),
        "stopped": f"{stopped}/{len(held)}",
        "length": round(length, 3),
        "said": said[:4],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    training.work_folder(parser)
    parser.add_argument("--run", default="t3", help="name of the checkpoint")
    parser.add_argument("--weights", default="average", choices=("average", "weights"))
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--all", action="store_true", help="other samplings beside the default one")
    args = parser.parse_args()
    torch.set_num_threads(1)
    state = torch.load(training.checkpoint(args.work, args.run), map_location="cpu", weights_only=False)
    network, held = load(state, args.weights), reading.read(args.work / "align" / "held_out.pkl")[: args.count]
    for parameters in (DEFAULT, *(OTHERS if args.all else ())):
        found = measure(network, np.asarray(state["speaker"], np.float32), held, parameters)
        head = {"run": args.run, "weights": args.weights, "steps": state["steps"], "minutes": round(state["seconds"] / 60, 1)}
        with open(args.work / "logs" / "phone_error.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(head | found, ensure_ascii=False) + "\n")
        print(json.dumps(head | found, ensure_ascii=False, indent=1), flush=True)


if __name__ == "__main__":
    main()
