"""On-policy rounds: when they come, what they keep, and that a killed run goes on as if it had not
been."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.conftest import K
from tests.training.test_trainer import STEPS, losses, make_run
from tests.training.test_trainer_distilled import assert_same
from training import rounds
from training.checkpoint import build_model, load_run_state, part_of, save_checkpoint
from training.config.losses import OnPolicyObjective
from training.data.batching import map_table
from training.data.tokenizer import Tokenizer
from training.distill.label_store import LabelStore, label_schema, write_manifest, write_shard
from training.distill.labelling import Processes, in_process
from training.distill.teachers import NativeTeacher
from training.model.decoding import greedy_corpus
from training.model.transformer import EOS
from training.rounds import RoundJob, label_round, train_in_rounds
from training.trainer import TrainingRun, train

OBJECTIVE = OnPolicyObjective(rounds=2, first_round=0.25)


@pytest.fixture(scope="session")
def teacher(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained teacher of the corpus's pieces."""
    folder = tmp_path_factory.mktemp("teacher") / "checkpoint"
    tokenizer = corpus / "tokenizer.model"
    config = make_run(corpus, folder).model
    torch.manual_seed(7)
    model = build_model(config, len(Tokenizer(tokenizer)))
    save_checkpoint(folder, model.state_dict(), config, tokenizer, "name: t\n", {})
    return folder


NewRun = Callable[..., TrainingRun]


@pytest.fixture
def new_run(corpus: Path, labels: Path, tmp_path: Path) -> NewRun:
    """Make an on-policy run by the name of its folder; other arguments are of its training."""

    def make(name: str = "run", processes: int = 1, **training: Any) -> TrainingRun:
        run = make_run(corpus, tmp_path / name, processes, **training)
        return dataclasses.replace(run, objective=OBJECTIVE, labels=labels)

    return make


@pytest.fixture(scope="module")
def paused(corpus: Path, labels: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    """A run that pauses for its first round."""
    run = make_run(corpus, tmp_path_factory.mktemp("paused") / "run")
    run = dataclasses.replace(run, objective=OBJECTIVE, labels=labels)
    train(dataclasses.replace(run, until=OBJECTIVE.begins(1)))
    assert not run.checkpoint.exists()
    return run


def in_rounds(run: TrainingRun, teacher: Path) -> None:
    assert isinstance(run.objective, OnPolicyObjective)
    train_in_rounds(run, run.objective, partial(NativeTeacher, teacher), K)


def own_steps(run: TrainingRun) -> list[int]:
    lines = (run.folder / "log.jsonl").read_text().splitlines()
    return [line["step"] for line in map(json.loads, lines) if "own_loss" in line]


def test_a_run_pauses_for_its_rounds(
    new_run: NewRun, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run()
    seen: list[tuple[int, int, list[int]]] = []
    label = rounds.label_round

    def watched(job: RoundJob, workers: Any) -> None:
        saved = load_run_state(job.training.folder)
        assert saved is not None
        label(job, workers)
        written = LabelStore(job.folder).translations("student")
        seen.append((job.number, saved[1].step, written[0].tolist()))

    monkeypatch.setattr(rounds, "label_round", watched)
    in_rounds(run, teacher)
    assert [entry[:2] for entry in seen] == [(1, 6), (2, 15)]
    assert seen[0][2] != seen[1][2], "each round has words of its own"
    assert own_steps(run) == list(range(7, STEPS + 1))
    assert list(losses(run.folder)) == list(range(1, STEPS + 1))
    assert run.checkpoint.exists()
    assert not (run.folder / "rounds").exists()
    in_rounds(run, teacher)
    assert len(seen) == 2, "a finished run has nothing left to do"


def own_losses(run: TrainingRun) -> dict[int, float]:
    lines = (run.folder / "log.jsonl").read_text().splitlines()
    return {one["step"]: one["own_loss"] for one in map(json.loads, lines) if "own_loss" in one}


def test_a_line_of_the_log_is_the_mean_of_the_batches_that_have_a_value(
    new_run: NewRun, teacher: Path
) -> None:
    each, fourth = (new_run(str(steps), log_every=steps) for steps in (1, 4))
    for run in (each, fourth):
        in_rounds(run, teacher)
    found = own_losses(each)
    assert own_losses(fourth)[8] == pytest.approx((found[7] + found[8]) / 2)


def job_of(run: TrainingRun, teacher: Path, folder: Path, **changes: Any) -> RoundJob:
    objective = OBJECTIVE.model_copy(update=changes)
    return RoundJob(1, run, objective, partial(NativeTeacher, teacher), K, folder)


def test_a_round_holds_what_the_student_writes_and_the_teacher_says(
    paused: TrainingRun, teacher: Path, tmp_path: Path
) -> None:
    label_round(job_of(paused, teacher, tmp_path / "round"))
    store = LabelStore(tmp_path / "round")
    saved = load_run_state(paused.folder)
    assert saved is not None
    model = build_model(paused.model, len(Tokenizer(paused.tokenizer)))
    model.load_state_dict(part_of(saved[0], "model"))
    table = map_table(paused.token_shards[0])
    src = table["src"].to_pylist()
    written = [[*one.ids, EOS] for one in greedy_corpus(model.eval(), src)]
    assert paused.labels is not None
    taught = LabelStore(paused.labels).hypotheses
    expected = [ids[: 2 * len(taught[row])] for row, ids in enumerate(written)]
    own = store.translations("student")
    assert [own[row].tolist() for row in range(len(src))] == expected
    rows = [3, 4]
    answers = NativeTeacher(teacher).distributions(
        [src[row] for row in rows], [expected[row] for row in rows], K
    )
    ids, logp, tail = store.distributions("student", np.array(rows))
    assert ids.tolist() == np.concatenate([one.ids for one in answers]).tolist()
    assert np.allclose(logp, np.concatenate([one.logp for one in answers]), atol=1e-2)
    assert np.allclose(tail, np.concatenate([one.tail for one in answers]), atol=1e-5)


def test_a_share_of_the_sentences_is_drawn_anew_for_each_round(
    paused: TrainingRun, teacher: Path, tmp_path: Path
) -> None:
    written: list[np.ndarray] = []
    for number in (1, 1, 2):
        job = job_of(paused, teacher, tmp_path / f"round-{len(written)}", share=0.3)
        job = dataclasses.replace(job, number=number)
        label_round(job, Processes(1) if len(written) == 1 else in_process)
        lengths = LabelStore(job.folder).translations("student").lengths
        assert (lengths > 0).sum() == 2 * 75
        written.append(lengths)
    assert np.array_equal(written[0], written[1]), "whoever labels"
    assert not np.array_equal(written[0] > 0, written[2] > 0)


def test_draws_are_not_greedy_and_faulty_labels_are_left_out(
    paused: TrainingRun, labels: Path, teacher: Path, tmp_path: Path
) -> None:
    label_round(job_of(paused, teacher, tmp_path / "greedy"))
    marked = with_faults(labels, tmp_path / "marked")
    drawn = dataclasses.replace(paused, labels=marked)
    label_round(job_of(drawn, teacher, tmp_path / "drawn", draw_temperature=1.0))
    greedy, sampled = (
        LabelStore(tmp_path / name).translations("student") for name in ("greedy", "drawn")
    )
    assert not len(sampled[0]), "row 0 has a fault"
    assert (sampled.lengths == 0).sum() == 1
    assert any(not np.array_equal(greedy[row], sampled[row]) for row in range(1, 20))


def with_faults(labels: Path, folder: Path) -> Path:
    """The labels, of which the very first has a fault."""
    shutil.copytree(labels, folder)
    shards = sorted(folder.glob("*.arrow"))
    for number, shard in enumerate(shards):
        table = map_table(shard)
        marks = np.zeros(len(table), dtype=np.int8)
        marks[0] = 1 if number == 0 else -1
        paths = ["hypothesis", "reference"]
        names = label_schema(paths, 1, filtered=True).names
        table = table.append_column("fault", [marks]).select(names)
        write_shard(shard, table)
    write_manifest(folder, [shard.name for shard in shards], K, ["hypothesis", "reference"])
    return folder


def test_patience_may_end_a_run_before_a_round(new_run: NewRun, teacher: Path) -> None:
    run = new_run(patience=1, validate_every=1, learning_rate=1e-9)
    in_rounds(run, teacher)
    assert run.checkpoint.exists()
    assert max(losses(run.folder)) < 6


def test_time_of_rounds_counts(new_run: NewRun) -> None:
    run = new_run(max_steps=None, max_minutes=1)
    train(dataclasses.replace(run, spent=60.0))
    about = json.loads((run.checkpoint / "checkpoint.json").read_text())["metrics"]
    assert about["steps"] == 0
    assert about["seconds"] >= 60


class Stopped(Exception):
    pass


def test_a_round_that_was_stopped_goes_on_with_what_is_written(
    new_run: NewRun, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = new_run("whole"), new_run("broken")
    in_rounds(whole, teacher)
    label = RoundJob.label
    done: list[str] = []

    def stopping(self: RoundJob, shard: Path, *rest: Any) -> int:
        if len(done) == 3:
            done.append("stopped")
            raise Stopped
        done.append(shard.name)
        return label(self, shard, *rest)

    monkeypatch.setattr(RoundJob, "label", stopping)
    with pytest.raises(Stopped):
        in_rounds(broken, teacher)
    in_rounds(broken, teacher)
    assert done == ["00000.arrow", "00001.arrow", "00000.arrow", "stopped", "00001.arrow"]
    assert_same(whole, broken)


def killed(work: Callable[[], None], is_time: Callable[[], bool]) -> None:
    """Do it in a process of its own and SIGKILL that once it is time."""
    process = multiprocessing.get_context("spawn").Process(target=work)
    process.start()
    deadline = time.monotonic() + 120
    while not is_time():
        assert process.is_alive(), "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.join()


@pytest.mark.slow
def test_killed_and_resumed_is_the_uninterrupted_run(new_run: NewRun, teacher: Path) -> None:
    """In the second round's part of the run."""
    whole, broken = new_run("whole"), new_run("broken")
    in_rounds(whole, teacher)
    log = broken.folder / "log.jsonl"
    killed(
        partial(in_rounds, broken, teacher),
        lambda: log.exists() and log.read_text().count('"loss"') >= 16,
    )
    assert not broken.checkpoint.exists(), "it was killed too late to show anything"
    in_rounds(broken, teacher)
    assert_same(whole, broken)
    assert own_steps(broken) == own_steps(whole)


@pytest.mark.thorough
@pytest.mark.slow
def test_rounds_with_two_processes(new_run: NewRun, teacher: Path) -> None:
    once = OBJECTIVE.model_copy(update={"rounds": 1})
    run = dataclasses.replace(new_run(processes=2), objective=once)
    in_rounds(run, teacher)
    assert own_steps(run) == list(range(7, STEPS + 1))
