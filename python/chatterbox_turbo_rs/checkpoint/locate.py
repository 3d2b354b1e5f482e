"""Where a model's files are: a directory, the embedded demo, or the Hugging Face hub."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, CheckpointError, DownloadError
from ..progress import on_terminal
from . import config as configuration
from .config import PACKAGE
from .download import Repository, announce, bars
from .tensor_file import LFS_POINTER, lfs_pointer

logger = logging.getLogger(__name__)

TOKENIZER_FILES = ("vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json")
NEEDED_TOKENIZER_FILES = TOKENIZER_FILES[:3]
BUILTIN_VOICE = "conds.pt"
CONFIG = "config.json"
CARD = "MODEL_CARD.md"
"""What the embedded model is, beside its files."""
CLIP = "reference.flac"
"""Five seconds of the embedded model's voice, to try ``voice`` and ``convert`` with."""


def files(config: dict[str, Any]) -> list[str]:
    """The nine files of a model on the hub: five of the tokenizer, three of weights, the built-in voice."""
    return [*TOKENIZER_FILES, *config["files"].values(), BUILTIN_VOICE]


def embedded() -> Path:
    """The directory of the embedded model, ``"demo"``."""
    return Path(str(resources.files(PACKAGE).joinpath("assets").joinpath("demo")))


def locate(model: str | Path, revision: str | None = None, progress: bool = True) -> tuple[Path, dict[str, Any]]:
    """Directory and configuration of ``"turbo"``, ``"nano"``, ``"demo"``, a repository id or a directory.

    Downloads what is missing (see :func:`download`). Raises ``CheckpointError`` when a file is missing in a directory and
    ``ArgumentError`` for a ``revision`` of something that does not come from the hub.
    """
    name = str(model)
    if name in ("turbo", "nano"):
        return download(name, revision, progress)
    if name == "demo":
        _no_revision(name, revision)
        directory = embedded()
        if not directory.is_dir():
            raise CheckpointError(f"demo: this installation has no embedded model ({directory} is missing)")
        return _complete(directory, configuration.read(directory / CONFIG))
    path = Path(model).expanduser()
    if path.is_dir():
        _no_revision(name, revision)
        return _complete(path, configuration.for_directory(path))
    if path.exists():
        raise CheckpointError(f"{path}: expected a directory with the model's files, found a file")
    if isinstance(model, Path) or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(f"{name}: no such directory; expected turbo, nano, demo, a repository id or a directory")
    return download(name, revision, progress)


def download(
    model: str, revision: str | None = None, progress: bool = True, note: Callable[[str], object] | None = None
) -> tuple[Path, dict[str, Any]]:
    """Downloads a model's nine files through huggingface_hub at one commit; files that are in its cache are not asked for.

    ``model`` is ``"turbo"``, ``"nano"`` (at the revision that this version was made for, unless ``revision`` names another)
    or a repository id, whose ``config.json``, or else whose T3 file, tells what it is. A cut connection is resumed where it
    broke. ``HF_HOME``, ``HF_TOKEN``, ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE`` mean what huggingface_hub says. ``progress``
    draws bars on a terminal. Where the Xet storage fails, files come by plain HTTP. Before anything large is fetched
    ``note`` (default: a line on a terminal's stderr, else the log) is told how much it is, and the disk is looked at.

    Raises ``DownloadError`` naming the repository, the revision, the file and what to do.
    """
    note = note or (_on_stderr if progress and on_terminal() else logger.info)
    if model == "demo":
        return locate(model, revision)
    builtin = configuration.builtin(model) if model in ("turbo", "nano") else None
    if builtin is None and model.count("/") != 1:
        raise ArgumentError(f"model: expected turbo, nano or a repository id such as owner/name, got {model!r}")
    repository = Repository(builtin["repository"], revision or builtin["revision"]) if builtin else Repository(model, revision)
    with bars(progress and on_terminal()):
        config = builtin or _config_of(repository)
        announce(repository, files(config), _OPTIONAL, note)
        found = [repository.get(name, optional=name in _OPTIONAL) for name in files(config)]
    directory = next(path.parent for path in found if path is not None)
    return _complete(directory, config)


def _on_stderr(text: str) -> None:
    print(f"chatterbox-turbo: {text}", file=sys.stderr)


_OPTIONAL = (*TOKENIZER_FILES[3:], BUILTIN_VOICE)


def _config_of(repository: Repository) -> dict[str, Any]:
    own = repository.get(CONFIG, optional=True)
    if own is not None:
        return configuration.read(own)
    turbo, nano = (configuration.builtin(name) for name in ("turbo", "nano"))
    if repository.get(turbo["files"]["t3"], optional=True) is not None:
        return turbo
    if repository.get(nano["files"]["t3"], optional=True) is not None:
        return nano
    repository.refuse_if_offline(CONFIG)
    raise DownloadError(
        f"{repository}: expected {CONFIG}, {turbo['files']['t3']} or {nano['files']['t3']}, found none of them;"
        " is this the repository of a Chatterbox Turbo model?"
    )


def _no_revision(name: str, revision: str | None) -> None:
    if revision is not None:
        raise ArgumentError(f"revision: only models from the hub have revisions, {name} is none; got {revision!r}")


def _complete(directory: Path, config: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    needed = [*config["files"].values(), *NEEDED_TOKENIZER_FILES]
    absent = [name for name in needed if not (directory / name).is_file()]
    if absent:
        raise CheckpointError(f"{directory}: missing {', '.join(absent)}; a {config['name']} model needs {', '.join(needed)}")
    for name in (*needed, BUILTIN_VOICE):
        if (directory / name).is_file():
            with open(directory / name, "rb") as file:
                if file.read(len(LFS_POINTER)) == LFS_POINTER:
                    raise CheckpointError(lfs_pointer(directory / name))
    return directory, config
