"""What the commands share: options, and what can be refused before any work."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..audio.encode import format_of
from ..errors import ArgumentError, BackendError, FileError, TextError
from ..options import LOUDNESS, PRECISIONS, WATERMARK, GenerationOptions, Split, split_of
from ..plan import parse
from ..progress import on_terminal
from . import streams

if TYPE_CHECKING:
    from ..model import ChatterboxTurbo

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
FILE = click.Path(path_type=Path)


def stacked(*options: Decorator) -> Decorator:
    """Options in the order in which help lists them."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _backends(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    try:
        parse(value)
    except BackendError as error:  # the stages are the same everywhere, so that this is wrong use
        raise ArgumentError(str(error)) from None
    return value


def _device(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"auto|(cpu|cuda|metal|mps)(:\d+)?", value):
        raise ArgumentError(f"device: expected auto, cpu, cuda, cuda:1, metal or mps, got {value!r}")
    return value


def _report(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and (parameter.name != "json_file" or str(value) != "-"):
        try:
            writable(value)
        except FileError as error:
            raise FileError(f"{parameter.opts[0]}: {error}") from None
    return value


def _none(context: click.Context, parameter: click.Parameter, value: str) -> str | None:
    return None if value == "none" else value


def _choice(name: str, values: Sequence[str | None], text: str) -> Decorator:
    """One of ``values``, the first unless another is named, ``none`` for None."""
    names = [value or "none" for value in values]
    return click.option(name, type=click.Choice(names), default=names[0], callback=_none, help=text)


def models(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    from click.shell_completion import CompletionItem

    names = [name for name in ("turbo", "nano", "demo") if name.startswith(incomplete)]
    return [CompletionItem(name) for name in names] or [CompletionItem(incomplete, type="dir")]


def model_option(default: str) -> Decorator:
    """``--model``."""
    text = "turbo, nano, demo, a repository id or a directory."
    return click.option("--model", default=default, shell_complete=models, help=text)


def device_option(default: str, text: str) -> Decorator:
    """``--device``."""
    return click.option("--device", default=default, callback=_device, metavar="NAME", help=text)


def report_file(kind: str) -> Decorator:
    """``--KIND FILE``, which the command gets as ``KIND_file`` when it can be written."""
    text = f"Write the report as {kind.upper() if kind != 'markdown' else 'Markdown'}{' (- for standard output)' if kind == 'json' else ''}."
    if kind == "abx":
        text = "Write a page for listening and a blind test (ABX) of two sides, in place of the checklist."
    return click.option(f"--{kind}", f"{kind}_file", type=FILE, metavar="FILE", callback=_report, help=text)


revision = click.option(
    "--revision", metavar="NAME", show_default="the pinned one", help="A commit, branch or tag of a model on the hub."
)
device = device_option("auto", "auto, cpu, cuda, cuda:1 or metal.")
precision = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default=PRECISIONS[0],
    help="f32 is the parity contract, int8 and int4 T3's weights, bf16 S3Gen's products.",
)
backends = click.option(
    "--backends",
    metavar="SPEC",
    callback=_backends,
    show_default="$CHATTERBOX_BACKENDS or auto",
    help="Which side runs each stage, such as auto,t3=rust,text=python.",
)
loudness = _choice("--loudness", LOUDNESS, "How a reference clip is brought to its level.")
watermark = _choice("--watermark", WATERMARK, "The mark that is put into the sound.")
voice = click.option(
    "--voice", type=FILE, show_default="the model's own", help="A reference clip of more than 5 s, or a voice file."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")


def seed_option(default: int | None = None) -> Decorator:
    """``--seed``; a random one without a default."""
    shown = default is not None or "a random one"
    return click.option("--seed", type=int, default=default, show_default=shown, help="The same seed, the same sound.")


MODEL = ("model", "revision", "device", "precision", "tokenizer", "backends")
model_options = stacked(
    model_option("turbo"),
    revision,
    device,
    precision,
    click.option("--tokenizer", type=FILE, show_default="the model's", help="Another tokenizer.json."),
    backends,
)


def _words(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    found = dict(value.partition("=")[::2] for value in values)
    if bad := [value for value in values if "=" not in value]:
        raise ArgumentError(f"--pronounce: expected WORD=SPOKEN, got {bad[0]!r}")
    return found


SPLIT = ("first", "longest", "sentence_pause", "paragraph_pause", "attempts", "language")
split_options = stacked(
    click.option(
        "--split",
        type=click.Choice(("auto", "never")),
        default="auto",
        help="Whether a text of more than --longest characters, or with [pause 0.5s], is spoken in segments.",
    ),
    click.option(
        "--longest",
        default=Split.longest,
        metavar="N",
        help="Characters of a segment at most; the model's own limit may be lower.",
    ),
    click.option("--first", default=Split.first, metavar="N", help="Characters of a long text's first segment at most."),
    click.option("--sentence-pause", default=Split.sentence_pause, metavar="S", help="Silence between segments, in seconds."),
    click.option("--paragraph-pause", default=Split.paragraph_pause, metavar="S", help="Silence between paragraphs."),
    click.option("--attempts", default=Split.attempts, metavar="N", help="A segment that went wrong is spoken so often again."),
    click.option("--language", default=Split.language, metavar="CODE", help="Whose rules say where sentences end."),
)
SPEAKING = (
    "voice",
    "seed",
    "temperature",
    "top_p",
    "top_k",
    "repetition_penalty",
    "max_tokens",
    "loudness",
    "watermark",
    "speed",
    "pronounce",
)


def speaking_options(seed: int | None = None, max_tokens: int = GenerationOptions.max_tokens) -> Decorator:
    """The arguments of ``generate``."""
    return stacked(
        voice,
        seed_option(seed),
        click.option(
            "--temperature",
            default=GenerationOptions.temperature,
            help="Above 1 more varied, below 1 more even; 0 and below mean 1.",
        ),
        click.option(
            "--top-p",
            default=GenerationOptions.top_p,
            help="Draw among the likeliest tokens that together have this probability.",
        ),
        click.option("--top-k", default=GenerationOptions.top_k, help="Draw among so many of the likeliest tokens."),
        click.option(
            "--repetition-penalty",
            default=GenerationOptions.repetition_penalty,
            help="Above 1, tokens that were spoken become less likely.",
        ),
        click.option("--max-tokens", default=max_tokens, help="Speech is cut here, at 25 tokens a second."),
        click.option("--speed", default=GenerationOptions.speed, metavar="X", help="0.5 to 2; the pitch stays."),
        click.option(
            "--pronounce",
            multiple=True,
            metavar="WORD=SPOKEN",
            callback=_words,
            help="What is spoken in place of a word; may be given again.",
        ),
        split_options,
        loudness,
        watermark,
        as_json,
    )


def some(names: Sequence[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """The ``values`` that are called ``names``."""
    return {name: values[name] for name in names}


def speaking(values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``generate`` that ``speaking_options`` stand for, checked before a model is loaded."""
    found = some(SPEAKING, values) | {"split": split_of_options(values)}
    for name in ("voice", "tokenizer"):
        there(values.get(name))
    checked = {name: value for name, value in found.items() if name != "voice" and (name, value) != ("seed", None)}
    GenerationOptions(**(checked | {"split": split_of(found["split"])}))
    return found


def split_of_options(values: Mapping[str, Any]) -> Any:
    """What ``split_options`` stand for, as ``generate`` takes it."""
    limits = Split(**some(SPLIT, values))
    return "never" if values["split"] == "never" else limits


def known_limit(model: str) -> int:
    """The characters that a model speaks well in one go, without a download: of a repository whose files are elsewhere the usual ones."""
    from ..checkpoint import config, locate

    if model in config.BUILTIN:
        return config.builtin(model)["text"]["longest"]
    directory = locate.embedded() if model == "demo" else Path(model).expanduser()
    return config.for_directory(directory)["text"]["longest"] if directory.is_dir() else Split.longest


def within(options: GenerationOptions, longest: int) -> GenerationOptions:
    """``options`` with segments of at most ``longest`` characters."""
    return replace(options, split=options.split and options.split.within(longest))


def load(values: Mapping[str, Any], t3: bool = True) -> ChatterboxTurbo:
    """The model that ``model_options`` stand for."""
    from ..model import ChatterboxTurbo

    return ChatterboxTurbo.from_pretrained(**some(MODEL, values), t3=t3, progress=on_terminal())


def there(path: Path | None) -> None:
    """Raises ``FileError`` when ``path`` is no file that is there: better now than after a download."""
    if path is not None and (path.is_dir() or not path.exists()):
        raise FileError(f"{path}: {'is a directory' if path.is_dir() else 'No such file or directory'}")


def target(output: Path, form: str | None) -> str:
    """The format of ``output``, which can be written; raises ``ArgumentError`` and ``FileError`` before any work."""
    if str(output) == "-":
        _pipe()
        return form or "wav"
    form = form or format_of(output)
    writable(output)
    return form


def given(text: str) -> str:
    """``text``, or what standard input holds for ``-``."""
    if text == "-":
        text = streams.decoded("standard input", streams.standard_input())
        if not text.strip():
            raise TextError("standard input: expected a text, found none")
    return text


def _pipe() -> None:
    if sys.__stdout__ is None:
        raise FileError("-: cannot be written: standard output is closed")
    if sys.stdout.isatty():
        raise ArgumentError("-o -: expected a pipe or a file behind it, such as | aplay -, found a terminal")


def writable(path: Path) -> None:
    """Raises ``FileError`` when ``path`` cannot become a file: better now than after the work."""
    if path.is_dir():
        raise FileError(f"{path}: expected a file name, found a directory")
    if path.exists() and not path.is_file():
        raise FileError(f"{path}: expected a file name, found a device or a pipe")
    _writable_in(path, path.parent)


def writable_directory(path: Path) -> None:
    """Raises ``FileError`` when ``path`` is no directory and cannot become one, or cannot be written into."""
    if path.exists() and not path.is_dir():
        raise FileError(f"{path}: expected a directory, found a file")
    _writable_in(path, path if path.is_dir() else path.parent)


def _writable_in(path: Path, directory: Path) -> None:
    if not directory.is_dir():
        raise FileError(f"{path}: cannot be written: no directory {directory}")
    if not os.access(directory, os.W_OK):
        raise FileError(f"{path}: cannot be written: no permission to write into {directory}")
