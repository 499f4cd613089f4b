"""Labelling on a Ray cluster: an actor a core, each with a teacher of one thread.

`RAY_ADDRESS` names the cluster; without it Ray is started on this machine for the time being. All
machines must see the run's folder under the same path. Nothing of ours is pickled to disk: jobs
travel between our own processes, and results are the shards.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.distill.labels import LabelError
from training.distill.workers.worker import TRIES, LabelWorker
from training.launch import available_cores

if TYPE_CHECKING:
    from training.distill.labelling import LabelJob

OBJECT_STORE_BYTES = 80_000_000


def on_ray(job: LabelJob, shards: list[Path], done: Callable[[int], None]) -> None:
    """Label the shards; Ray restarts an actor that died and gives it its shard again."""
    if not shards:
        return
    with _cluster() as ray:
        count = min(int(ray.cluster_resources().get("CPU", 1)), len(shards))
        actor = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=TRIES - 1)(LabelWorker)
        idle = [actor.remote(job, 1) for _ in range(max(count, 1))]
        waiting = [shard.resolve() for shard in reversed(shards)]
        running: dict[Any, tuple[Any, Path]] = {}
        while waiting or running:
            while waiting and idle:
                worker, shard = idle.pop(), waiting.pop()
                running[worker.label.remote(shard)] = worker, shard
            (ready, *_), _ = ray.wait(list(running))
            worker, shard = running.pop(ready)
            done(_rows(ray, ready, shard))
            idle.append(worker)


def _rows(ray: Any, result: Any, shard: Path) -> int:
    """Rows of a labelled shard; what went wrong in the worker is raised as it was there."""
    try:
        return int(ray.get(result))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise LabelError(
            f"{shard.name}: its Ray worker died {TRIES} times (out of memory?): {error}; finished "
            "shards are kept, run the `label` stage again"
        ) from None


@contextmanager
def _cluster() -> Iterator[Any]:
    """Ray, connected; without usage reports and dashboard. Raises LabelError without the extra."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ModuleNotFoundError:
        raise LabelError("--workers ray needs Ray: pip install 'quickstudy[ray]'") from None
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
    else:
        ray.init(
            address="local",
            num_cpus=available_cores(),
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=OBJECT_STORE_BYTES,
        )
    try:
        yield ray
    finally:
        ray.shutdown()
