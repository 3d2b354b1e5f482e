"""The command ``chatterbox-turbo``: finds the subcommand, and turns whatever happens into an exit code and at most one line.

Results go to standard output, progress and remarks to standard error. Exit codes: 0 done; 1 it failed (a file, a model, a
download, a device, …), or the answer is no (``watermark detect``, ``parity``); 2 wrong use, which no other machine or file would
mend: an unknown option, a value out of its range; 130 interrupted. There is never a traceback.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence

import click
from click.shell_completion import shell_complete

from .. import _core
from ..errors import ArgumentError, ChatterboxError, TruncatedSpeechWarning, TruncationWarning
from . import streams

PROGRAM = "chatterbox-turbo"
COMPLETE = "_CHATTERBOX_TURBO_COMPLETE"
COMMANDS = ("demo", "say", "book", "convert", "voice", "serve", "parity", "bench", "info", "cache", "download", "watermark")


class Commands(click.Group):
    """Subcommands that are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"{__package__}.{cmd_name}").command
        return command


SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100}
EPILOG = f"""\b
Completion by the shell (bash_source, zsh_source or fish_source), in its start file:
  eval "$({COMPLETE}=bash_source {PROGRAM})\"
"""


def _version(context: click.Context, option: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        click.echo(f"{PROGRAM} {_core.build_info()['version']}")
        context.exit()


@click.command(cls=Commands, no_args_is_help=False, context_settings=SETTINGS, epilog=EPILOG)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version and exit.")
def commands() -> None:
    """Chatterbox Turbo text-to-speech, without PyTorch."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    streams.prepare()
    bar = streams.Line()

    def remark(message: object) -> None:
        with bar.aside():
            streams.remark(message)

    try:
        with warnings.catch_warnings():
            for kind in (TruncationWarning, TruncatedSpeechWarning):
                warnings.simplefilter("always", kind)
            warnings.showwarning = lambda message, *_, **__: remark(message)
            code = run(sys.argv[1:] if arguments is None else arguments, bar)
    except click.exceptions.Exit as stopped:
        code = stopped.exit_code
    except click.ClickException as error:
        code = error.exit_code
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else PROGRAM
        streams.remark(f"{error.format_message().rstrip('.')}; see {path} --help", path)
    except ChatterboxError as error:
        code = 2 if isinstance(error, ArgumentError) else 1
        remark(error)
    except KeyboardInterrupt:
        code = 130
        remark("interrupted")
    except BrokenPipeError:
        code = 1
    except (OSError, MemoryError) as error:  # of standard output: files that are named give a FileError
        code = 1
        remark(str(error) or "out of memory")
    except Exception as error:
        code = 1
        place = traceback.extract_tb(error.__traceback__)[-1]
        remark(f"a defect, please report it: {type(error).__name__}: {error} ({place.filename}:{place.lineno})")
    finally:
        flushed = streams.finish()
    return code if flushed else code or 1


def run(arguments: Sequence[str], bar: streams.Line) -> int:
    """The exit code of the subcommand, which has ``bar`` as its object; raises whatever stops it."""
    if instruction := os.environ.get(COMPLETE):
        return shell_complete(commands, {}, PROGRAM, COMPLETE, instruction)
    with commands.make_context(PROGRAM, list(arguments), obj=bar) as context:
        return int(commands.invoke(context) or 0)
