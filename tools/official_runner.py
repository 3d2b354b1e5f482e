"""Runs the official pipeline on given clips, texts and draws, and writes what every stage took and gave.

usage: official_runner.py JOB.json

The job (paths relative to it):
  checkpoint  directory of the checkpoint
  draws       safetensors file: ``uniforms`` [steps] float64, ``flow`` [>= 2(K+N), 80], ``phases`` [9], ``noise`` [>= 480F, 9]
  output      directory for the results
  clips       [{"name", "path"}]
  texts       [{"name", "text", "clip", "max_gen_len", "temperature", "top_k", "top_p", "repetition_penalty"}]
  save_conds  true: also ``conds_<clip>.pt``, written by the official ``Conditionals.save``

Written: ``clip_<name>.safetensors`` and ``text_<name>.safetensors`` (``<stage>/<in or out>.<what>``, time first) and
``report.json``: texts, seconds per stage, package versions, peak memory. Runs in the environment of ``tools/reference_env.sh``.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

import official_float64
from official import load_official
from official_draws import Draws, injected
from official_taps import Take, recording

PACKAGES = ("chatterbox-tts", "torch", "torchaudio", "transformers", "s3tokenizer", "librosa", "numpy", "soxr", "resemble-perth")
SAMPLING = ("temperature", "top_k", "top_p", "repetition_penalty")


def run(job: dict[str, Any], base: Path) -> dict[str, Any]:
    """Runs a job and returns its report."""
    output = base / job["output"]
    output.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    official = load_official(base / job["checkpoint"])
    report: dict[str, Any] = {"seconds_to_load": time.perf_counter() - start, "clips": {}, "texts": {}}
    draws = Draws(**load_file(base / job["draws"]))
    tts = official.tts
    voices: dict[str, Any] = {}
    for clip in job["clips"]:
        take = Take()
        start = time.perf_counter()
        with recording(tts, take, "clip"):
            tts.prepare_conditionals(str(base / clip["path"]))
        total = time.perf_counter() - start
        voices[clip["name"]] = tts.conds
        take.keep("conds/prompt_token", tts.conds.gen["prompt_token"])
        precise = official_float64.s3gen_prompt_mel(take.arrays["s3gen.prompt_mel/in.samples"])
        take.keep("s3gen.prompt_mel/out.mel_float64", precise.astype(np.float32))
        if job.get("save_conds"):
            tts.conds.save(output / f"conds_{clip['name']}.pt")
        report["clips"][clip["name"]] = _write(output / f"clip_{clip['name']}.safetensors", take, total)
    for text in job["texts"]:
        take = Take()
        tts.conds = voices[text["clip"]]
        limited = functools.partial(tts.t3.inference_turbo, max_gen_len=text["max_gen_len"])
        sampling = {name: text[name] for name in SAMPLING if name in text}
        start = time.perf_counter()
        with injected(draws), mock.patch.object(tts.t3, "inference_turbo", limited), recording(tts, take, "text"):
            wav = tts.generate(text["text"], **sampling)
        total = time.perf_counter() - start
        take.keep("end_to_end/out.samples", wav)
        report["texts"][text["name"]] = _write(output / f"text_{text['name']}.safetensors", take, total)
    report["peak_rss_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
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
