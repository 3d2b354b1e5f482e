"""The command ``chatterbox-turbo parity``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

from ..audio.files import whole_file
from ..checkpoint import locate
from ..engine import registry
from ..errors import ArgumentError, FileError


def add(commands: Any) -> None:
    """Adds the command to the command line."""
    parity = commands.add_parser(
        "parity",
        help="run the parity checklist: python against rust, and against the official package; exit code 1 when a row fails",
    )
    parity.add_argument("--model", default="demo", help="demo, turbo, nano, a repository id or a directory (default: demo)")
    parity.add_argument("--parties", help="two or three of official,python,rust (default: all that can run here)")
    parity.add_argument("--against", choices=("official", "python", "rust"), help="only the comparisons with this reference")
    parity.add_argument("--official-python", type=Path, metavar="PATH", help="the Python of an environment with chatterbox-tts")
    parity.add_argument("--mode", choices=("isolated", "chained", "both"), default="both")
    parity.add_argument("--device", default="cpu", help="cpu, cuda or metal, for the Rust side")
    parity.add_argument("--clip", type=Path, action="append", help="a reference clip of more than 5.1 s; may be repeated")
    parity.add_argument("--thorough", action="store_true", help="more and longer texts, every clip whole")
    parity.add_argument("--stages", metavar="LIST", help="only the rows of these stages, such as t3,s3gen.flow")
    parity.add_argument(
        "--taps", metavar="STAGE", help="compare the intermediates of a network stage and name the first that is off"
    )
    parity.add_argument(
        "--base-tokenizer", type=Path, metavar="PATH", help="tokenizer.json of ResembleAI/chatterbox, to compare with"
    )
    parity.add_argument("--allow-missing", action="store_true", help="exit code 0 although a row could not be measured")
    parity.add_argument("--rows", action="store_true", help="print every row, not the worst of each stage")
    parity.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON (- for standard output)")
    parity.add_argument("--markdown", type=Path, metavar="FILE", help="write it as Markdown")
    parity.add_argument("--html", type=Path, metavar="FILE", help="write it as one HTML file with plots")
    parity.add_argument("--work", type=Path, metavar="DIR", help="keep the official package's recording here")
    parity.add_argument("--reuse", action="store_true", help="take the official recording that --work holds")
    parity.set_defaults(run=run)


def run(options: argparse.Namespace, bar: Any) -> int:
    """Runs the checklist; returns 1 when a row failed or could not be measured."""
    from . import official_party, report
    from .run import PARTIES, Options, Parity, to_json

    for path in (options.markdown, options.html, options.json):
        if path is not None and str(path) != "-" and not path.parent.is_dir():
            raise FileError(f"{path}: cannot be written: no directory {path.parent}")
    if options.reuse and options.work is None:
        raise ArgumentError("--reuse: expected --work DIR, the directory of an earlier run")
    official = official_party.find(options.official_python)
    wanted = ("official", "python", "rust") if official else ("python", "rust")
    if options.parties is not None:
        wanted = tuple(name.strip() for name in options.parties.split(","))
        if unknown := [name for name in wanted if name not in PARTIES]:
            raise ArgumentError(f"--parties: expected some of {', '.join(PARTIES)}, got {unknown[0]!r}")
    directory, config = locate.locate(options.model)
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        parity = Parity(
            Options(
                directory,
                config,
                _cases(options, work),
                work,
                wanted,
                official,
                options.reuse,
                ("isolated", "chained") if options.mode == "both" else (options.mode,),
                options.device,
                options.against,
                options.taps,
                _stages(options.stages),
                options.base_tokenizer,
                lambda text: print(f"chatterbox-turbo: {text}", file=sys.stderr, flush=True),
            )
        )
        found, drawn = parity.run()
        plots = cast("report.Plots", drawn)
    for path, text in (
        (options.json, lambda: to_json(found)),
        (options.markdown, lambda: report.markdown(found)),
        (options.html, lambda: report.html(found, plots)),
    ):
        if path is not None and str(path) != "-":
            with whole_file(path) as part:
                part.write_text(text(), encoding="utf-8")
    print(to_json(found) if str(options.json) == "-" else report.terminal(found, options.rows))
    summary = found["summary"]
    return 1 if summary["failed"] or (summary["missing"] and not options.allow_missing) else 0


def _stages(text: str | None) -> tuple[str, ...]:
    stages = tuple(part.strip() for part in text.split(",")) if text else ()
    for stage in stages:
        if not any(key == stage or key.startswith(f"{stage}.") for key in registry.TABLE):
            raise ArgumentError(f"--stages: unknown stage {stage!r}; the stages are {', '.join(registry.TABLE)}")
    return stages


def _cases(options: argparse.Namespace, work: Path) -> Any:
    from . import cases

    clips = options.clip or [cases.CLIP]
    for clip in clips:
        if not clip.is_file():
            raise FileError(f"{clip}: no such file")
    if options.thorough:
        if len({clip.stem for clip in clips}) != len(clips):
            raise ArgumentError("--clip: expected files of different names")
        return cases.thorough(clips)
    if len(clips) > 1:
        raise ArgumentError("--clip: expected one clip, or several with --thorough")
    return cases.quick(work, clips[0])
