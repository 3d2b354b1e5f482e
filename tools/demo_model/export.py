"""Assembles the demo model: the trainings' latest weights as a directory that ``ChatterboxTurbo.from_pretrained`` loads.

usage: export.py [--work DIR] [--out WORK/export/model] [--clip FILE] [--model DIR]

Writes upstream's three files in float16 under upstream's names (weight-normalised layers as gain and direction), ``config.json``,
the tokenizer without merges, and ``conds.pt``: the built-in voice, prepared by the model itself from a clip of the teacher, but for
its tokens, which are the teacher's own (S3Tokenizer hears some of them otherwise); the clip goes along. There
is one voice: what its speaker vectors add is folded into the biases behind them, so that T3 and the flow speak with it whatever
clip they are given. T3 is the finished one (``t3.py --decay``) where there is one, random where it has no checkpoint yet. ``--model``: networks
without a checkpoint are those of an assembled model.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from safetensors.numpy import load_file, save_file

import s3gen
import sizes
import tokenizer
import tokens
import training
import vocoder
from teacher import Teacher

TOOLS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOOLS))

import checkpoint_layout  # noqa: E402
import make_checkpoint  # noqa: E402
from chatterbox_turbo_rs import ChatterboxTurbo  # noqa: E402
from chatterbox_turbo_rs.checkpoint import conds_pt  # noqa: E402
from chatterbox_turbo_rs.stages.shared.torch_network import WEIGHT_NORM  # noqa: E402
from chatterbox_turbo_rs.stages.t3.decoder.python import T3  # noqa: E402

LIMIT = 20_000_000
"""Bytes that the model may take."""
Arrays = dict[str, np.ndarray]


def arrays(state: Mapping[str, Any], prefix: str = "", inside: str = "") -> Arrays:
    """The tensors below ``inside`` under their names without it, with ``prefix`` in front."""
    return {prefix + k.removeprefix(inside): v.float().numpy() for k, v in state.items() if k.startswith(inside)}


def sound(work: Path, model: Path | None) -> tuple[Arrays, Arrays]:
    """S3Gen's file and the voice encoder's: of a ``model``'s networks, those that were trained since."""

    def trained(name: str, *places: tuple[str, str]) -> Arrays:
        if model is not None and not training.checkpoint(work, name).exists():
            return {}
        state, found = training.weights(work, name), {}
        for prefix, inside in places:
            found |= arrays(state, prefix, inside)
        return found

    result = trained(tokenizer.NAME, ("tokenizer.", ""))
    if result:
        result["tokenizer.window"], result["tokenizer._mel_filters"] = tokenizer.constants()
    result |= trained("xvector", ("speaker_encoder.", "network."))
    flow = trained(s3gen.NAME, ("flow.", "mean."), ("flow.", "flow."))
    if flow:
        flow["flow.spk_embed_affine_layer.weight"] *= 0
    return result | flow | trained(vocoder.NAME, ("mel2wav.", "")), trained("voice_encoder", ("", "network."))


def t3(work: Path, model: Path | None) -> tuple[Arrays, dict[str, Any]]:
    """T3's file and its sizes."""
    finished, running = (training.checkpoint(work, name) for name in ("t3_decayed", "t3"))
    path = finished if finished.exists() else running
    if not path.exists() and model is not None:
        return {}, json.loads((model / "config.json").read_text("utf-8"))
    if not path.exists():
        config = sizes.config(tokens.TEXT_IDS, tokens.SILENCE, {})
        return arrays(T3(config).state_dict()), config
    state = torch.load(path, map_location="cpu", weights_only=False)
    config = sizes.config(tokens.TEXT_IDS, tokens.SILENCE, state["config"])
    result = arrays(state.get("average", state["weights"]))
    speaker, weight = np.asarray(state["speaker"], np.float32), result["cond_enc.spkr_enc.weight"]
    result["cond_enc.spkr_enc.bias"] = result["cond_enc.spkr_enc.bias"] + weight @ speaker
    result["cond_enc.spkr_enc.weight"] = np.zeros_like(weight)
    return result, config


def write(path: Path, shapes: Mapping[str, tuple[int, ...]], values: Arrays, old: Path | None) -> None:
    """One file: every tensor of the layout and no other, in float16; those that ``values`` lacks are the ``old`` file's."""
    out: Arrays = {} if old is None else load_file(old)
    left = set(values)
    for name, shape in shapes.items():
        stem, _, part = name.partition(WEIGHT_NORM)
        source = stem + "weight" if part else name
        if source not in values and name in out:
            continue
        value = values[source]
        left.discard(source)
        if part == "0":
            value = np.sqrt(np.square(value).sum(axis=tuple(range(1, value.ndim)), keepdims=True))
        if value.shape != shape or not np.isfinite(value).all() or np.abs(value).max(initial=0) > 65504:
            raise SystemExit(f"{path}: {name}: expected finite float16 values of shape {shape}, found {value.shape}")
        out[name] = np.array(value, np.int64 if checkpoint_layout.is_integer(name) else np.float16, order="C")
    if left:
        raise SystemExit(f"{path}: {len(left)} tensors without a place, the first is {min(left)}")
    save_file(out, path, metadata={"format": "pt"})


def assemble(work: Path, out: Path, clip: Path, ids: np.ndarray | None, old: Path | None) -> None:
    """Writes the directory and prints the size of every file; ``ids``: the tokens of ``clip``, where they are known."""
    out.mkdir(parents=True, exist_ok=True)
    t3_values, config = t3(work, old)
    s3gen_values, voice_values = sound(work, old)
    files = checkpoint_layout.tensors(config, unused=False)
    for key, values in (("t3", t3_values), ("s3gen", s3gen_values), ("voice_encoder", voice_values)):
        name = config["files"][key]
        write(out / name, files[name], values, None if old is None else old / name)
    make_checkpoint.write_tokenizer(out, config["text"]["vocab_size"], make_checkpoint.TOKENIZER)
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    conds = out / "conds.pt"
    conds.unlink(missing_ok=True)
    model = ChatterboxTurbo.from_pretrained(out, backends="rust", watermark=None)
    voice = model.voice(clip)
    if ids is not None:
        counts = len(voice.t3_prompt_tokens), len(voice.s3gen_prompt_tokens)
        voice = replace(voice, t3_prompt_tokens=ids[: counts[0]], s3gen_prompt_tokens=ids[: counts[1]])
    conds_pt.write(conds, voice)
    shutil.copyfile(clip, out / f"reference{clip.suffix}")
    total = 0
    for file in sorted(out.iterdir()):
        total += file.stat().st_size
        print(f"{file.stat().st_size:>10} {file.name}")
    print(f"{total:>10} bytes in all")
    if total > LIMIT:
        raise SystemExit(f"{out}: {total} bytes, expected at most {LIMIT}")


SENTENCE = "The morning light came slowly over the hills, and everyone in the village was already wide awake and waiting."


def reference(work: Path) -> tuple[Path, np.ndarray]:
    """A clip of the built-in voice, the teacher's, a little longer than the 5 seconds that a voice needs, and its true tokens."""
    path = work / "export" / "reference.flac"
    teacher = Teacher(work)
    item = teacher.align(SENTENCE)
    wave = teacher.sound(item)
    need = math.ceil(5.1 * 24_000)
    if len(wave) < need:
        raise SystemExit(f"{path}: expected at least {need} samples of the teacher, found {len(wave)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, 24_000)
    return path, tokens.codes(item)[0].astype(np.int64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    training.work_folder(parser)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--model", type=Path, metavar="DIR", help="an assembled model: its networks where WORK has no checkpoint")
    parser.add_argument("--clip", type=Path, help="reference of the built-in voice (default: a sentence of the teacher)")
    args = parser.parse_args()
    clip, ids = (args.clip, None) if args.clip else reference(args.work)
    assemble(args.work, args.out or args.work / "export" / "model", clip, ids, args.model)


if __name__ == "__main__":
    main()
