"""The teacher, hibari-tts, with the durations in our hands.

Its ONNX graph is cut at the durations of its symbols: one graph gives the teacher's own (in fractions), two take ours, one for
f0 alone and one for the whole spectrum. ``sound`` writes the spectrum out at 10 ms a frame (see ``tokens.py``).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from hibari import Hibari, dsp

import tokens

OWN, CLIPPED = "/Sub_output_0", "/Clip_output_0"
HOP = tokens.SLOT_SAMPLES // tokens.SLOT_FRAMES
NATURAL_HOP = dsp.HOP


class Teacher:
    def __init__(self, work: Path, whole: bool = True) -> None:
        """``whole``: with the graph for ``sound``."""
        self.voice = Hibari(threads=1)
        folder = work / "teacher"
        if not (folder / "f0.onnx").exists():
            cut(self.voice.model_path, folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        names = ("durations", "f0", "spectrum") if whole else ("durations", "f0")
        self.graphs = {
            name: onnxruntime.InferenceSession(folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
            for name in names
        }
        hop(HOP)

    def phonemes(self, text: str) -> str | None:
        """One string whose words are those of ``text``; None where the teacher splits or joins."""
        parts = self.voice.phonemize(text)
        if len(parts) != 1:
            return None
        phonemes = "".join(c for c in parts[0] if c in self.voice.vocab)
        return phonemes if len(phonemes.split()) == len(text.split()) else None

    def align(self, text: str) -> dict[str, Any] | None:
        """``text``, ``phonemes``, ``f0`` [4 N], and what ``tokens.Plan`` has."""
        phonemes = self.phonemes(text)
        if phonemes is None:
            return None
        ids = np.array([self.voice.ids(phonemes)], np.int64)
        plan = tokens.plan(phonemes, self.graphs["durations"].run(None, {"ids": ids})[0])
        if plan is None:
            return None
        (f0,) = self.graphs["f0"].run(None, {"ids": ids, "durations": plan.units.astype(np.float32)})
        item = {"text": text, "phonemes": phonemes, "f0": f0[0].astype(np.float32)}
        return item | vars(plan)

    def natural(self, item: dict[str, Any], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """The item at the teacher's own pace: float32 [960 N], of which token n is only about there, and its f0 at 80 Hz."""
        ends = np.round(np.cumsum(item["lengths"]))
        ids = np.array([self.voice.ids(item["phonemes"])], np.int64)
        feeds = {"ids": ids, "durations": np.diff(ends, prepend=0).astype(np.float32), "speed": np.ones(1, np.float32)}
        spectrum = [part[0] for part in self.graphs["spectrum"].run(None, feeds)]
        hop(NATURAL_HOP)
        wave = dsp.synth(*spectrum, np.random.default_rng(seed)).astype(np.float32)
        hop(HOP)
        size = tokens.SLOT_SAMPLES * len(item["phone"])
        return np.pad(wave, (0, max(0, size - len(wave))))[:size], spectrum[-1].astype(np.float32)

    def sound(self, item: dict[str, Any], seed: int = 0) -> np.ndarray:
        """The teacher's speech of an aligned item: float32 [960 N] at 24 kHz."""
        ids = np.array([self.voice.ids(item["phonemes"])], np.int64)
        feeds = {"ids": ids, "durations": item["units"].astype(np.float32), "speed": np.ones(1, np.float32)}
        spectrum = [part[0] for part in self.graphs["spectrum"].run(None, feeds)]
        return dsp.synth(*spectrum, np.random.default_rng(seed)).astype(np.float32)


def hop(samples: int) -> None:
    """Sets the samples of a spectral frame; tables of the teacher hang on it."""
    dsp.HOP = samples
    dsp._ola_norm.cache_clear()
    dsp._interp_w.cache_clear()


def cut(path: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    onnx.utils.extract_model(path, str(folder / "durations.onnx"), ["ids"], [OWN])
    model = onnx.load(path)
    for node in model.graph.node:
        for k, name in enumerate(node.input):
            if name == CLIPPED:
                node.input[k] = "durations"
    model.graph.input.append(onnx.helper.make_tensor_value_info("durations", onnx.TensorProto.FLOAT, ["symbols"]))
    onnx.save(model, str(folder / "spectrum.onnx"))
    partial = folder / f"f0.{os.getpid()}.onnx"
    onnx.utils.extract_model(str(folder / "spectrum.onnx"), str(partial), ["ids", "durations"], ["f0"])
    partial.rename(folder / "f0.onnx")
