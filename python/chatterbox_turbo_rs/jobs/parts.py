"""A job's folder: the parts that were spoken, each a file that is whole or not there, and one process at a time.

A part is a safetensors file named by its address, with the samples as they came, their SHA-256, and what the engine found of them. What
can be read and fits its digest was spoken; everything else was not. So nothing but the parts needs to survive.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from ..audio.files import whole_file
from ..checkpoint.tensor_file import TensorFile
from ..errors import CheckpointError, FileError
from ..speech import Fault, FinishReason, Speech

ENDING = ".safetensors"
LOCK = "lock"
SUBFOLDER = "parts"


@dataclass(frozen=True)
class Verdict:
    """What is known of a part beside its samples: how many they are, T3's tokens, and what is wrong with it."""

    samples: int
    tokens: int
    reason: FinishReason
    faults: tuple[Fault, ...]

    @classmethod
    def of(cls, speech: Speech) -> Verdict:
        [only] = speech.segments
        return cls(len(speech.samples), only.tokens, speech.finish_reason, only.faults)


class DamagedPart(FileError):
    """The part with this ``address`` cannot be used."""

    def __init__(self, message: str, address: str) -> None:
        super().__init__(message)
        self.address = address


class Store:
    """The parts in a folder, which is made for the first of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parts = folder / SUBFOLDER

    def path(self, address: str) -> Path:
        return self._parts / f"{address}{ENDING}"

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """One process at a time: the folder is this one's until the ``with`` ends, or the process does. Raises ``FileError``.

        What a process that was killed left half-written is taken away, and in the end a folder without parts.
        """
        from filelock import FileLock, Timeout

        try:
            self._parts.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / LOCK, timeout=0)
            with lock:
                for left in [*self._parts.glob(".*.part"), *self.folder.glob(".*.part")]:
                    left.unlink(missing_ok=True)
                try:
                    yield
                finally:
                    if self.count() == 0:
                        self.remove()
        except Timeout:
            raise FileError(f"{self.folder}: another process is at work on this job") from None
        except FileError:
            raise
        except (OSError, NotImplementedError) as error:
            raise FileError(
                f"{self.folder}: cannot be used as a job's folder: {getattr(error, 'strerror', None) or error}"
            ) from None

    def write(self, address: str, speech: Speech) -> Verdict:
        """Keeps a speech of one segment. Raises ``FileError`` when the system refuses."""
        from safetensors.numpy import save

        verdict = Verdict.of(speech)
        samples = np.ascontiguousarray(speech.samples, np.float32)
        told = {
            "address": address,
            "sha256": hashlib.sha256(samples.tobytes()).hexdigest(),
            "tokens": str(verdict.tokens),
            "reason": verdict.reason,
            "faults": json.dumps(verdict.faults),
            "text": speech.segments[0].text,
            "seed": str(speech.seed),
        }
        data = save({"samples": samples}, metadata=told)
        with whole_file(self.path(address)) as temporary:
            temporary.write_bytes(data)
        return verdict

    def verdict(self, address: str) -> Verdict | None:
        """What is known of a part, None where it is not there. Raises ``DamagedPart``; all of it is read."""
        return self.read(address)[1] if self.path(address).exists() else None

    def read(self, address: str) -> tuple[np.ndarray, Verdict]:
        """Samples float32 [n] and verdict of a part. Raises ``DamagedPart``, also where it is missing."""
        path = self.path(address)
        try:
            file = TensorFile(path)
            told = file.metadata
            samples = file.get("samples")
            faults = json.loads(told["faults"])
            if told["address"] != address or told["sha256"] != hashlib.sha256(samples.tobytes()).hexdigest():
                raise ValueError("its content is not what was written")
            verdict = Verdict(len(samples), int(told["tokens"]), cast(FinishReason, told["reason"]), tuple(faults))
        except (CheckpointError, FileError, KeyError, ValueError, TypeError) as error:
            raise DamagedPart(f"{path}: not a whole part: {error}", address) from None
        return samples, verdict

    def drop(self, address: str) -> None:
        """Takes a part away."""
        with contextlib.suppress(OSError):
            self.path(address).unlink(missing_ok=True)

    def count(self) -> int:
        """The parts in the folder, of this job and of others."""
        return sum(1 for _ in self._parts.glob(f"*{ENDING}")) if self._parts.is_dir() else 0

    def remove(self) -> None:
        """Takes the folder away, and nothing in it that is no job's."""
        for path in [*self._parts.glob(f"*{ENDING}"), self.folder / LOCK, self.folder / "manifest.jsonl"]:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        for folder in (self._parts, self.folder):
            with contextlib.suppress(OSError):
                folder.rmdir()
