"""The switch: which implementation runs each stage.

A ``Plan`` says ``python`` or ``rust`` for every key of ``KEYS``. It is parsed from ``"auto"``, ``"rust"``, ``"python"``, a list
such as ``"auto,t3=rust,s3gen.vocoder=python"`` or a dict; a prefix covers its children, and the most specific entry wins.
``engine/registry.py`` resolves it: ``generate(backends=…)``, the constructor, ``CHATTERBOX_BACKENDS``, ``auto``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Union

from .errors import BackendError

IMPLEMENTATIONS = ("python", "rust")
Spec = Union[str, Mapping[str, str], None]
KEYS = (
    "text.normalize",
    "text.tokenize",
    "reference.load",
    "reference.loudness",
    "reference.resample",
    "voice_encoder.mel",
    "voice_encoder.embedding",
    "s3tokenizer.mel",
    "s3tokenizer.tokens",
    "speaker_encoder.fbank",
    "speaker_encoder.xvector",
    "s3gen.prompt_mel",
    "t3.decoder",
    "t3.sampler",
    "s3gen.encoder",
    "s3gen.flow",
    "s3gen.vocoder",
    "watermark",
)
"""The stages, in the order in which they run."""


class Plan(Mapping[str, str]):
    """A frozen map from every stage key to ``"python"`` or ``"rust"``.

    ``automatic`` are the stages that ``auto`` chose for: there another side may take over.
    """

    def __init__(self, choices: Mapping[str, str], automatic: Collection[str] = ()) -> None:
        self.automatic = frozenset(automatic)
        for key in choices:
            known(key)
        self._choices = {key: choices.get(key, "") for key in KEYS}
        for key, name in self._choices.items():
            if name not in IMPLEMENTATIONS:
                raise BackendError(f"plan: expected python or rust for {key}, got {name!r}")

    def but(self, key: str, implementation: str) -> Plan:
        """This plan with another implementation of one stage."""
        return Plan({**self._choices, key: implementation}, self.automatic)

    def __getitem__(self, key: str) -> str:
        return self._choices[known(key)]

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
        if not isinstance(prefix, str) or (prefix and not any(covers(prefix, key) for key in KEYS)):
            raise BackendError(f"{origin}: unknown stage {prefix!r}; the stages are {', '.join(KEYS)}")
        if name not in ("auto", *IMPLEMENTATIONS):
            raise BackendError(f"{origin}: expected auto, python or rust{f' for {prefix}' if prefix else ''}, got {name!r}")
        if result.setdefault(prefix, name) != name:
            raise BackendError(f"{origin}: {prefix or 'the whole'} is to be {result[prefix]} and {name}; name it once")
    return result


def covers(prefix: str, key: str) -> bool:
    """Does ``prefix`` of a switch speak of stage ``key``?"""
    return prefix in ("", key) or key.startswith(prefix + ".")


def known(key: str) -> str:
    """``key``, when it is a stage; else ``BackendError``."""
    if key not in KEYS:
        raise BackendError(f"unknown stage {key!r}; the stages are {', '.join(KEYS)}")
    return key
