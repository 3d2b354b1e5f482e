"""Model hyper-parameters: one JSON schema for Python and Rust (``config/*.json``), unknown and missing keys are errors.

The Rust side (``rust/core/src/config.rs``) refuses the same files; ``tests/test_config.py`` compares the two.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from ..audio.files import regular
from ..constants import ENCODER_RATE, HOP
from ..errors import ConfigError, FileError

PACKAGE = __package__.partition(".")[0]

BUILTIN = ("turbo", "nano")
"""Configurations of the published models, whose directories have no ``config.json``."""
LIST = 8
"""Most items of a list."""


def builtin(name: str) -> dict[str, Any]:
    """The configuration called ``name`` (one of ``BUILTIN``)."""
    if name not in BUILTIN:
        raise ConfigError(f"configuration: unknown name {name!r}; expected one of {', '.join(BUILTIN)}")
    return _resource(name)


def read(path: str | Path) -> dict[str, Any]:
    """Reads and checks a ``config.json``; raises ``ConfigError`` that names the file and the key."""
    try:
        regular(path)
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
    _compare(config, _schema(), ranges(), origin, "")
    _consistent(config, origin)


def for_directory(directory: str | Path) -> dict[str, Any]:
    """The directory's own ``config.json``, or ``nano`` or ``turbo`` by the T3 file that it holds."""
    directory = Path(directory)
    if os.path.lexists(directory / "config.json"):  # a link that leads nowhere is not as good as none
        return read(directory / "config.json")
    turbo, nano = builtin("turbo"), builtin("nano")
    only_nano = (directory / nano["files"]["t3"]).exists() and not (directory / turbo["files"]["t3"]).exists()
    return nano if only_nano else turbo


@functools.lru_cache(maxsize=1)
def _schema() -> dict[str, Any]:
    return builtin("turbo")


@functools.lru_cache(maxsize=1)
def ranges() -> dict[str, Any]:
    """What the numbers may be, by the configuration's keys: ``[least, largest]``, both inside, and ``"odd"`` or ``"even"``."""
    return _resource("ranges")


def _resource(name: str) -> Any:
    return json.loads(resources.files(PACKAGE).joinpath("config").joinpath(f"{name}.json").read_text("utf-8"))


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


def _compare(value: Any, example: Any, limits: Any, origin: str, path: str) -> None:
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
            _compare(value[key], inner, (limits or {}).get(key), origin, prefix + key)
    elif isinstance(example, list):
        if not isinstance(value, list) or not 1 <= len(value) <= LIST:
            raise expected(f"a list of 1 to {LIST} whole numbers")
        for item in value:
            _compare(item, example[0], limits, origin, path)
    elif isinstance(example, (int, float)):
        least, largest, *kind = limits or [1, 1]
        whole = isinstance(example, int)
        fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool) and least <= value <= largest
        if not fits or (kind and value % 2 != (kind[0] == "odd")):
            numbers = " ".join([*kind, "whole number"]) if whole else "number"
            raise expected(f"{'an' if kind else 'a'} {numbers} from {json.dumps(least)} to {json.dumps(largest)}")
    elif not ((isinstance(value, str) and _is_text(value)) or (value is None and path in ("repository", "revision"))):
        raise expected("a string")


def _consistent(config: Mapping[str, Any], origin: str) -> None:
    def fail(text: str) -> ConfigError:
        return ConfigError(f"{origin}: {text}")

    for key, name in config["files"].items():
        if not name or name.startswith(".") or any(c in "/\\:" or _is_control(c) for c in name):
            raise fail(f"files.{key}: expected the plain name of a file in the same directory, found {name!r}")
    t3, tokenizer, s3gen = config["t3"], config["s3tokenizer"], config["s3gen"]
    vocoder, speaker = s3gen["vocoder"], config["speaker_encoder"]
    for where, section in (("t3", t3), ("s3tokenizer", tokenizer), ("s3gen.encoder", s3gen["encoder"])):
        if section["hidden_size"] % section["heads"]:
            raise fail(f"{where}.hidden_size by {where}.heads: {section['hidden_size']} is not divisible by {section['heads']}")
    if tokenizer["hidden_size"] // tokenizer["heads"] % 2:
        raise fail(
            f"s3tokenizer.hidden_size by s3tokenizer.heads: expected an even number, found {tokenizer['hidden_size'] // tokenizer['heads']}"
        )
    if t3["prompt_tokens"] > t3["positions"] - 3:
        raise fail(f"t3.prompt_tokens: expected at most t3.positions - 3 = {t3['positions'] - 3}, found {t3['prompt_tokens']}")
    voice = config["voice_encoder"]
    step = round(ENCODER_RATE / voice["partials_per_second"] / voice["partial_frames"])
    if not 1 <= step <= voice["partial_frames"]:
        raise fail(
            f"voice_encoder.partials_per_second: expected partials 1 to {voice['partial_frames']} frames apart, found {step}"
        )
    codes = 3 ** tokenizer["fsq_dims"]
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
    for rate, kernel in zip(rates, vocoder["upsample_kernels"]):
        if kernel < rate or (kernel - rate) % 2:
            raise fail(f"s3gen.vocoder.upsample_kernels: expected {rate}, its rate, and an even number on top, found {kernel}")
    if vocoder["base_channels"] % 2 ** len(rates):
        raise fail(f"s3gen.vocoder.base_channels: expected a multiple of {2 ** len(rates)}, found {vocoder['base_channels']}")
    if vocoder["istft_size"] < hop:
        raise fail(f"s3gen.vocoder.istft_size: expected at least istft_hop = {hop}, found {vocoder['istft_size']}")
    if len(speaker["layers"]) != len(speaker["dilations"]):
        raise fail("speaker_encoder: layers and dilations differ in length")


def _is_text(value: str) -> bool:
    return not any(0xD800 <= ord(c) < 0xE000 for c in value)


def _is_control(character: str) -> bool:
    return ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0
