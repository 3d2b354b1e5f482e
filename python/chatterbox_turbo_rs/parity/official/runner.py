"""Runs the official pipeline on given clips, texts, conversions and draws, and writes what every stage took and gave.

usage: python -m official.runner JOB.json      (with ``parity/`` on the path)

The job (paths relative to it):
  checkpoint  directory of the checkpoint
  output      directory for the results
  clips       [{"name", "path"}]
  texts       [{"name", "text", "clip", "draws", "max_gen_len", "temperature", "top_k", "top_p", "repetition_penalty"}]; draws is a
              safetensors file: ``uniforms`` [steps] float64, ``flow`` [>= 2(K+N), 80], ``phases`` [9], ``noise`` [>= 480F, 9]
  conversions [{"name", "source", "clip", "draws"}]: the sound file ``source`` in the voice of ``clip``, by ``ChatterboxVC`` over the
              meanflow S3Gen; draws as above, without uniforms
  sentences   [text] that are only normalised and tokenised
  files       [name] of the checkpoint whose SHA-256 is reported
  describe    true: the loaded modules' hyper-parameters and digests of their tensors
  taps        {"stage", "clip" or "text"}: the stage's intermediates in that clip or text

Written: ``clip_<name>.safetensors``, ``text_<name>.safetensors`` and ``conversion_<name>.safetensors``
(``<stage>/<in or out>.<what>``, time first), ``sentences.safetensors``, ``taps.safetensors`` (``<number>/<name>``) and ``report.json``: texts, seconds per stage, package
versions, peak memory, the description.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from chatterbox import vc
from safetensors.numpy import load_file, save_file

from . import describe, float64, torch_taps
from .draws import Draws, injected
from .modules import load_official
from .recording import Take, recording

PACKAGES = ("chatterbox-tts", "torch", "torchaudio", "transformers", "s3tokenizer", "librosa", "numpy", "soxr", "resemble-perth")
SAMPLING = ("temperature", "top_k", "top_p", "repetition_penalty")


def run(job: dict[str, Any], base: Path) -> dict[str, Any]:
    """Runs a job and returns its report."""
    output = base / job["output"]
    output.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    official = load_official(base / job["checkpoint"])
    report: dict[str, Any] = {"seconds_to_load": time.perf_counter() - start, "clips": {}, "texts": {}, "conversions": {}}
    tts = official.tts
    voices: dict[str, Any] = {}
    taps: list[tuple[str, np.ndarray]] = []
    wanted = job.get("taps") or {}

    def tapped(kind: str, name: str) -> contextlib.AbstractContextManager[Any]:
        if wanted.get(kind) != name:
            return contextlib.nullcontext()
        return torch_taps.recording(official.root(wanted["stage"]), "", wanted["stage"], taps)

    for clip in job["clips"]:
        take = Take()
        start = time.perf_counter()
        with recording(tts, take, "clip"), tapped("clip", clip["name"]):
            tts.prepare_conditionals(str(base / clip["path"]))
        total = time.perf_counter() - start
        voices[clip["name"]] = tts.conds
        take.keep("voice/out.prompt_ids", tts.conds.gen["prompt_token"])
        precise = float64.s3gen_prompt_mel(take.arrays["s3gen.prompt_mel/in.samples"])
        take.keep("s3gen.prompt_mel/out.mel_float64", precise.astype(np.float32))
        report["clips"][clip["name"]] = _write(output / f"clip_{clip['name']}.safetensors", take, total)
    for text in job["texts"]:
        take = Take()
        tts.conds = voices[text["clip"]]
        limited = functools.partial(tts.t3.inference_turbo, max_gen_len=text["max_gen_len"])
        sampling = {name: text[name] for name in SAMPLING if name in text}
        start = time.perf_counter()
        draws = Draws(**load_file(base / text["draws"]))
        with (
            injected(draws),
            mock.patch.object(tts.t3, "inference_turbo", limited),
            recording(tts, take, "text"),
            tapped("text", text["name"]),
        ):
            wav = tts.generate(text["text"], **sampling)
        total = time.perf_counter() - start
        take.keep("end_to_end/out.samples", wav)
        report["texts"][text["name"]] = _write(output / f"text_{text['name']}.safetensors", take, total)
    for case in job.get("conversions", ()):
        take = Take()
        converter = vc.ChatterboxVC(tts.s3gen, "cpu", ref_dict=voices[case["clip"]].gen)
        start = time.perf_counter()
        with injected(Draws(**load_file(base / case["draws"]))), recording(converter, take, "conversion"):
            wav = converter.generate(str(base / case["source"]))
        total = time.perf_counter() - start
        take.keep("end_to_end/out.samples", wav)
        report["conversions"][case["name"]] = _write(output / f"conversion_{case['name']}.safetensors", take, total)
    sentences = {}
    for number, sentence in enumerate(job.get("sentences", ())):
        normalized = official.text_normalize(sentence)
        report["texts"][f"sentence {number}"] = {"texts": {"text.normalize/in": sentence, "text.normalize/out": normalized}}
        sentences[str(number)] = official.text_tokenize(normalized)
    save_file(sentences, output / "sentences.safetensors")
    if taps:
        save_file({f"{number}/{name}": value for number, (name, value) in enumerate(taps)}, output / "taps.safetensors")
    if job.get("describe"):
        report["hyperparameters"] = describe.hyperparameters(official)
        report["digests"] = describe.digests(official)
    found = {name: base / job["checkpoint"] / name for name in job.get("files", ())}
    report["files"] = {n: {"sha256": hashlib.sha256(p.read_bytes()).hexdigest()} for n, p in found.items() if p.exists()}
    report["packages"] = {name: importlib.metadata.version(name) for name in PACKAGES}
    report["threads"] = {"torch": torch.get_num_threads(), "cpus": os.cpu_count()}
    (output / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return report


def _write(path: Path, take: Take, total: float) -> dict[str, Any]:
    save_file(take.arrays, path)
    return {
        "seconds": {**{k: round(v, 6) for k, v in sorted(take.seconds.items())}, "total": round(total, 6)},
        "texts": take.texts,
    }


if __name__ == "__main__":
    job_path = Path(sys.argv[1])
    run(json.loads(job_path.read_text(encoding="utf-8")), job_path.parent)
