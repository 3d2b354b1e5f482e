"""Which module implements each stage, whether it can run here, and the plan that follows.

``auto`` is Rust where it can run, else Python. An implementation asked for by name that cannot run is a ``BackendError``.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

from ..checkpoint.resources import Resources
from ..errors import BackendError
from ..plan import IMPLEMENTATIONS, KEYS, Plan, Spec, covers, known, parse

ENVIRONMENT = "CHATTERBOX_BACKENDS"
STAGES = __package__.rpartition(".")[0] + ".stages"


_RUNS: set[tuple[str, str]] = set()  # what was found to run; a process does not lose it again
TABLE = {key: {name: f"{STAGES}.{key}.{name}" for name in IMPLEMENTATIONS} for key in KEYS}
"""Stage key → implementation → module with ``create(resources)``."""


def missing(key: str, implementation: str) -> str | None:
    """Why ``implementation`` of stage ``key`` cannot run here, and what to install; None when it can.

    What runs is not looked at again; what does not is looked for at every call, so that an installation is found at once.
    """
    if (key, implementation) in _RUNS:
        return None
    reason = _why_not(key, implementation)
    if reason is None:
        _RUNS.add((key, implementation))
    return reason


def _why_not(key: str, implementation: str) -> str | None:
    module = TABLE[known(key)].get(implementation)
    if module is None:
        return f"stage {key} has no {implementation} implementation in this version"
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        if implementation == "rust":
            return f"the extension module cannot be imported: {error}"
        wanted = "'chatterbox-turbo-rs[torch]'" if error.name == "torch" else error.name
        return f"{error}; pip install {wanted}" if wanted else str(error)
    check: Callable[[], str | None] | None = getattr(found, "missing", None)
    return check() if check else None


def available() -> dict[str, dict[str, str | None]]:
    """Per key and implementation: None when it can run, else the reason why not."""
    return {key: {name: missing(key, name) for name in IMPLEMENTATIONS} for key in TABLE}


def load(key: str, implementation: str, resources: Resources) -> Any:
    """The callable of the stage's contract (see ``stages/<key>/__init__.py``)."""
    reason = missing(key, implementation)
    if reason is not None:
        raise BackendError(f"{key}={implementation}: {reason}")
    return importlib.import_module(TABLE[key][implementation]).create(resources)


def resolve(*specs: Spec) -> Plan:
    """The plan of several switches, the strongest first; ``CHATTERBOX_BACKENDS`` and ``auto`` stand behind them.

    Raises ``BackendError`` for what ``parse`` refuses and for an implementation that is named and cannot run here.
    """
    layers = [parse(spec) for spec in specs]
    layers += [parse(os.environ.get(ENVIRONMENT), ENVIRONMENT), parse("auto")]
    named = {key: _named(key, layers) for key in KEYS}
    return Plan({key: name or _automatic(key) for key, name in named.items()}, [key for key in KEYS if named[key] is None])


def _named(key: str, layers: list[dict[str, str]]) -> str | None:
    """The implementation that the strongest layer names, None for ``auto``."""
    for layer in layers:
        prefixes = [prefix for prefix in layer if covers(prefix, key)]
        if not prefixes:
            continue
        name = layer[max(prefixes, key=len)]
        if name == "auto":
            return None
        reason = missing(key, name)
        if reason is not None:
            raise BackendError(f"{key}={name}: {reason}")
        return name
    return None


def _automatic(key: str) -> str:
    for name in ("rust", "python"):
        if missing(key, name) is None:  # Python is not even imported where Rust runs: SciPy alone takes a second
            return name
    return "rust"  # what `load` says when the stage is needed: an optional stage must not stop the others
