"""What a step of every objective costs: the same batches, the same model, one process.

A step is: make the batch, its labels too where the objective reads them; forward; backward; clip;
optimiser. Every objective runs along the teacher's translations, on the same rows.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import torch
from torch import nn

from benchmarks.trainers.task import BETAS, CLIP_NORM, LEARNING_RATE, Task, use_cores
from training.batching import Batch, token_batches
from training.checkpoint import build_model
from training.data import ParallelDataset
from training.distill.config import GateConfig, ObjectiveConfig, PathName
from training.distill.labels import LabelStore
from training.distill.objectives import Loss, build_loss
from training.launch import keep_memory
from training.model import Transformer
from training.tokenizer import Tokenizer

BASELINE = "nll"


@dataclass(frozen=True)
class ObjectiveSpeeds:
    """Milliseconds a step of each objective, one value a round; why others were left out."""

    milliseconds: dict[str, list[float]]
    skipped: dict[str, str] = field(default_factory=dict)


def every_objective() -> dict[str, Any]:
    """A config of every kind that recipes know, gates one by one, along the hypothesis path."""
    found: dict[str, Any] = {}
    for kind in get_args(get_args(ObjectiveConfig)[0]):
        fields = kind.model_fields
        common = {"path": "hypothesis"} if "path" in fields else {}
        if "gate" not in fields:
            found[fields["kind"].default] = kind(**common)
            continue
        for gate in get_args(get_args(GateConfig)[0]):
            name = f"{fields['kind'].default}, {gate.model_fields['kind'].default} gate"
            found[name] = kind(**common, gate=gate())
    return found


class Learner:
    """One objective with an optimiser of its own, around a model that all of them share."""

    def __init__(self, objective: Loss, model: Transformer, bf16: bool) -> None:
        self.objective = objective
        self.model = model
        self.bf16 = bf16
        self.parameters = [*model.parameters(), *objective.parameters()]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=LEARNING_RATE, betas=BETAS, eps=1e-9, fused=True
        )

    def batch(self, data: ParallelDataset, rows: np.ndarray) -> Batch:
        """The rows along the hypothesis, which stands for every other path too."""
        distributions: tuple[PathName, ...] = (
            ("hypothesis",) if self.objective.needs_distributions else ()
        )
        batch = data.batch(rows, ("hypothesis",), distributions)
        return batch._replace(reference=batch.hypothesis, closest=batch.hypothesis)

    def step(self, data: ParallelDataset, rows: np.ndarray) -> None:
        batch = self.batch(data, rows)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.objective(self.model, batch).loss
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()


def objective_speeds(task: Task, rounds: int, bf16: bool) -> ObjectiveSpeeds:
    """Time every objective on one thread, as training does it, in interleaved rounds.

    Run it in a process of its own: it sets the number of threads and keeps freed memory.
    """
    keep_memory()
    use_cores(1)
    torch.manual_seed(task.seed)
    store = LabelStore(task.labels)
    data = ParallelDataset(task.tokens, store)
    generator = np.random.default_rng(task.seed)
    lengths = data.src.lengths, store.hypotheses.lengths
    batches = token_batches(*lengths, task.batch_tokens, generator)
    model = build_model(task.model, len(Tokenizer(task.tokenizer)))
    learners = {
        name: Learner(build_loss(config, task.model.width), model, bf16)
        for name, config in every_objective().items()
    }
    skipped = _warm_up(learners, data, batches[: task.warm_up])
    times: dict[str, list[float]] = {name: [] for name in learners if name not in skipped}
    for number in range(rounds):
        start = number * task.steps % max(len(batches) - task.steps, 1)
        chosen = batches[start : start + task.steps]
        for name in times:
            started = time.perf_counter()
            for rows in chosen:
                learners[name].step(data, rows)
            times[name].append(1000 * (time.perf_counter() - started) / len(chosen))
    return ObjectiveSpeeds(times, skipped)


def _warm_up(
    learners: dict[str, Learner], data: ParallelDataset, batches: list[np.ndarray]
) -> dict[str, str]:
    """Some untimed steps of each; → those that cannot run on these labels, and why."""
    skipped: dict[str, str] = {}
    for name, learner in learners.items():
        try:
            for rows in batches:
                learner.step(data, rows)
        except ValueError as error:
            skipped[name] = str(error)
    return skipped
