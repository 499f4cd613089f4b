"""Ray workers: order, a worker that is killed, a bundle that differs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import quickstudy
from quickstudy.bulk.workers import RayWorker, TranslateConfig, ray_workers
from quickstudy.errors import QuickstudyError

BUNDLE = Path(__file__).parents[2] / "models" / "everyday" / "en-de"


class Mortal:
    """A model that kills its process the first time that it gets lines."""

    def __init__(self, model: quickstudy.Model, diary: Path) -> None:
        self.identity = model.identity
        self._model, self._diary = model, diary
        (diary / f"built-{os.getpid()}").touch()

    def translate_batches(
        self, batches: Iterable[Sequence[str]], **options: Any
    ) -> Iterator[list[quickstudy.Translation]]:
        try:
            (self._diary / "killed").touch(exist_ok=False)
        except FileExistsError:
            return self._model.translate_batches(batches, **options)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@dataclass(frozen=True)
class MortalConfig(TranslateConfig):
    diary: Path = Path()

    def load(self) -> Any:
        return Mortal(super().load(), self.diary)


@pytest.fixture
def two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("quickstudy.cluster.usable_cores", lambda: 2)


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.usefixtures("two_workers")
def test_a_killed_ray_worker_loses_nothing_and_order_is_kept(tmp_path: Path) -> None:
    lists = [[f"He has {row} cats and {number} dogs." for row in range(5)] for number in range(20)]
    config = MortalConfig(BUNDLE, threads=1, diary=tmp_path)
    with quickstudy.load(BUNDLE, threads=1) as model:
        expected = [model.translate(lines) for lines in lists]
        with ray_workers(config, model.identity) as translate:
            translated = [[line.text for line in lines] for lines in translate(iter(lists))]
    assert translated == expected
    assert (tmp_path / "killed").exists()
    assert len(list(tmp_path.glob("built-*"))) == 3, "two workers, and one in the place of one"


def test_another_bundle_on_a_worker_is_refused() -> None:
    with pytest.raises(QuickstudyError, match="another bundle on a worker's machine"):
        RayWorker(TranslateConfig(BUNDLE, threads=1), "another")
