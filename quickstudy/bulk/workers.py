"""Who translates: a model in this process with a thread a core, or workers of a Ray cluster.

Both take lists of lines and give their translations in the same order, a few lists ahead. A model
of this process shares its weights among threads, since its engines work outside Python's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from quickstudy.cluster import ray_cluster
from quickstudy.errors import QuickstudyError

if TYPE_CHECKING:
    from export.runtime.manifest import Formality
    from quickstudy.api import Model
    from service.text.document import Format

TRIES = 3
"""How often lines are tried whose worker died."""
LISTS_PER_WORKER = 2
"""Lists of lines that a Ray worker has: one is prepared while the other is translated."""
LISTS_IN_MEMORY = 4
"""Most lists, for each worker, that are given out or wait for the ones before them."""


class TranslatedLine(NamedTuple):
    """A line's translation and its warnings, each a code and a message."""

    text: str
    warnings: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class TranslateConfig:
    """What translations depend on besides the text, and how many threads make them (None: one per
    usable core)."""

    bundle: Path | None = None
    engine: str | None = None
    format: Format = "text"
    beam_size: int | None = None
    fallback_decoding: bool = True
    threads: int | None = None
    formality: Formality | None = None

    def load(self) -> Model:
        """Load the model. Raises QuickstudyError, also for an option that it does not support."""
        from quickstudy.api import load

        model = load(
            self.bundle,
            engine=self.engine,
            threads=self.threads,
            fallback_decoding=self.fallback_decoding,
        )
        model.translate([], beam_size=self.beam_size, formality=self.formality)
        return model


class Translate(Protocol):
    """Translates lists of lines, in order and a few lists ahead."""

    def __call__(self, batches: Iterable[Sequence[str]]) -> Iterator[list[TranslatedLine]]: ...


def translate_here(model: Model, config: TranslateConfig) -> Translate:
    """Translates in this process."""

    def translate(batches: Iterable[Sequence[str]]) -> Iterator[list[TranslatedLine]]:
        for translations in model.translate_batches(
            batches,
            format=config.format,
            beam_size=config.beam_size,
            formality=config.formality,
        ):
            yield [
                TranslatedLine(
                    one.text, tuple((warning.code, warning.message) for warning in one.warnings)
                )
                for one in translations
            ]

    return translate


class RayWorker:
    """A model of one thread, in a process that Ray starts. Raises QuickstudyError where the bundle
    is not the one of `identity`."""

    def __init__(self, config: TranslateConfig, identity: str) -> None:
        model = config.load()
        if model.identity != identity:
            raise QuickstudyError(
                f"{config.bundle} is another bundle on a worker's machine: copy it there"
            )
        self._translate = translate_here(model, config)

    def translate(self, lines: Sequence[str]) -> list[TranslatedLine]:
        """Translate some lines."""
        (translated,) = self._translate([lines])
        return translated


@contextmanager
def ray_workers(config: TranslateConfig, identity: str) -> Iterator[Translate]:
    """Translates on a Ray cluster, a worker a core, which must see the bundle under the same path.

    A worker that dies is started again and given its lines again. Raises QuickstudyError where one
    dies of the same lines TRIES times, or Ray is not installed.
    """
    from service.settings import find_bundle

    bundle = (config.bundle or find_bundle()).resolve()
    of_worker = replace(config, bundle=bundle, threads=1)
    with ray_cluster() as ray:
        count = max(int(ray.cluster_resources().get("CPU", 1)), 1)
        actor = ray.remote(
            num_cpus=1,
            max_restarts=-1,
            max_task_retries=TRIES - 1,
            max_concurrency=LISTS_PER_WORKER,
        )(RayWorker)
        workers = [actor.remote(of_worker, identity) for _ in range(count)]
        yield lambda batches: _spread(ray, workers, batches)


def _spread(
    ray: Any, workers: Sequence[Any], batches: Iterable[Sequence[str]]
) -> Iterator[list[TranslatedLine]]:
    """Give lists to the workers that have fewest; yield results in the order of the lists."""
    load = dict.fromkeys(workers, 0)
    running: dict[Any, Any] = {}
    in_order: deque[Any] = deque()

    def finish(results: Sequence[Any]) -> None:
        ready, _ = ray.wait(list(results))
        for result in ready:
            load[running.pop(result)] -= 1

    for batch in batches:
        worker = min(workers, key=lambda one: load[one])
        result = worker.translate.remote(list(batch))
        running[result] = worker
        load[worker] += 1
        in_order.append(result)
        while min(load.values()) == LISTS_PER_WORKER:
            finish(list(running))
        while in_order and (
            in_order[0] not in running or len(in_order) > LISTS_IN_MEMORY * len(workers)
        ):
            yield _result(ray, in_order[0])
            if in_order.popleft() in running:
                finish([result for result in running if result not in in_order])
    for result in in_order:
        yield _result(ray, result)


def _result(ray: Any, result: Any) -> list[TranslatedLine]:
    """A worker's translations; what went wrong there is raised as it was."""
    try:
        translated: list[TranslatedLine] = ray.get(result)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise QuickstudyError(
            f"a Ray worker died {TRIES} times of the same lines, or could not start (out of "
            f"memory?): {error}"
        ) from None
    return translated
