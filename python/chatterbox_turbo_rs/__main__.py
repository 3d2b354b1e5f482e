"""``python -m chatterbox_turbo_rs`` is the command ``chatterbox-turbo``."""

import sys

from .cli.main import main

sys.exit(main())
