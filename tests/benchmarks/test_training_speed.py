"""Training speed: arithmetic by hand, turns, made-up text that the loop accepts, the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import trainers, training_speed
from benchmarks.roofline import flops_per_target_token, gemm_gflops
from benchmarks.speed import ratios, spread
from benchmarks.trainers import MarianTrainer, Ours, Plain, Task, TrainerUnavailable
from benchmarks.training_speed import (
    ObjectiveSpeeds,
    Rounds,
    every_objective,
    markdown,
    measure,
    objective_speeds,
    real_task,
    synthetic_task,
    take_turns,
)
from quickstudy.machine import describe_machine
from training.config.recipe import ModelConfig, RecipeError
from training.data.dataset import ParallelDataset
from training.data.tokenizer import Tokenizer
from training.distill.label_store import LabelStore

TINY = ModelConfig(
    width=16, heads=2, ffn=32, encoder_layers=1, decoder_layers=1, dropout=0.2, max_length=40
)
VOCAB = 300


@pytest.fixture
def task(tmp_path: Path) -> Task:
    made = synthetic_task(tmp_path, TINY, VOCAB, 400)
    return replace(made, batch_tokens=128, warm_up=2, steps=5)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without processes of its own, and without changing this one's threads and memory."""
    monkeypatch.setattr(training_speed, "in_fresh_process", lambda f, *given: f(*given))
    monkeypatch.setattr(trainers, "in_fresh_process", lambda f, *given: f(*given))
    monkeypatch.setattr(trainers, "use_cores", lambda *_: None)
    monkeypatch.setattr("benchmarks.roofline.use_cores", lambda *_: None)
    monkeypatch.setattr(training_speed, "use_cores", lambda *_: None)
    monkeypatch.setattr(training_speed, "keep_memory", lambda: None)


def test_operations_of_a_target_token_by_hand() -> None:
    """D 4, F 8, V 10, one layer each; two source tokens, three target tokens.

    A D×D product is 32 a token, both inner ones 128. Encoder 2 · (4·32 + 128 + 4·2·4) = 576.
    Decoder: self 3 · (4·32 + 128 + 4·3·4) = 912; cross 3·64 queries and outputs + 2·64 keys and
    values + 4·3·2·4 = 416. Output 3·80 = 240. Together 2144, three times for the backward pass.
    """
    model = TINY.model_copy(update={"width": 4, "ffn": 8})
    found = flops_per_target_token(model, 10, np.array([2]), np.array([3]))
    assert found == pytest.approx(3 * 2144 / 3)


def test_two_layers_cost_two() -> None:
    src, trg = np.array([2]), np.array([3])
    model = TINY.model_copy(update={"width": 4, "ffn": 8, "encoder_layers": 2, "decoder_layers": 2})
    assert flops_per_target_token(model, 10, src, trg) == pytest.approx(2 * (576 + 912 + 416) + 240)


def test_spread_and_ratios() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "least": 1.0, "most": 3.0}
    assert ratios([10, 30, 20], [1, 2, 4]) == {"median": 10.0, "least": 5.0, "most": 15.0}


def test_the_machine_names_what_is_installed_and_only_that() -> None:
    found = describe_machine(("numpy", "no-such-package-of-ours"))
    assert found["numpy"] == np.__version__
    assert "no-such-package-of-ours" not in found
    assert "instructions" in found


def test_made_up_text_is_what_the_stores_hold(task: Task) -> None:
    store = LabelStore(task.labels)
    data = ParallelDataset(task.tokens, store)
    assert len(Tokenizer(task.tokenizer)) == VOCAB
    assert len(data) == 400
    batch = data.batch(np.arange(4), ("reference", "hypothesis"), ("hypothesis",))
    assert batch.reference is not None
    assert batch.hypothesis is not None
    assert batch.reference.trg_out.equal(batch.hypothesis.trg_out)
    top_ids, top_logp, tail = batch.hypothesis[2:]
    assert top_ids is not None
    assert top_logp is not None
    assert tail is not None
    assert top_ids.shape == (int(batch.hypothesis.mask.sum()), 8)
    assert all(len(set(row)) == 8 for row in top_ids.tolist())
    assert (top_ids < VOCAB).all()
    assert (top_ids[:, 0] == batch.hypothesis.trg_out[batch.hypothesis.mask]).all()
    assert (top_logp.diff(dim=1) <= 0).all()
    assert (top_logp.exp().sum(1) + tail - 1).abs().max() < 0.01


def test_every_objective_of_the_recipes_is_found() -> None:
    found = set(every_objective())
    assert {"nll", "sentence", "token", "hybrid, constant gate", "hybrid, sentence gate"} <= found


@pytest.mark.usefixtures("in_this_process")
def test_objectives_take_turns(task: Task) -> None:
    found = objective_speeds(replace(task, steps=2, warm_up=1), 2, False)
    assert {"nll", "sentence", "token"} <= set(found.milliseconds)
    assert all(len(times) == 2 and min(times) > 0 for times in found.milliseconds.values())


@pytest.mark.usefixtures("in_this_process")
def test_the_plain_loop_trains(task: Task) -> None:
    assert Plain().tokens_per_second(task) > 0


@pytest.mark.thorough
@pytest.mark.slow
def test_our_loop_is_measured_by_its_own_log(task: Task) -> None:
    assert Ours("32-true").tokens_per_second(task) > 0


class Fixed:
    """A trainer with a known speed."""

    def __init__(self, name: str, speed: float | None) -> None:
        self.name, self.speed, self.calls = name, speed, 0

    def tokens_per_second(self, task: Task) -> float:
        self.calls += 1
        if self.speed is None:
            raise TrainerUnavailable("not here")
        return self.speed


@pytest.mark.usefixtures("in_this_process")
def test_trainers_take_turns_and_what_is_missing_is_asked_once(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_speed, "_gemm", lambda: {"float32, all cores": 100.0})
    lines: list[str] = []
    missing = Fixed("c", None)
    found = take_turns(task, [Fixed("a", 2.0), Fixed("b", 3.0), missing], 2, lines.append)
    assert found.trainers == {"a": [2.0, 2.0], "b": [3.0, 3.0]}
    assert found.gemm == {"float32, all cores": [100.0, 100.0]}
    assert found.skipped == {"c": "not here"}
    assert missing.calls == 1
    assert [line.split(":")[1].strip() for line in lines if "round" in line] == ["a", "b"] * 2


def test_rows_are_ratios_to_the_plain_loop_and_shares_of_the_machine() -> None:
    rounds = Rounds(
        trainers={Plain.name: [1000.0, 1000.0], "ours": [2000.0, 2000.0]},
        gemm={"float32, all cores": [50.0, 50.0]},
    )
    row = training_speed.trainer_rows(rounds, flops=1e7)[1]
    assert row["ratio_to_plain"]["median"] == 2.0
    assert row["gflops"] == 20.0
    assert row["share_of_float32_products"] == 0.4


def test_objective_rows_are_ratios_to_nll() -> None:
    rows = training_speed.objective_rows(ObjectiveSpeeds({"nll": [2.0, 4.0], "token": [3.0, 4.0]}))
    assert rows[1]["ratio_to_nll"] == {"median": 1.25, "least": 1.0, "most": 1.5}


@pytest.mark.usefixtures("in_this_process")
def test_the_report_has_everything(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_speed, "_gemm", lambda: {"float32, all cores": 100.0})
    fixed = [Fixed(Plain.name, 1000.0), Fixed("ours", 1800.0), Fixed("other", None)]
    report = measure(task, fixed, 1, "made-up", lambda line: None)  # type: ignore[arg-type]
    text = markdown(report)
    assert text.startswith("### Measured")
    assert "| ours | 1,800 (1,800 – 1,800) | 1.80 (1.80 – 1.80) |" in text
    assert "Not measured: other: not here" in text
    assert "| token |" in text
    assert "{" not in text


def test_marian_gets_the_same_model(task: Task) -> None:
    found = trainers.marian_options(task, Path("folder"))
    assert found["dim_emb"] == 16
    assert found["transformer_dropout"] == 0.2
    assert found["after"] == "7u"


def test_marians_log_is_read() -> None:
    line = "Ep. 1 : Up. {} : Sen. 5,141 : Cost 9.2 : Time 14.35s : {} words/s : gNorm 3.4\n"
    log = line.format("1", "9.92") + line.format("1,000", "100.00") + line.format("1,001", "300.00")
    assert trainers.marian_speed(log, 2) == pytest.approx(150.0)
    with pytest.raises(TrainerUnavailable, match="3 speeds instead of 4"):
        trainers.marian_speed(log, 4)


def test_a_missing_marian_says_how_to_install_it(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainers, "find_spec", lambda name: None)
    with pytest.raises(TrainerUnavailable, match="pip install"):
        MarianTrainer().tokens_per_second(task)


def test_a_folder_without_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no token shards"):
        real_task(tmp_path, TINY, tmp_path, None)


def test_products_are_timed(in_this_process: None) -> None:
    assert gemm_gflops("float32", 1, seconds=0.001) > 0
