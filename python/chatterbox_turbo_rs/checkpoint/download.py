"""Files of the Hugging Face hub, at one commit, and what to do when one does not come."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import shutil
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path

from ..errors import DownloadError

logger = logging.getLogger(__name__)


class Repository:
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

    def absent(self, files: Iterable[str]) -> list[str]:
        """Those of ``files`` of which the cache knows nothing at this commit."""
        from huggingface_hub import try_to_load_from_cache

        return [file for file in files if try_to_load_from_cache(self.name, file, revision=self._commit) is None]

    def size(self, file: str, optional: bool) -> int:
        """Bytes of ``file`` on the hub; 0 for an optional file that it does not have, and where it tells no size."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError

        try:
            return get_hf_file_metadata(hf_hub_url(self.name, file, revision=self._commit)).size or 0
        except EntryNotFoundError as error:
            if optional:
                return 0
            raise self._error(file, error) from error

    def refuse_if_offline(self, file: str) -> None:
        """Raises ``DownloadError`` where nobody was asked for ``file``, so that its absence says nothing of the repository."""
        from huggingface_hub import constants
        from huggingface_hub.errors import LocalEntryNotFoundError

        if constants.HF_HUB_OFFLINE:
            raise self._error(file, LocalEntryNotFoundError("offline"))

    def begun(self) -> int:
        """Bytes of files that were begun and will be resumed."""
        return sum(path.stat().st_size for path in _cached(self.name).glob("blobs/*.incomplete"))

    def _error(self, file: str, error: Exception) -> DownloadError:
        return DownloadError(f"{self}: {file}: {_explain(self.name, file, error)}")


def announce(repository: Repository, files: Iterable[str], optional: Container[str], note: Callable[[str], object]) -> None:
    """Tells ``note`` how much of ``files`` is to be fetched, and raises ``DownloadError`` where the disk has no room for it."""
    from huggingface_hub import constants

    absent = repository.absent(files)
    if not absent or constants.HF_HUB_OFFLINE:
        return
    try:
        wanted = sum(repository.size(file, file in optional) for file in absent)
        begun = repository.begun()
        place = next(path for path in (Path(constants.HF_HUB_CACHE), *Path(constants.HF_HUB_CACHE).parents) if path.exists())
        free = shutil.disk_usage(place).free
    except DownloadError:
        raise
    except Exception as error:  # whatever stands in the way is said, with its remedy, by the download itself
        logger.debug("%s: sizes are not known: %s", repository, _first_line(error))
        return
    what = f"{wanted / 1e9:.2f} GB in {len(absent)} files" + (f", {begun / 1e9:.2f} GB of it here already" if begun else "")
    note(f"{repository}: fetching {what} into {constants.HF_HUB_CACHE} ({free / 1e9:.2f} GB free)")
    if wanted - begun > free:
        raise DownloadError(
            f"{repository}: expected {wanted - begun:,} bytes of free space in the cache {constants.HF_HUB_CACHE},"
            f" found {free:,}; free some, or set HF_HOME to another disk"
        )


def _cached(repository: str) -> Path:
    """Where huggingface_hub's cache keeps a repository."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")


def _other_commits(repository: str, file: str) -> str:
    """Advice that names the commits of which the cache has ``file``; empty where there are none."""
    found = sorted(path.parent.name for path in _cached(repository).glob(f"snapshots/*/{file}"))
    return f"; the cache has it of another commit: revision={' or '.join(map(repr, found))}" if found else ""


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
                f"{_other_commits(repository, file)}"
            )
        reason = _first_line(error.__cause__ or error)
        return (
            f"{constants.ENDPOINT} cannot be reached ({reason}); check the connection, HF_ENDPOINT and the proxy, then run again"
            f"{_other_commits(repository, file)}"
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
def bars(shown: bool) -> Iterator[None]:
    """Hides huggingface_hub's warnings, and its progress bars unless ``shown``; its own settings stand again afterwards."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from huggingface_hub.utils import logging as hub_logging

    hide = not shown and not are_progress_bars_disabled()
    if hide:
        disable_progress_bars()
    level = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()  # no warning of every attempt; what comes of them is our error
    try:
        yield
    finally:
        hub_logging.set_verbosity(level)
        if hide:
            enable_progress_bars()


def _is_commit(revision: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
