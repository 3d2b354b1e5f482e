"""``python -m chatterbox_turbo_rs`` is the command ``chatterbox-turbo``."""

import sys

from .cli import entry

if __name__ == "__main__":
    sys.exit(entry())
