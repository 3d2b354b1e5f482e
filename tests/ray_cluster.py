"""A small Ray cluster on this machine for tests: two CPUs, whatever there are, and little memory for objects."""

from __future__ import annotations

from typing import Any

from chatterbox_turbo_rs.jobs.ray import module


def started() -> Any:
    """What ``ray.init`` gives. On a busy machine Ray may need longer for its start than it allows itself: it is tried three times."""
    ray = module()
    for attempt in range(3):
        try:
            return ray.init(
                address="local", num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False
            )
        except Exception:
            ray.shutdown()
            if attempt == 2:
                raise
    return None
