"""Model hyper-parameters: one JSON schema for Python and Rust (``config/*.json``), unknown and missing keys are errors."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any, Mapping

from .errors import ConfigError, FileError

BUILTIN = ("turbo", "nano", "demo")
"""Configurations that come with the package."""


def builtin(name: str) -> dict[str, Any]:
    """The configuration called ``name`` (one of ``BUILTIN``)."""
    if name not in BUILTIN:
        raise ConfigError(f"configuration: unknown name {name!r}; expected one of {', '.join(BUILTIN)}")
    return json.loads(resources.files(__package__).joinpath("config", f"{name}.json").read_text("utf-8"))


def read(path: str | Path) -> dict[str, Any]:
    """Reads and checks a ``config.json``; raises ``ConfigError`` that names the file and the key."""
    try:
        text = Path(path).read_text("utf-8")
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: expected JSON in UTF-8, found other bytes") from None
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: expected JSON: {error}") from None
    check(config, str(path))
    return config


def check(config: Any, origin: str) -> None:
    """Compares ``config`` with the schema: the same keys as ``turbo.json``, values of the same kind."""
    _compare(config, builtin("turbo"), origin, "")


def for_directory(directory: str | Path) -> dict[str, Any]:
    """The directory's own ``config.json``, or ``nano`` or ``turbo`` by the T3 file that it holds."""
    directory = Path(directory)
    if (directory / "config.json").exists():
        return read(directory / "config.json")
    turbo, nano = builtin("turbo"), builtin("nano")
    only_nano = (directory / nano["files"]["t3"]).exists() and not (directory / turbo["files"]["t3"]).exists()
    return nano if only_nano else turbo


def _compare(value: Any, example: Any, origin: str, path: str) -> None:
    where = path or "the whole file"
    if isinstance(example, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{origin}: {where}: expected an object, found {type(value).__name__}")
        for key in value.keys() - example.keys():
            raise ConfigError(f"{origin}: unknown key {path + '.' if path else ''}{key}")
        for key, inner in example.items():
            name = f"{path}.{key}" if path else key
            if key not in value:
                raise ConfigError(f"{origin}: key {name} is missing")
            _compare(value[key], inner, origin, name)
    elif isinstance(example, list):
        if not isinstance(value, list) or not all(_whole(v) for v in value):
            raise ConfigError(f"{origin}: {where}: expected a list of whole numbers, found {value!r}")
    elif isinstance(example, float):
        if not (_whole(value) or isinstance(value, float)):
            raise ConfigError(f"{origin}: {where}: expected a number, found {value!r}")
    elif isinstance(example, int):
        if not _whole(value):
            raise ConfigError(f"{origin}: {where}: expected a whole number, found {value!r}")
    elif not (isinstance(value, str) or (value is None and path in ("repository", "revision"))):
        raise ConfigError(f"{origin}: {where}: expected a string, found {value!r}")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
