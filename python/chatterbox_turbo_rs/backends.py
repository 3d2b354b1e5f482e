"""The switch: which implementation runs each stage.

``TABLE`` is the registry. A ``Plan`` says ``python`` or ``rust`` for every key. It is parsed from ``"auto"``, ``"rust"``,
``"python"``, a list such as ``"auto,t3=rust,s3gen.vocoder=python"`` or a dict; a prefix covers its children, and the most
specific entry wins. Precedence: ``generate(backends=…)``, the constructor, ``CHATTERBOX_BACKENDS``, ``auto``.

``auto`` is Rust where it can run, else Python. An implementation asked for by name that cannot run is a ``BackendError``.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Union

from .errors import BackendError
from .resources import Resources

ENVIRONMENT = "CHATTERBOX_BACKENDS"
IMPLEMENTATIONS = ("python", "rust")
Spec = Union[str, Mapping[str, str], None]


def _both(key: str) -> dict[str, str]:
    return {name: f"{__package__}.stages.{key}.{name}" for name in IMPLEMENTATIONS}


TABLE: dict[str, dict[str, str]] = {
    "text.normalize": _both("text.normalize"),
    "text.tokenize": _both("text.tokenize"),
    "reference.load": _both("reference.load"),
    "reference.loudness": _both("reference.loudness"),
    "reference.resample": _both("reference.resample"),
    "voice_encoder.mel": _both("voice_encoder.mel"),
    "voice_encoder.embedding": _both("voice_encoder.embedding"),
    "s3tokenizer.mel": _both("s3tokenizer.mel"),
    "s3tokenizer.tokens": _both("s3tokenizer.tokens"),
    "speaker_encoder.fbank": _both("speaker_encoder.fbank"),
    "speaker_encoder.xvector": _both("speaker_encoder.xvector"),
    "s3gen.prompt_mel": _both("s3gen.prompt_mel"),
    "t3.decoder": _both("t3.decoder"),
    "t3.sampler": _both("t3.sampler"),
    "s3gen.encoder": _both("s3gen.encoder"),
    "s3gen.flow": _both("s3gen.flow"),
    "s3gen.vocoder": _both("s3gen.vocoder"),
    "watermark": _both("watermark"),
}
"""Stage key → implementation → module with ``create(resources)``."""


def missing(key: str, implementation: str) -> str | None:
    """Why ``implementation`` of stage ``key`` cannot run here, and what to install; None when it can."""
    module = TABLE[_known(key)].get(implementation)
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


class Plan(Mapping[str, str]):
    """A frozen map from every stage key to ``"python"`` or ``"rust"``."""

    def __init__(self, choices: Mapping[str, str]) -> None:
        for key in choices:
            _known(key)
        self._choices = {key: choices.get(key, "") for key in TABLE}
        for key, name in self._choices.items():
            if name not in IMPLEMENTATIONS:
                raise BackendError(f"plan: expected python or rust for {key}, got {name!r}")

    def __getitem__(self, key: str) -> str:
        return self._choices[_known(key)]

    def __contains__(self, key: object) -> bool:
        return key in self._choices

    def __iter__(self) -> Iterator[str]:
        return iter(self._choices)

    def __len__(self) -> int:
        return len(self._choices)

    def __hash__(self) -> int:
        return hash(tuple(self._choices.items()))

    def __str__(self) -> str:
        """The shortest list that parses to this plan."""
        base = max(IMPLEMENTATIONS, key=lambda name: sum(v == name for v in self._choices.values()))
        return ",".join([base, *(f"{key}={name}" for key, name in self._choices.items() if name != base)])

    def __repr__(self) -> str:
        return f"Plan({str(self)!r})"


def parse(spec: Spec, origin: str = "backends") -> dict[str, str]:
    """Splits a switch into ``{"" or prefix: "auto" | "python" | "rust"}``; "" stands for every stage.

    Raises ``BackendError`` that begins with ``origin``: for an unknown stage or implementation, and for one named twice.
    """
    if spec is None:
        return {}
    if isinstance(spec, str):
        items: list[tuple[Any, Any]] = []
        for part in (part.strip() for part in spec.split(",")):
            prefix, equals, name = (piece.strip() for piece in part.partition("="))
            if equals and not prefix:
                raise BackendError(f"{origin}: expected a stage before {part!r}")
            if part:
                items.append((prefix, name) if equals else ("", prefix))
    elif isinstance(spec, Mapping):
        items = list(spec.items())
    else:
        raise BackendError(f"{origin}: expected a string or a dict, got {type(spec).__name__}")
    result: dict[str, str] = {}
    for prefix, name in items:
        if not isinstance(prefix, str) or (prefix and not any(_covers(prefix, key) for key in TABLE)):
            raise BackendError(f"{origin}: unknown stage {prefix!r}; the stages are {', '.join(TABLE)}")
        if name not in ("auto", *IMPLEMENTATIONS):
            raise BackendError(f"{origin}: expected auto, python or rust{f' for {prefix}' if prefix else ''}, got {name!r}")
        if result.setdefault(prefix, name) != name:
            raise BackendError(f"{origin}: {prefix or 'the whole'} is to be {result[prefix]} and {name}; name it once")
    return result


def resolve(*specs: Spec) -> Plan:
    """The plan of several switches, the strongest first; ``CHATTERBOX_BACKENDS`` and ``auto`` stand behind them.

    Raises ``BackendError`` for what ``parse`` refuses and for an implementation that is named and cannot run here.
    """
    layers = [parse(spec) for spec in specs]
    layers += [parse(os.environ.get(ENVIRONMENT), ENVIRONMENT), parse("auto")]
    return Plan({key: _choose(key, layers) for key in TABLE})


def _choose(key: str, layers: list[dict[str, str]]) -> str:
    for layer in layers:
        prefixes = [prefix for prefix in layer if _covers(prefix, key)]
        if not prefixes:
            continue
        name = layer[max(prefixes, key=len)]
        if name != "auto":
            reason = missing(key, name)
            if reason is not None:
                raise BackendError(f"{key}={name}: {reason}")
            return name
        break
    for name in ("rust", "python"):
        if missing(key, name) is None:  # Python is not even imported where Rust runs: SciPy alone takes a second
            return name
    return "rust"  # what `load` says when the stage is needed: an optional stage must not stop the others


def _covers(prefix: str, key: str) -> bool:
    return prefix in ("", key) or key.startswith(prefix + ".")


def _known(key: str) -> str:
    if key not in TABLE:
        raise BackendError(f"unknown stage {key!r}; the stages are {', '.join(TABLE)}")
    return key
