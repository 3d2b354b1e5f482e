"""``chatterbox-turbo info``: what is available here, and why not."""

from __future__ import annotations

import json
import platform
from typing import Any

import click

from . import streams
from .common import as_json


@click.command()
@as_json
def command(as_json: bool) -> None:
    """Print what is available here, and why not."""
    from .. import _core
    from ..checkpoint import packed_cache
    from ..engine import devices, registry

    facts: dict[str, Any] = {
        "version": _core.build_info()["version"],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "core": dict(_core.build_info()),
        "devices": dict(devices.reasons()),
        "devices_not_run": list(devices.NOT_RUN),
        "cache": packed_cache.facts(),
        "plan": str(registry.resolve()),
        "stages": registry.available(),
    }
    if as_json:
        return streams.out(json.dumps(facts))
    core = dict(facts["core"])
    cpu = f"{core.pop('cpu_level')} (of {', '.join(core.pop('cpu_levels'))})"
    lines = [f"chatterbox-turbo-rs {facts['version']}, Python {facts['python']}, {facts['platform']}"]
    lines.append("core: " + ", ".join(f"{name} {value}" for name, value in core.items() if name != "version"))
    lines.append(f"cpu level: {cpu}")
    for device, reason in facts["devices"].items():
        remark = "; not run on hardware by this project" if device in facts["devices_not_run"] else ""
        lines.append(f"device {device}: {reason or 'available'}{remark}")
    lines.append(f"cache of packed weights: {packed_cache.describe(facts['cache'])}")
    lines.append(f"plan: {facts['plan']}")
    for key, sides in facts["stages"].items():
        lines.append(f"  {key:26} " + "; ".join(f"{side}: {reason or 'yes'}" for side, reason in sides.items()))
    streams.out("\n".join(lines))
