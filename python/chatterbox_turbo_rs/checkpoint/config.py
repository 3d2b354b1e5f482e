"""Model hyper-parameters: one JSON schema for Python and Rust (``config/*.json``), unknown and missing keys are errors.

The Rust side (``rust/core/src/config.rs``) refuses the same files; ``tests/test_config.py`` compares the two.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from ..constants import HOP
from ..errors import ConfigError, FileError

PACKAGE = __package__.partition(".")[0]

BUILTIN = ("turbo", "nano", "demo")
"""Configurations that come with the package."""
LARGEST = 1 << 24
"""Largest number that a configuration may hold."""


def builtin(name: str) -> dict[str, Any]:
    """The configuration called ``name`` (one of ``BUILTIN``)."""
    if name not in BUILTIN:
        raise ConfigError(f"configuration: unknown name {name!r}; expected one of {', '.join(BUILTIN)}")
    return json.loads(resources.files(PACKAGE).joinpath("config").joinpath(f"{name}.json").read_text("utf-8"))


def read(path: str | Path) -> dict[str, Any]:
    """Reads and checks a ``config.json``; raises ``ConfigError`` that names the file and the key."""
    try:
        text = Path(path).read_text("utf-8")
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: expected JSON in UTF-8, found other bytes") from None
    return parse(text, str(path))


def parse(text: str, origin: str) -> dict[str, Any]:
    """Parses and checks a configuration; ``origin`` names the text in errors. Raises ``ConfigError``."""
    try:
        config = json.loads(text, object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{origin}: expected JSON: {error}") from None
    check(config, origin)
    return config


def check(config: Any, origin: str) -> None:
    """Compares ``config`` with the schema: the keys of ``turbo.json``, values of the same kind, sizes that fit together."""
    _compare(config, _schema(), origin, "")
    _consistent(config, origin)


def for_directory(directory: str | Path) -> dict[str, Any]:
    """The directory's own ``config.json``, or ``nano`` or ``turbo`` by the T3 file that it holds."""
    directory = Path(directory)
    if (directory / "config.json").exists():
        return read(directory / "config.json")
    turbo, nano = builtin("turbo"), builtin("nano")
    only_nano = (directory / nano["files"]["t3"]).exists() and not (directory / turbo["files"]["t3"]).exists()
    return nano if only_nano else turbo


@functools.lru_cache(maxsize=1)
def _schema() -> dict[str, Any]:
    return builtin("turbo")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    items = dict(pairs)
    if len(items) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)} stands there twice")
    return items


def _integer(text: str) -> int | float:
    return -0.0 if text == "-0" else int(text)  # no whole number, as serde_json says


def _constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


def _compare(value: Any, example: Any, origin: str, path: str) -> None:
    def expected(what: str) -> ConfigError:
        found = type(value).__name__ if isinstance(value, (dict, list)) and not isinstance(example, list) else repr(value)[:80]
        return ConfigError(f"{origin}: {path or 'the whole file'}: expected {what}, found {found}")

    if isinstance(example, Mapping):
        if not isinstance(value, Mapping):
            raise expected("an object")
        prefix = f"{path}." if path else ""
        for key in value:
            if key not in example:
                raise ConfigError(f"{origin}: unknown key {prefix}{key}")
        for key, inner in example.items():
            if key not in value:
                raise ConfigError(f"{origin}: key {prefix}{key} is missing")
            _compare(value[key], inner, origin, prefix + key)
    elif isinstance(example, list):
        if not isinstance(value, list) or not value:
            raise expected("a list of whole numbers")
        for item in value:
            _compare(item, example[0], origin, path)
    elif isinstance(example, float):
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not 0 <= value <= LARGEST
            or not math.isfinite(value)
        ):
            raise expected(f"a number from 0 to {LARGEST}")
    elif isinstance(example, int):
        least = 0 if path.endswith("_token") else 1
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST:
            raise expected(f"a whole number from {least} to {LARGEST}")
    elif not ((isinstance(value, str) and _is_text(value)) or (value is None and path in ("repository", "revision"))):
        raise expected("a string")


def _consistent(config: Mapping[str, Any], origin: str) -> None:
    def fail(text: str) -> ConfigError:
        return ConfigError(f"{origin}: {text}")

    if config["format"] != 1:
        raise fail(f"format: expected 1, found {config['format']}")
    for key, name in config["files"].items():
        if not name or name.startswith(".") or any(c in "/\\:" or _is_control(c) for c in name):
            raise fail(f"files.{key}: expected the plain name of a file in the same directory, found {name!r}")
    t3, tokenizer, s3gen = config["t3"], config["s3tokenizer"], config["s3gen"]
    vocoder, speaker = s3gen["vocoder"], config["speaker_encoder"]
    for where, section in (("t3", t3), ("s3tokenizer", tokenizer), ("s3gen.encoder", s3gen["encoder"])):
        if section["hidden_size"] % section["heads"]:
            raise fail(f"{where}.hidden_size by {where}.heads: {section['hidden_size']} is not divisible by {section['heads']}")
    codes = 3 ** min(tokenizer["fsq_dims"], 64)
    if s3gen["vocab"] != codes:
        raise fail(f"s3gen.vocab: expected 3^fsq_dims = {codes}, found {s3gen['vocab']}")
    for where, token, vocab in (
        ("t3.start_token", t3["start_token"], t3["speech_vocab"]),
        ("t3.stop_token", t3["stop_token"], t3["speech_vocab"]),
        ("s3gen.silence_token", s3gen["silence_token"], s3gen["vocab"]),
    ):
        if token >= vocab:
            raise fail(f"{where}: expected a token below {vocab}, found {token}")
    if len({len(vocoder[key]) for key in ("upsample_rates", "upsample_kernels", "source_resblock_kernels")}) != 1:
        raise fail("s3gen.vocoder: upsample_rates, upsample_kernels and source_resblock_kernels differ in length")
    rates, hop = vocoder["upsample_rates"], vocoder["istft_hop"]
    if math.prod(rates) * hop != HOP:
        raise fail(f"s3gen.vocoder: product of upsample_rates {rates} and istft_hop {hop} must be {HOP} samples a frame")
    if len(speaker["layers"]) != len(speaker["dilations"]):
        raise fail("speaker_encoder: layers and dilations differ in length")


def _is_text(value: str) -> bool:
    return not any(0xD800 <= ord(c) < 0xE000 for c in value)


def _is_control(character: str) -> bool:
    return ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0
