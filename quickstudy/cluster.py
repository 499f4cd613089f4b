"""A Ray cluster for as long as some work needs it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from quickstudy.errors import QuickstudyError
from quickstudy.machine import usable_cores

OBJECT_STORE_BYTES = 80_000_000


@contextmanager
def ray_cluster() -> Iterator[Any]:
    """Ray, connected, without usage reports and dashboard.

    `RAY_ADDRESS` names the cluster; without it Ray is started on this machine for as long as the
    block runs. Raises QuickstudyError without the extra `ray`.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ModuleNotFoundError:
        raise QuickstudyError("--workers ray needs Ray: pip install 'quickstudy[ray]'") from None
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
    else:
        ray.init(
            address="local",
            num_cpus=usable_cores(),
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=OBJECT_STORE_BYTES,
        )
    try:
        yield ray
    finally:
        ray.shutdown()
