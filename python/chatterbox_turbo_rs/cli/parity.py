"""``chatterbox-turbo parity``: the checklist as a program."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, cast

import click

from ..audio.files import whole_file
from ..checkpoint import locate
from ..engine import registry
from ..errors import ArgumentError, FileError
from ..progress import on_terminal
from . import parity_abx, streams
from .common import FILE, device_option, model_option, report_file, revision

PARTIES: tuple[str, ...] = ("official", "python", "rust")
MODES = {"isolated": ("isolated",), "chained": ("chained",), "both": ("isolated", "chained")}


@click.command()
@model_option("demo")
@revision
@click.option("--parties", metavar="LIST", show_default="all that can run here", help="Two or three of official,python,rust.")
@click.option("--against", type=click.Choice(PARTIES), help="Only the comparisons with this reference.")
@click.option("--official-python", type=FILE, metavar="PATH", help="The Python of an environment with chatterbox-tts.")
@click.option(
    "--mode",
    type=click.Choice(list(MODES)),
    default="both",
    help="Each stage on the reference's inputs, on its own side's, or both.",
)
@device_option("cpu", "cpu, cuda or metal, for the Rust side.")
@click.option(
    "--clip",
    "clips",
    type=FILE,
    multiple=True,
    show_default="the packaged one",
    help="A reference clip of more than 5.1 s; may be repeated.",
)
@click.option("--thorough", is_flag=True, help="More and longer texts, every clip whole.")
@click.option("--stages", metavar="LIST", show_default="all", help="Only the rows of these stages, such as t3,s3gen.flow.")
@click.option("--taps", metavar="STAGE", help="Compare the intermediates of a network stage and name the first that is off.")
@click.option("--base-tokenizer", type=FILE, metavar="PATH", help="tokenizer.json of ResembleAI/chatterbox, to compare with.")
@click.option("--allow-missing", is_flag=True, help="Exit code 0 although a row could not be measured.")
@click.option("--rows", is_flag=True, help="Print every row, not the worst of each stage.")
@report_file("json")
@report_file("markdown")
@report_file("html")
@report_file("abx")
@click.option(
    "--sides",
    nargs=2,
    metavar="A B",
    show_default="python@f32 rust@f32, or rust@f32 rust@bf16 without PyTorch",
    help="What --abx compares: plans, each with @ and a precision, such as rust@f32 s3gen.vocoder=python@f32.",
)
@click.option("--text", "spoken", multiple=True, show_default="three sentences", help="What --abx speaks; may be repeated.")
@click.option("--work", type=FILE, metavar="DIR", help="Keep the official package's recording here.")
@click.option("--reuse", is_flag=True, help="Take the official recording that --work holds.")
def command(
    model: str,
    revision: str | None,
    parties: str | None,
    official_python: Path | None,
    mode: str,
    clips: tuple[Path, ...],
    thorough: bool,
    stages: str | None,
    allow_missing: bool,
    rows: bool,
    work: Path | None,
    reuse: bool,
    json_file: Path | None,
    markdown_file: Path | None,
    html_file: Path | None,
    abx_file: Path | None,
    sides: tuple[str, str] | None,
    spoken: tuple[str, ...],
    **asked: Any,
) -> int:
    """Run the parity checklist.

    Python against Rust, and against the official package; exit code 1 when a row fails or could not be measured.
    With --abx, a page for listening in its place.
    """
    if abx_file is not None:
        given = {**asked, "parties": parties, "official_python": official_python, "stages": stages, "work": work}
        reports = {"json_file": json_file, "markdown_file": markdown_file, "html_file": html_file}
        return parity_abx.write(abx_file, model, revision, asked["device"], clips, sides, spoken, {**given, **reports})
    if sides or spoken:
        raise ArgumentError(f"--{'sides' if sides else 'text'}: expected --abx FILE beside it")
    from ..parity import official_party, report
    from ..parity.run import Options, Parity, to_json

    if reuse and work is None:
        raise ArgumentError("--reuse: expected --work DIR, the directory of an earlier run")
    official = official_party.find(official_python)
    wanted = PARTIES if official else PARTIES[1:]
    if parties is not None:
        wanted = tuple(name.strip() for name in parties.split(","))
        if unknown := [name for name in wanted if name not in PARTIES]:
            raise ArgumentError(f"--parties: expected some of {', '.join(PARTIES)}, got {unknown[0]!r}")
    directory, config = locate.locate(model, revision, progress=on_terminal())
    with tempfile.TemporaryDirectory() as temporary:
        place = work or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        options = Options(
            directory,
            config,
            _cases(clips, thorough, place),
            place,
            wanted,
            official,
            reuse,
            MODES[mode],
            stages=_stages(stages),
            note=streams.remark,
            **asked,
        )
        found, drawn = Parity(options).run()
        plots = cast("report.Plots", drawn)
    for path, text in (
        (json_file, lambda: to_json(found)),
        (markdown_file, lambda: report.markdown(found)),
        (html_file, lambda: report.html(found, plots)),
    ):
        if path is not None and str(path) != "-":
            with whole_file(path) as part:
                part.write_text(text(), encoding="utf-8")
    streams.out(to_json(found) if str(json_file) == "-" else report.terminal(found, rows))
    summary = found["summary"]
    return 1 if summary["failed"] or (summary["missing"] and not allow_missing) else 0


def _stages(text: str | None) -> tuple[str, ...]:
    stages = tuple(part.strip() for part in text.split(",")) if text else ()
    for stage in stages:
        if not any(key == stage or key.startswith(f"{stage}.") for key in registry.TABLE):
            raise ArgumentError(f"--stages: unknown stage {stage!r}; the stages are {', '.join(registry.TABLE)}")
    return stages


def _cases(given: tuple[Path, ...], thorough: bool, work: Path) -> Any:
    from ..parity import cases

    clips = list(given) or [cases.CLIP]
    for clip in clips:
        if not clip.is_file():
            raise FileError(f"{clip}: no such file")
    if thorough:
        if len({clip.stem for clip in clips}) != len(clips):
            raise ArgumentError("--clip: expected files of different names")
        return cases.thorough(clips)
    if len(clips) > 1:
        raise ArgumentError("--clip: expected one clip, or several with --thorough")
    return cases.quick(work, clips[0])
