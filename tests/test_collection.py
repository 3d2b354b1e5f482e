"""The suite collects, and the package imports, where the modules and functions that only POSIX systems have are missing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Other packages are imported first: they ask for the system's name and would miss what this one should have.
WITHOUT_POSIX = """
import importlib, os, pkgutil, signal, sys
for name in ("huggingface_hub", "numpy", "platformdirs", "pyloudnorm", "pytest", "ray", "safetensors", "scipy.signal", "soundfile", "tokenizers", "torch"):
    try:
        importlib.import_module(name)
    except ImportError:
        pass
for name in ("fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"):
    sys.modules[name] = None
functions = "chown fchmod fork forkpty getegid geteuid getgid getloadavg getpgid getuid kill killpg mkfifo nice openpty \
posix_spawn sched_getaffinity sched_setaffinity setegid seteuid setgid setsid setuid statvfs sysconf uname wait3 wait4 WNOHANG"
signals = "SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGUSR1 SIGUSR2 SIGXCPU SIGXFSZ alarm pthread_kill setitimer"
for module, names in ((os, functions), (signal, signals)):
    for name in filter(module.__dict__.__contains__, names.split()):
        delattr(module, name)
"""
COLLECT = "import pytest; sys.exit(pytest.main(['--collect-only', '-qq', '--no-header', *sys.argv[1:]]))"
IMPORT = """
import chatterbox_turbo_rs
missing = []
for found in pkgutil.walk_packages(chatterbox_turbo_rs.__path__, "chatterbox_turbo_rs.", onerror=lambda name: None):
    if found.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(found.name)
    except (ImportError, AttributeError) as error:
        if getattr(error, "name", None) not in ("torch", "transformers", "librosa", "chatterbox", "s3tokenizer", "perth", "torchaudio"):
            missing.append(f"{found.name}: {error}")
sys.exit("\\n".join(missing) or 0)
"""


def without_posix(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT_POSIX + program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_the_suite_collects() -> None:
    result = without_posix(COLLECT, "tests")
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_module_of_the_package_imports() -> None:
    result = without_posix(IMPORT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_what_it_looks_for_is_found(tmp_path: Path) -> None:
    lines = ["import fcntl", "import os; os.geteuid()", "from signal import SIGKILL"]
    for number, line in enumerate(lines):
        (tmp_path / f"test_planted_{number}.py").write_text(line + "\n")
    result = without_posix(COLLECT, tmp_path)
    assert result.returncode == pytest.ExitCode.INTERRUPTED, result.stdout + result.stderr
    assert set(re.findall(r"^ERROR .*test_planted_(\d)\.py", result.stdout, re.MULTILINE)) == {"0", "1", "2"}, result.stdout
