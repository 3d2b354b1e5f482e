"""The machine that something was measured on."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """The processor and what it can do, from ``/proc/cpuinfo`` where there is one."""
    name, flags = platform.processor() or platform.machine(), set()
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            if key.strip() in ("flags", "Features"):
                flags |= set(value.split())
    except OSError:
        pass
    wanted = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "asimddp", "i8mm")
    return {
        "platform": platform.platform(),
        "cpu": name,
        "features": [flag for flag in wanted if flag in flags],
        "threads": os.cpu_count() or 1,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def describe(machine: Mapping[str, Any]) -> str:
    """The processor, its vector extensions and its cores in one line."""
    return f"{machine['cpu']} ({' '.join(machine['features']) or 'no vector extensions known here'}), {machine['threads']} cores seen"
