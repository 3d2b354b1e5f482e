"""The official package as a party: runs it in its own environment as a subprocess; arrays come back as safetensors.

``python`` is the interpreter of an environment with ``chatterbox-tts`` (``tools/reference_env.sh`` builds one), or this one where
the package can be imported.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from ..checkpoint import locate
from ..errors import BackendError
from . import cases as given
from .cases import Cases
from .recording import Recording, Take

HERE = Path(__file__).resolve().parent


def find(python: str | Path | None) -> Path | None:
    """The interpreter to run it with: ``python``, or this one when ``chatterbox`` can be imported here; None without.

    Raises ``BackendError`` when ``python`` does not run or cannot import the package.
    """
    if python is None:
        return Path(sys.executable) if importlib.util.find_spec("chatterbox") else None
    check = "import chatterbox.tts_turbo, s3tokenizer, perth, librosa"
    try:
        done = subprocess.run([str(python), "-W", "ignore", "-c", check], capture_output=True, text=True, check=False)
    except OSError as error:
        raise BackendError(f"--official-python {python}: {error.strerror or error}") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BackendError(f"--official-python {python}: cannot import the official package: {last}")
    return Path(python)


def write_job(
    directory: Path, checkpoint: Path, config: Mapping[str, Any], cases: Cases, taps: Mapping[str, str] | None = None
) -> Path:
    """Writes the job and the draws of every text and conversion; the same bytes every time."""
    harmonics = config["s3gen"]["vocoder"]["harmonics"] + 1
    texts = []
    for text in cases.texts:
        arrays = given.arrays(text, PROMPT_TOKENS, config["s3gen"]["mels"], harmonics)
        save_file(arrays, directory / f"draws_{text.name}.safetensors")
        parameters = {**given.DEFAULTS, **text.parameters}
        texts.append(
            {"name": text.name, "text": text.text, "clip": text.clip, "draws": f"draws_{text.name}.safetensors"}
            | {"max_gen_len": text.max_tokens, **parameters}
        )
    conversions = []
    for number, case in enumerate(cases.conversions):
        source = cases.clip(case.source)
        arrays = given.of_sound(case.seed, PROMPT_TOKENS, math.ceil(25 * source.seconds) + 1, config["s3gen"]["mels"], harmonics)
        save_file(arrays, directory / f"draws_conversion_{number}.safetensors")
        conversions.append(
            {"name": case.name, "source": str(source.path.resolve()), "clip": case.clip}
            | {"draws": f"draws_conversion_{number}.safetensors"}
        )
    job = {
        "checkpoint": str(checkpoint.resolve()),
        "output": "official",
        "clips": [{"name": clip.name, "path": str(clip.path.resolve())} for clip in cases.clips],
        "texts": texts,
        "conversions": conversions,
        "sentences": list(cases.sentences),
        "files": [*config["files"].values(), *locate.TOKENIZER_FILES],
        "describe": True,
        "taps": taps,
    }
    path = directory / "job.json"
    path.write_text(json.dumps(job, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


PROMPT_TOKENS = 250
"""S3Gen's prompt has no more: 10 s at 25 tokens a second."""


def run(python: Path, job: Path) -> None:
    """Runs a job; its output goes to ``official.log`` beside it. Raises ``BackendError`` with the last line when it fails."""
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    log = job.parent / "official.log"
    with open(log, "wb") as file:
        command = [str(python), "-W", "ignore", "-m", "official.runner", str(job.resolve())]
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False, env={**os.environ, "PYTHONPATH": path})
    if done.returncode:
        last = (log.read_text("utf-8", "replace").strip().splitlines() or ["no output"])[-1]
        raise BackendError(f"official: its process ended with {done.returncode}: {last} (see {log})")


def read(job: Path) -> Recording:
    """The recording that a job left."""
    asked = json.loads(job.read_text("utf-8"))
    directory = job.parent / asked["output"]
    report = json.loads((directory / "report.json").read_text("utf-8"))
    recording = Recording("official", versions=report["packages"])
    recording.hyperparameters, recording.digests = report.get("hyperparameters", {}), report.get("digests", {})
    recording.files = report["files"]

    def take(kind: str, name: str) -> Take:
        entry = report[f"{kind}s"][name]
        return Take(load_file(directory / f"{kind}_{name}.safetensors"), entry["texts"], entry["seconds"])

    recording.clips = {clip["name"]: take("clip", clip["name"]) for clip in asked["clips"]}
    recording.texts = {text["name"]: take("text", text["name"]) for text in asked["texts"]}
    recording.conversions = {case["name"]: take("conversion", case["name"]) for case in asked["conversions"]}
    ids = load_file(directory / "sentences.safetensors")
    for number, sentence in enumerate(asked["sentences"]):
        texts = report["texts"][f"sentence {number}"]["texts"]
        recording.sentences[sentence] = Take({"text.tokenize/out.ids": ids[str(number)]}, texts)
    if (directory / "taps.safetensors").exists() and asked["taps"]:
        named = {tuple(key.split("/", 1)): value for key, value in load_file(directory / "taps.safetensors").items()}
        recording.taps = [(name, np.asarray(value)) for (_, name), value in sorted(named.items(), key=lambda i: int(i[0][0]))]
    return recording
