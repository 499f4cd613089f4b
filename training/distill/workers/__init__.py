"""Who labels the shards: this process, several processes of this machine, or a Ray cluster.

Shards are independent and written atomically, so every kind of workers is a function of the same
shape, and every kind leaves the same store. A new kind is a file here and a case in
`choose_workers`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from training.recipe import RecipeError

if TYPE_CHECKING:
    from training.distill.labelling import LabelJob


class Workers(Protocol):
    """Labels every one of the shards by `job`; `done` is told of rows as they are labelled.

    A shard may be tried again after its worker died. Raises LabelError where it dies again and
    again, and whatever the teacher raises.
    """

    def __call__(self, job: LabelJob, shards: list[Path], done: Callable[[int], None]) -> None: ...


def choose_workers(wanted: str) -> Workers:
    """`1` is this process, a larger number so many processes, `ray` a Ray cluster.

    Raises RecipeError for anything else.
    """
    if wanted == "ray":
        from training.distill.workers.on_ray import on_ray

        return on_ray
    if not wanted.isdecimal() or int(wanted) < 1:
        raise RecipeError(f"--workers takes a number from 1 or `ray`, not {wanted!r}")
    if wanted == "1":
        from training.distill.workers.in_process import in_process

        return in_process
    from training.distill.workers.processes import Processes

    return Processes(int(wanted))
