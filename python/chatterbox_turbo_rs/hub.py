"""Where a model's files are: a directory, the embedded demo, or the Hugging Face hub."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import struct
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from . import config as configuration
from .errors import ArgumentError, CheckpointError, DownloadError, FileError
from .progress import on_terminal

logger = logging.getLogger(__name__)

TOKENIZER_FILES = ("vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json")
NEEDED_TOKENIZER_FILES = TOKENIZER_FILES[:3]
BUILTIN_VOICE = "conds.pt"
CONFIG = "config.json"


def files(config: dict[str, Any]) -> list[str]:
    """The nine files of a model on the hub: five of the tokenizer, three of weights, the built-in voice."""
    return [*TOKENIZER_FILES, *config["files"].values(), BUILTIN_VOICE]


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
        directory = Path(str(resources.files(__package__).joinpath("assets").joinpath("demo")))
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


def download(model: str, revision: str | None = None, progress: bool = True) -> tuple[Path, dict[str, Any]]:
    """Downloads a model's nine files through huggingface_hub at one commit; files that are in its cache are not asked for.

    ``model`` is ``"turbo"``, ``"nano"`` (at the revision that this version was made for, unless ``revision`` names another)
    or a repository id, whose ``config.json``, or else whose T3 file, tells what it is. A cut connection is resumed where it
    broke. ``HF_HOME``, ``HF_TOKEN``, ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE`` mean what huggingface_hub says. ``progress``
    draws bars on a terminal. Where the Xet storage fails, files come by plain HTTP.

    Raises ``DownloadError`` naming the repository, the revision, the file and what to do.
    """
    if model == "demo":
        return locate(model, revision)
    builtin = configuration.builtin(model) if model in ("turbo", "nano") else None
    repository = _Repository(builtin["repository"], revision or builtin["revision"]) if builtin else _Repository(model, revision)
    with _bars(progress and on_terminal()):
        config = builtin or _config_of(repository)
        found = [repository.get(name, optional=name in _OPTIONAL) for name in files(config)]
    directory = next(path.parent for path in found if path is not None)
    return _complete(directory, config)


_OPTIONAL = (*TOKENIZER_FILES[3:], BUILTIN_VOICE)


def _config_of(repository: _Repository) -> dict[str, Any]:
    own = repository.get(CONFIG, optional=True)
    if own is not None:
        return configuration.read(own)
    turbo, nano = (configuration.builtin(name) for name in ("turbo", "nano"))
    if repository.get(turbo["files"]["t3"], optional=True) is not None:
        return turbo
    if repository.get(nano["files"]["t3"], optional=True) is not None:
        return nano
    raise DownloadError(
        f"{repository}: expected {CONFIG}, {turbo['files']['t3']} or {nano['files']['t3']}, found none of them;"
        " is this the repository of a Chatterbox Turbo model?"
    )


class _Repository:
    """One repository at one commit: that of the first file, so that a branch that moves meanwhile cannot mix two states."""

    def __init__(self, name: str, revision: str | None) -> None:
        self.name = name
        self.revision = revision or "main"
        self._commit = self.revision

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}"

    def get(self, file: str, optional: bool = False) -> Path | None:
        """The path of ``file`` in the cache; None for an optional file that the repository does not have."""
        from huggingface_hub import _CACHED_NO_EXIST, constants, hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        def known_absent() -> bool:
            return try_to_load_from_cache(self.name, file, revision=self._commit) is _CACHED_NO_EXIST

        try:
            if optional and _is_commit(self._commit) and known_absent():
                return None
            path = Path(hf_hub_download(self.name, file, revision=self._commit))
        except LocalEntryNotFoundError as error:
            if optional and (constants.HF_HUB_OFFLINE or known_absent()):
                return None
            raise self._error(file, error) from error
        except EntryNotFoundError as error:
            if optional:
                return None
            raise self._error(file, error) from error
        except Exception as error:
            text = f"{type(error).__name__} {error}".lower()
            if not constants.HF_HUB_DISABLE_XET and ("xet" in text or "hex hash" in text):
                # Read at import from the environment, at each download from here.
                constants.HF_HUB_DISABLE_XET = True
                logger.warning("%s: %s: Xet failed (%s); going on with plain HTTP", self, file, _first_line(error))
                return self.get(file, optional)
            raise self._error(file, error) from error
        if _is_commit(path.parent.name):
            self._commit = path.parent.name
        return path

    def _error(self, file: str, error: Exception) -> DownloadError:
        return DownloadError(f"{self}: {file}: {_explain(self.name, file, error)}")


def _explain(repository: str, file: str, error: Exception) -> str:
    """What is wrong and what to do about it, in one line."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{repository}"
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, errors.HfHubHTTPError):
        error = error.__cause__  # what the hub answered, before the cache was looked into
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.LocalEntryNotFoundError):
        if constants.HF_HUB_OFFLINE:
            return (
                f"not in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids the network;"
                " unset it and run again, or set HF_HOME to a cache that has the file"
            )
        reason = _first_line(error.__cause__ or error)
        return (
            f"{constants.ENDPOINT} cannot be reached ({reason}); check the connection, HF_ENDPOINT and the proxy, then run again"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return f"the repository has no such file; see {page}/tree/main, or name another revision"
    if isinstance(error, errors.GatedRepoError):
        return f"the repository is gated; accept its terms at {page} and set HF_TOKEN to a token of that account"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the repository has no such revision; see {page}/commits/main"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no repository {page}, or it is private; check the name, or set HF_TOKEN to a token that may read it"
    if isinstance(error, errors.HFValidationError):
        return f"{repository!r} is no repository id; expected owner/name"
    if status in (401, 403):
        return f"{constants.ENDPOINT} refuses the token (HTTP {status}); check HF_TOKEN, or unset it for a public repository"
    if status is not None:
        return f"{constants.ENDPOINT} answers HTTP {status}; try again later"
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.ENOSPC, errno.EDQUOT) or "no space left" in str(error).lower():
        return f"no space left in the cache {constants.HF_HUB_CACHE}; free some, or set HF_HOME to another disk"
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"the cache {constants.HF_HUB_CACHE} cannot be written ({os.strerror(code)}); set HF_HOME to a directory that can"
    return f"the download failed ({type(error).__name__}: {_first_line(error)}); run again"


@contextlib.contextmanager
def _bars(shown: bool) -> Iterator[None]:
    """Hides huggingface_hub's progress bars unless ``shown``; its own setting stands again afterwards."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    hide = not shown and not are_progress_bars_disabled()
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            enable_progress_bars()


def _is_commit(revision: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def fingerprint(directory: Path, config: dict[str, Any]) -> str:
    """A quick identity of a checkpoint: SHA-256 over each weight file's size, header, and first and last 64 KiB of data.

    Raises ``FileError`` when a file cannot be read.
    """
    digest = hashlib.sha256()
    for name in config["files"].values():
        try:
            with open(directory / name, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                head = file.read(8)
                header = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
                digest.update(struct.pack("<Q", size) + head)
                digest.update(file.read(min(header, size)))
                digest.update(file.read(65536))
                file.seek(max(size - 65536, 0))
                digest.update(file.read(65536))
        except OSError as error:
            raise FileError(f"{directory / name}: {error.strerror or error}") from None
    return digest.hexdigest()


def _no_revision(name: str, revision: str | None) -> None:
    if revision is not None:
        raise ArgumentError(f"revision: only models from the hub have revisions, {name} is none; got {revision!r}")


def _complete(directory: Path, config: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    needed = [*config["files"].values(), *NEEDED_TOKENIZER_FILES]
    absent = [name for name in needed if not (directory / name).is_file()]
    if absent:
        raise CheckpointError(f"{directory}: missing {', '.join(absent)}; a {config['name']} model needs {', '.join(needed)}")
    return directory, config
