"""Speaking on a Ray cluster: one model an actor, on as many threads as Ray gave it CPUs. Only this process writes files.

Parts come back one by one. When a worker dies, what it had not given back goes to the others, and another takes its place. Who speaks a
part is of no matter to its samples, as long as the CPUs are of one level.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import _core
from ..errors import ArgumentError, BackendError, ChatterboxError, FileError
from ..options import Result
from ..voice import Voice, is_voice_file
from .handout import Handout
from .local import How, Local
from .plan import Item

logger = logging.getLogger(__name__)

OBJECT_STORE = 256 << 20
"""Bytes for parts on their way, in a cluster that is started here."""
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it would tell its maker
}
"""Environment of a cluster that is started here, unless it says otherwise."""
MOST_DEATHS = 3
"""Workers in one place that may die one after the other without having spoken anything."""
PATIENCE = 60
"""Seconds after which it is said that the first worker is waited for."""
REACHED = 20
"""Seconds within which a cluster's machine has to answer."""


class ClusterError(ChatterboxError):
    """The cluster cannot be reached, or its workers do not live, or do not fit together."""


def module() -> Any:
    """Ray. Raises ``BackendError`` where it is not installed."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise BackendError(f"ray is missing ({error}); pip install 'chatterbox-turbo-rs[ray]'") from None
    return ray


class Worker:
    """The actor. The model is loaded by the first call and not with the actor, where Ray would keep only the text of an error."""

    def __init__(self, how: How, cpus: int) -> None:
        os.environ["RAYON_NUM_THREADS"] = str(cpus)  # read when the threads are started, for the model
        self._how = how

    @functools.cached_property
    def _local(self) -> Local:
        return Local.load(self._how)

    def about(self) -> dict[str, Any]:
        """Fingerprint, precision, voice, limit, and what this machine is."""
        built = _core.build_info()
        mine = {name: getattr(self._local, name) for name in ("model", "precision", "voice", "longest")}
        return mine | {"cpu_level": built["cpu_level"], "threads": built["threads"], "pid": os.getpid()}

    def speak(self, items: Sequence[Item]) -> Iterator[tuple[str, Result]]:
        """Each item's address and speech, or what is wrong with it."""
        for item, result in self._local.speak(items):
            yield item.address, result


class Cluster:
    """A ``Speaker``: ``with Cluster(address, how, workers) as cluster``.

    ``address`` is ``"auto"`` (a cluster that runs here or that RAY_ADDRESS names, else one that is started for the time) or
    ``"HOST:PORT"``. ``workers`` is how many models there are, one a machine for None; they share each machine's CPUs.
    ``remark`` is told in a line what holds the work up.
    Raises ``ClusterError``, ``BackendError`` without Ray, and what loading the model and preparing the voice raise.
    """

    def __init__(
        self, address: str, how: How, workers: int | None = None, remark: Callable[[str], object] = logger.warning
    ) -> None:
        if address != "auto" and not re.fullmatch(r"[^:/]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}", address):
            raise ArgumentError(f"--ray: expected auto, or HOST:PORT of a cluster that this machine is part of, got {address!r}")
        self._ray = module()
        self._address, self._how, self._asked = address, portable(how), workers
        self._remark = remark
        self._own = not self._ray.is_initialized()
        self._actors: list[Any] = []
        self._stop = threading.Event()
        self.levels: set[str] = set()

    def __enter__(self) -> Cluster:
        try:
            if self._own:
                self._connect()
        except Exception as error:  # Ray raises of every kind, a plain Exception among them
            self._ray.shutdown()
            raise ClusterError(f"--ray {self._address}: no cluster there: {_line(error)}") from None
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for actor in self._actors:
            with contextlib.suppress(Exception):
                self._ray.kill(actor)
        if self._own:
            self._ray.shutdown()

    def _connect(self) -> None:
        """To the cluster, or to one that is started here."""
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": False}
        try:
            if self._address != "auto":  # Ray would try for minutes
                host, _, port = self._address.rpartition(":")
                socket.create_connection((host.strip("[]"), int(port)), REACHED).close()
            self._ray.init(address=self._address, **options)
        except ConnectionError:
            if self._address != "auto":
                raise
            self._ray.init(address="local", include_dashboard=False, object_store_memory=OBJECT_STORE, **options)

    def _begin(self) -> None:
        """Starts the first worker, which says what all are to be, and then the others."""
        nodes = [
            node["Resources"].get("CPU", 0.0)
            for node in self._ray.nodes()
            if node["Alive"] and node["Resources"].get("CPU", 0.0) >= 1
        ]
        if not nodes:
            raise ClusterError("--ray: the cluster has no CPU")
        count = self._asked or len(nodes)
        self.cpus = max(1, math.floor(min(nodes) / math.ceil(count / len(nodes))))
        first = self._start()
        asked = first.about.remote()
        if not self._ray.wait([asked], timeout=PATIENCE)[0]:
            self._remark(f"--ray: no worker yet; it needs {self.cpus} CPUs, which the cluster may be using for other work")
        about = self._get(asked)
        self.model, self.precision, self.voice, self.longest = (
            about[name] for name in ("model", "precision", "voice", "longest")
        )
        self.levels.add(about["cpu_level"])
        self._how = replace(self._how, voice=self.voice, loading={**self._how.loading, "precision": self.precision})
        self._actors = [first, *(self._start() for _ in range(count - 1))]

    def _start(self) -> Any:
        of_gpu = str(self._how.loading.get("device", "auto")).startswith("cuda")
        options = {"num_cpus": self.cpus, "num_gpus": 1 if of_gpu else 0, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        return self._ray.remote(Worker).options(**options).remote(self._how, self.cpus)

    def _get(self, ref: Any) -> Any:
        """A result. What the package raised there is raised here; what Ray raises is a ``ClusterError``."""
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            raise _cause(error) from None
        except self._ray.exceptions.RayActorError as error:
            raise ClusterError(f"--ray: a worker is gone: {_line(error)}") from None

    def pids(self) -> list[int]:
        """The workers' processes."""
        return [self._get(actor.about.remote())["pid"] for actor in self._actors]

    def speak(self, items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        """Each item with its result, by whichever worker."""
        work = Handout(items, len(self._actors), self._how.batch)
        threads = [threading.Thread(target=self._serve, args=(place, work), daemon=True) for place in range(len(self._actors))]
        for thread in threads:
            thread.start()
        try:
            for _ in range(len(items)):
                found = work.done.get()
                if isinstance(found, BaseException):
                    raise found
                yield found
                del found
        finally:
            work.close()

    def _serve(self, place: int, work: Handout) -> None:
        """Has one worker speak until there is nothing left; a thread of its own."""
        deaths, checked = 0, False
        try:
            while items := work.take():
                left = {item.address: item for item in items}
                try:
                    if not checked:
                        self._check(self._get(self._actors[place].about.remote()))
                        checked = True
                    for ref in self._actors[place].speak.options(num_returns="streaming").remote(items):
                        address, result = self._ray.get(ref)
                        work.give(left.pop(address), result)
                        del result
                        deaths = 0
                except self._ray.exceptions.RayTaskError as error:
                    if isinstance(error.cause, ChatterboxError):
                        raise error.cause from None
                    raise ClusterError(f"--ray: a worker failed: {_line(error.cause)}") from None
                except (self._ray.exceptions.RayError, ClusterError) as error:
                    if work.closed or self._stop.is_set():
                        return
                    deaths, checked = deaths + 1, False
                    if deaths > MOST_DEATHS:
                        raise ClusterError(f"--ray: {deaths} workers in a row did not live: {_line(error)}") from None
                    self._remark(f"--ray: a worker is gone; its {len(left)} segments go to the others")
                    self._actors[place] = self._start()
                finally:
                    work.back(left.values())
        except BaseException as error:
            work.fail(error)

    def _check(self, about: dict[str, Any]) -> None:
        """Raises ``VoiceError``-like trouble early: a worker with other weights would speak another book."""
        if about["model"] != self.model:
            raise _Different("--ray: the machines have different models or versions of this package; all need the same")
        self.levels.add(about["cpu_level"])


class _Different(ChatterboxError):
    """A worker that does not fit; not a ``ClusterError``, since another one in its place would not either."""


def portable(how: How) -> How:
    """``how`` for another machine: the voice's file is read here, and a model's folder has its whole path. Raises ``FileError``, ``VoiceError``."""
    voice, loading = how.voice, dict(how.loading)
    if isinstance(voice, Path):
        voice = Voice.load(voice) if is_voice_file(voice) else _content(voice)
    for name in ("model", "tokenizer"):
        path = loading.get(name)
        if path is not None and os.path.exists(path):
            loading[name] = str(Path(path).resolve())
    return replace(how, voice=voice, loading=loading | {"progress": False})


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from None


def _cause(error: Any) -> BaseException:
    """What the package raised in a worker, without Ray's traceback."""
    cause = getattr(error, "cause", None) or error
    return cause if isinstance(cause, ChatterboxError) else ClusterError(f"--ray: a worker failed: {_line(cause)}")


def _line(error: BaseException) -> str:
    """The first line of what Ray says."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
