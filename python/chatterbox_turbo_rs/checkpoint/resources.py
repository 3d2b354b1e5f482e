"""What a stage may be built from: the configuration, the checkpoint's files and the device. Built once per model."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .tensor_file import TensorFile


class Resources:
    """Handed to every stage's ``create(resources)``; everything is opened on first use.

    ``directory`` holds upstream's files, ``config`` the parsed hyper-parameters (see ``config/*.json``), ``device`` is
    ``"cpu"``, ``"cuda"`` or ``"metal"``, ``precision`` ``"f32"``, ``"int8"``, ``"bf16"``, ``"int8+bf16"``, ``"int4"`` or
    ``"int4+bf16"``
    (T3 and S3Gen in Rust alone look at it), ``options`` the model's options (``tokenizer``: a path or None; ``digests``: whether ``core`` notes what it hands out, see ``_core.Checkpoint``).
    """

    def __init__(
        self,
        directory: str | Path,
        config: Mapping[str, Any],
        device: str = "cpu",
        precision: str = "f32",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.config = config
        self.device = device
        self.precision = precision
        self.options = dict(options or {})
        self._tensors: dict[str, TensorFile] = {}

    @functools.cached_property
    def core(self) -> Any:
        """The Rust side's checkpoint handle, ``_core.Checkpoint``."""
        from .. import _core

        record = bool(self.options.get("digests"))
        return _core.Checkpoint(str(self.directory), json.dumps(self.config), record=record)

    def tensors(self, which: str) -> TensorFile:
        """The Python side's view of a weight file; ``which`` is ``"t3"``, ``"s3gen"`` or ``"voice_encoder"``."""
        if which not in self._tensors:
            self._tensors[which] = TensorFile(self.directory / self.config["files"][which])
        return self._tensors[which]
