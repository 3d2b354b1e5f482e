"""The command ``chatterbox-turbo``, one file a command."""

from __future__ import annotations

import signal


def entry() -> int:
    """Runs the command of this process; returns the exit code. Until it is there, Ctrl-C ends the process without a word."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .main import main

    if usual is signal.default_int_handler:
        signal.signal(signal.SIGINT, usual)
    return main()
