"""Where a model's files are: a directory, the embedded demo, or the Hugging Face hub."""

from __future__ import annotations

import hashlib
import os
import struct
from importlib import resources
from pathlib import Path
from typing import Any

from . import config as configuration
from .errors import CheckpointError, DownloadError

TOKENIZER_FILES = ("vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json")
NEEDED_TOKENIZER_FILES = TOKENIZER_FILES[:3]
BUILTIN_VOICE = "conds.pt"


def files(config: dict[str, Any]) -> list[str]:
    """The nine files of a model on the hub: three of weights, five of the tokenizer, the built-in voice."""
    return [*config["files"].values(), *TOKENIZER_FILES, BUILTIN_VOICE]


def locate(model: str | Path, revision: str | None = None, progress: bool = True) -> tuple[Path, dict[str, Any]]:
    """Directory and configuration of ``"turbo"``, ``"nano"``, ``"demo"``, a repository id or a directory.

    Downloads what is missing (see :func:`download`). Raises ``CheckpointError`` when a file is missing in a directory.
    """
    name = str(model)
    if name == "demo":
        directory = Path(str(resources.files(__package__).joinpath("assets", "demo")))
        return _complete(directory, configuration.read(directory / "config.json"))
    if name not in configuration.BUILTIN:
        path = Path(model).expanduser()
        if path.is_dir():
            return _complete(path, configuration.for_directory(path))
        if path.exists():
            raise CheckpointError(f"{path}: expected a directory with the model's files, found a file")
        if name.count("/") != 1 or name.startswith((".", "/", "~")):
            raise CheckpointError(f"{name}: no such directory; expected turbo, nano, demo, a repository id or a directory")
    return download(name, revision, progress)


def download(model: str, revision: str | None = None, progress: bool = True) -> tuple[Path, dict[str, Any]]:
    """Downloads a model's nine files through huggingface_hub at a pinned revision, resuming what was begun.

    ``HF_HOME``, ``HF_TOKEN``, ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE`` are honoured; offline, files must be in the cache.
    ``model`` is ``"turbo"``, ``"nano"`` or a repository id (whose T3 file tells which of the two it is).
    Raises ``DownloadError`` that names the repository and the file.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    turbo_t3, nano_t3 = (configuration.builtin(name)["files"]["t3"] for name in ("turbo", "nano"))
    if model in ("turbo", "nano"):
        config = configuration.builtin(model)
        repository, revision = config["repository"], revision or config["revision"]
        wanted = files(config)
    else:
        config, repository = None, model
        wanted = ["config.json", *files(configuration.builtin("turbo")), nano_t3]
    (enable_progress_bars if progress else disable_progress_bars)()
    directory = None
    for name in wanted:
        if config is None and name == nano_t3 and directory is not None and (directory / turbo_t3).exists():
            continue
        try:
            path = hf_hub_download(repository, name, revision=revision, token=os.environ.get("HF_TOKEN") or None)
        except EntryNotFoundError:
            if config is None or name == BUILTIN_VOICE:
                continue
            raise DownloadError(f"{repository}@{revision}: {name} is not in the repository") from None
        except Exception as error:  # noqa: BLE001 - the hub raises many kinds; each becomes one clear error
            reason = str(error).strip().splitlines()
            summary = reason[0] if reason else type(error).__name__
            raise DownloadError(f"{repository}@{revision or 'main'}: {name} cannot be downloaded: {summary}") from error
        directory = Path(path).parent
    if directory is None:
        raise DownloadError(f"{repository}@{revision or 'main'}: none of the model's files is there")
    return _complete(directory, config or configuration.for_directory(directory))


def fingerprint(directory: Path, config: dict[str, Any]) -> str:
    """A quick identity of a checkpoint: SHA-256 over each weight file's size, header, and first and last 64 KiB of data."""
    digest = hashlib.sha256()
    for name in config["files"].values():
        with open(directory / name, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(8)
            header = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
            digest.update(struct.pack("<Q", size) + head)
            digest.update(file.read(min(header, size)))
            digest.update(file.read(65536))
            file.seek(max(size - 65536, 0))
            digest.update(file.read(65536))
    return digest.hexdigest()


def _complete(directory: Path, config: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    needed = [*config["files"].values(), *NEEDED_TOKENIZER_FILES]
    absent = [name for name in needed if not (directory / name).is_file()]
    if absent:
        raise CheckpointError(f"{directory}: missing {', '.join(absent)}; a {config['name']} model needs {', '.join(needed)}")
    return directory, config
