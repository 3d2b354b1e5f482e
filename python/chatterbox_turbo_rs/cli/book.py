"""``chatterbox-turbo book``: a text, a Markdown file or an EPUB into one sound file, by parts that survive whatever happens."""

from __future__ import annotations

import contextlib
import json
import re
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..errors import ArgumentError, TruncatedSpeechWarning
from ..options import ROWS, GenerationOptions, Split, between, split_of, whole
from ..progress import on_terminal
from . import streams
from .common import FILE, MODEL, known_limit, model_options, some, speaking, speaking_options, there, within, writable

if TYPE_CHECKING:
    from ..jobs.local import How, Local
    from ..jobs.make import Made
    from ..jobs.ray import Cluster
    from ..jobs.read.document import Book


@click.command()
@click.argument("source", metavar="IN", type=FILE)
@click.option(
    "-o",
    "--output",
    type=FILE,
    metavar="OUT",
    show_default="IN.flac",
    help="The sound file; its name says the format, such as .flac, .opus or .m4b.",
)
@click.option("--subtitles", type=FILE, metavar="FILE", help="Write the segments' times, as .srt or .vtt.")
@click.option(
    "--parts",
    "folder",
    type=FILE,
    metavar="DIR",
    show_default="OUT.parts",
    help="Where parts are kept until the book is whole, and after.",
)
@click.option("--discard", is_flag=True, help="Remove the parts when the book is whole.")
@click.option("--chapter-pause", default=2.0, metavar="S", help="Silence between chapters.")
@click.option("--batch", default=ROWS, metavar="N", help="So many segments are decoded together.")
@click.option(
    "--ray", metavar="ADDRESS", help="Speak on a Ray cluster: auto (the one that runs here, else one for the time) or HOST:PORT."
)
@click.option(
    "--workers", type=int, metavar="N", show_default="one a machine", help="With --ray: so many models share the cluster's CPUs."
)
@click.option("--dry-run", is_flag=True, help="Print the chapters, and speak nothing.")
@model_options
@speaking_options(seed=0)
@click.pass_obj
def command(
    bar: streams.Line,
    source: Path,
    output: Path | None,
    subtitles: Path | None,
    folder: Path | None,
    discard: bool,
    chapter_pause: float,
    batch: int,
    ray: str | None,
    workers: int | None,
    dry_run: bool,
    **values: Any,
) -> int:
    """Speak a book: a .txt, .md or .epub file into one sound file, with chapters in .m4b.

    It may be stopped and killed at any time: started again, it goes on where it was, and the file is the same to the bit.
    """
    from ..jobs.assemble import output_format
    from ..jobs.job import Job
    from ..jobs.local import How, arguments_of
    from ..jobs.make import make
    from ..jobs.parts import Store
    from ..jobs.plan import Plan
    from ..jobs.read import read

    output = output or source.with_name(f"{source.stem}.flac")
    output_format(output)
    between("--chapter-pause", chapter_pause, 0.0, 600.0, "seconds")
    whole("--batch", batch, 1, 1024)
    if workers is not None:
        whole("--workers", workers, 1, 10_000)
        if ray is None:
            raise ArgumentError("--workers: expected --ray with it")
    if values["split"] == "never":
        raise ArgumentError("--split: expected auto (a book is spoken in segments), got never")
    if subtitles is not None and subtitles.suffix.lower() not in (".srt", ".vtt"):
        raise ArgumentError(f"--subtitles: expected a file that ends in .srt or .vtt, got {subtitles}")
    arguments = speaking(values)
    there(source)
    book = read(source)
    options = _options(arguments, book)
    if dry_run:
        return _contents(book, within(options, known_limit(values["model"])), values["as_json"])
    for path in filter(None, (output, subtitles)):
        writable(path)
    warnings.simplefilter("ignore", TruncatedSpeechWarning)  # the manifest says which
    loading = some(MODEL, values) | {"progress": on_terminal()}
    how = How(loading, arguments["voice"], options.loudness, arguments_of(options), batch)

    def remark(message: str) -> None:
        with bar.aside():
            streams.remark(message)

    started = time.perf_counter()
    folder = folder or output.with_name(f"{output.name}.parts")
    store = Store(folder)
    with store.alone(), _speaker(ray, workers, how, remark) as speaker:
        planned = Plan(book, within(options, speaker.longest), speaker.model, speaker.voice.fingerprint)
        job = Job(planned, store)
        about = {"book": book.title or source.stem, "seed": options.seed, "precision": speaker.precision}
        about |= {"model": speaker.model, "voice": speaker.voice.fingerprint}
        made = make(job, book, output, speaker, pause=chapter_pause, subtitles=subtitles, report=bar, about=about)
        if discard:
            store.remove()
    bar.close()
    _report(output, folder, made, job.faulty().keys(), time.perf_counter() - started, options.seed, values["as_json"])
    return 0


@contextlib.contextmanager
def _speaker(ray: str | None, workers: int | None, how: How, remark: Callable[[str], None]) -> Iterator[Local | Cluster]:
    """Who speaks: this process, or a cluster."""
    if ray is None:
        from ..jobs.local import Local

        yield Local.load(how)
    else:
        from ..jobs.ray import Cluster

        with Cluster(ray, how, workers, remark) as cluster:
            yield cluster
        if len(cluster.levels) > 1:
            levels = ", ".join(sorted(cluster.levels))
            remark(
                f"the workers' CPUs are of several levels ({levels}): spoken again, some samples may differ in their last bits"
            )


def _options(arguments: dict[str, Any], book: Book) -> GenerationOptions:
    """How it is spoken; sentences end by the rules of the book's own language unless --language is named."""
    split = split_of(arguments["split"]) or Split()
    asked = click.get_current_context().get_parameter_source("language")
    if asked is ParameterSource.DEFAULT and re.fullmatch("[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*", book.language):
        split = replace(split, language=book.language)
    return GenerationOptions(**{key: value for key, value in arguments.items() if key not in ("voice", "split")}, split=split)


def _contents(book: Book, options: GenerationOptions, as_json: bool) -> int:
    """Prints the chapters; 0."""
    from ..jobs.plan import segmented

    chapters = [
        {"title": chapter.title, "segments": sum(1 for segment in segments if segment.text), "characters": len(chapter.text)}
        for chapter, segments in segmented(book, options)
    ]
    if as_json:
        streams.out(json.dumps({"title": book.title, "author": book.author, "language": book.language, "chapters": chapters}))
        return 0
    for number, told in enumerate(chapters, 1):
        streams.out(f"{number:4} {told['title'] or '-'}  [{told['segments']} segments, {told['characters']} characters]")
    return 0


def _report(output: Path, folder: Path, made: Made, faulty: Any, taken: float, seed: int, as_json: bool) -> None:
    from ..constants import SAMPLE_RATE

    seconds = made.times.samples / SAMPLE_RATE
    facts = {
        "output": str(output),
        "seconds": seconds,
        "seed": seed,
        "chapters": [
            {"title": mark.title, "start": mark.start / SAMPLE_RATE, "end": mark.end / SAMPLE_RATE}
            for mark in made.times.chapters
        ],
        "segments": len(made.times.segments),
        "spoken": made.spoken,
        "found": made.found,
        "damaged": made.damaged,
        "faulty": len(faulty),
        "taken_seconds": taken,
    }
    if as_json:
        streams.out(json.dumps(facts))
        return
    found = f", {made.found} of them found" if made.found else ""
    counts = (
        f"{len(made.times.chapters)} chapters, {len(made.times.segments)} segments, {made.spoken + made.found} attempts{found}"
    )
    streams.out(f"{output}: {counts}, {_length(seconds)} of sound in {_length(taken)}")
    if made.damaged:
        streams.remark(f"{folder}: {made.damaged} damaged parts were spoken again")
    if faulty:
        streams.remark(f"{folder / 'manifest.jsonl'}: {len(faulty)} segments kept a fault after all attempts")


def _length(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest:.0f} s" if minutes else f"{rest:.1f} s"
