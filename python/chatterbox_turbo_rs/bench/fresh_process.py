"""Calls a function in a new process of this interpreter, with a given number of threads.

Thread pools read their size once, a first run happens once, and a process has one peak of memory: measurements need processes
of their own. Arguments and results are what JSON holds.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from typing import Any

from .. import errors

POOLS = ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
PROGRAM = """import json, sys
task = json.load(sys.stdin)
sys.path[:] = task["path"]
from chatterbox_turbo_rs.bench import fresh_process
fresh_process.serve(task)
"""


def call(function: str, argument: Any, threads: int) -> Any:
    """What ``function`` (``"package.module:name"``) gives for ``argument``, with ``threads`` threads in every pool.

    Raises what it raises of ``errors``, and ``InternalError`` when it ends in another way.
    """
    task = json.dumps({"path": sys.path, "function": function, "argument": argument})
    environment = {**os.environ, **{name: str(threads) for name in POOLS}, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        input=task,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env=environment,
        check=False,
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise errors.InternalError(f"{function}: the process ended with code {done.returncode}: {last}") from None
    if "error" in answer:
        raise getattr(errors, answer["error"])(answer["message"])
    return answer["result"]


def serve(task: Any) -> None:
    """The other end of ``call``: standard output carries the answer alone, what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    module, _, name = task["function"].partition(":")
    try:
        answer = {"result": getattr(importlib.import_module(module), name)(task["argument"])}
    except errors.ChatterboxError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    with answers:
        json.dump(answer, answers, allow_nan=False)
