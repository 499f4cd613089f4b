"""Workers: every kind leaves the same store, also when one of them is killed in a shard."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from export.ctranslate2 import to_ctranslate2
from tests.training.distill.store import write_shards, write_teacher
from training.config.recipe import LabelsConfig, RecipeError
from training.data.tokenizer import Tokenizer
from training.distill.label_store import LabelError, LabelStore
from training.distill.labelling import Processes, choose_workers, label_corpus
from training.distill.teachers import NativeTeacher

CONFIG = LabelsConfig(beam_size=2, top_k=4, paths=["hypothesis", "reference"])


class Mortal(NativeTeacher):
    """Notes that it was built; is killed between the two halves of a shard, so many times."""

    def __init__(self, checkpoint: Path, diary: Path, deaths: int) -> None:
        super().__init__(checkpoint, 256, converter=to_ctranslate2)
        self.diary, self.deaths = diary, deaths
        (diary / f"built-{os.getpid()}").touch()

    def distributions(self, src, trg, top_k):  # type: ignore[no-untyped-def]
        for death in range(self.deaths):
            try:
                (self.diary / f"killed-{death}").touch(exist_ok=False)
            except FileExistsError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)
        return super().distributions(src, trg, top_k)


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["2", "ray"])
def test_a_killed_worker_loses_and_doubles_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "ray":
        pytest.importorskip("ray")
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        monkeypatch.setattr("quickstudy.cluster.usable_cores", lambda: 2)
    checkpoint, diary = write_teacher(tmp_path), tmp_path / "diary"
    diary.mkdir()
    tokenizer = Tokenizer(checkpoint / "tokenizer.model")
    shards = write_shards(tmp_path / "tokens", tokenizer, 6)
    teacher, done = partial(Mortal, checkpoint, diary, 1), []
    workers = choose_workers(kind)
    label_corpus(shards, tmp_path / kind, teacher, CONFIG, tokenizer, done.append, workers)
    alone = partial(NativeTeacher, checkpoint, 256, converter=to_ctranslate2)
    label_corpus(shards, tmp_path / "here", alone, CONFIG, tokenizer)
    assert (diary / "killed-0").exists()
    assert len(list(diary.glob("built-*"))) <= 2 + 2, "a worker builds its teacher once"
    assert sorted(done) == done
    assert done[-1] == 60
    assert len(LabelStore(tmp_path / kind)) == 60
    files = sorted(path.name for path in (tmp_path / "here").iterdir())
    assert sorted(path.name for path in (tmp_path / kind).iterdir()) == files
    for name in files:
        assert (tmp_path / kind / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


@pytest.mark.thorough
@pytest.mark.slow
def test_a_shard_that_kills_every_worker_is_named(tmp_path: Path) -> None:
    checkpoint = write_teacher(tmp_path)
    tokenizer = Tokenizer(checkpoint / "tokenizer.model")
    shards = write_shards(tmp_path / "tokens", tokenizer, 1)
    teacher = partial(Mortal, checkpoint, tmp_path, 9)
    with pytest.raises(LabelError, match=r"a worker died 3 times .* 00000\.arrow are left"):
        label_corpus(shards, tmp_path / "labels", teacher, CONFIG, tokenizer, workers=Processes(1))


def test_only_a_number_or_ray_are_workers() -> None:
    assert choose_workers("3") == Processes(3)
    for wanted in ("0", "-1", "two", ""):
        with pytest.raises(RecipeError, match="--workers takes a number"):
            choose_workers(wanted)
