"""Quickstudy's own training loop, as `quickstudy student` runs it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import harmonic_mean
from typing import Literal

from benchmarks.trainers.task import (
    BETAS,
    CLIP_NORM,
    LABEL_SMOOTHING,
    LEARNING_RATE,
    Task,
    in_fresh_process,
)
from training.distill.config import NllObjective
from training.launch import precision
from training.loop import TrainingRun, train
from training.recipe import TrainingConfig

LOG_LINES = 5


@dataclass(frozen=True)
class Ours:
    """`training.loop.Trainer` through `training.launch`: one process a core."""

    precision: Literal["auto", "32-true", "bf16-mixed"] = "32-true"

    @property
    def name(self) -> str:
        chosen = precision(TrainingConfig(max_steps=1, precision=self.precision))
        return f"Quickstudy, {chosen}" + (" (auto)" if self.precision == "auto" else "")

    def tokens_per_second(self, task: Task) -> float:
        """The loop's own count, from its log: first process's tokens × processes, validations
        and savings not counted."""
        folder = task.folder / "ours"
        shutil.rmtree(folder, ignore_errors=True)
        in_fresh_process(train, self._run(task, folder))
        return _timed(folder / "log.jsonl", task.warm_up)

    def _run(self, task: Task, folder: Path) -> TrainingRun:
        every = max(task.steps // LOG_LINES, 1)
        # Log lines fall on multiples of `every`; the last of the warm-up starts the clock.
        warm_up = -(-task.warm_up // every) * every
        steps = warm_up + every * LOG_LINES
        return TrainingRun(
            name="ours",
            folder=folder,
            model=task.model,
            training=TrainingConfig(
                batch_tokens=task.batch_tokens,
                learning_rate=LEARNING_RATE,
                clip_norm=CLIP_NORM,
                betas=BETAS,
                max_steps=steps,
                log_every=every,
                validate_every=steps,
                checkpoint_minutes=1e6,
                average=1,
                precision=self.precision,
            ),
            objective=NllObjective(label_smoothing=LABEL_SMOOTHING),
            token_shards=task.tokens,
            labels=None,
            tokenizer=task.tokenizer,
            validation=task.validation,
            seed=task.seed,
            recipe_text="name: training-speed\n",
        )


def _timed(log: Path, warm_up: int) -> float:
    """Mean speed of the log's lines after the warm-up; each covers as many steps."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    rates = [line["tokens_per_second"] for line in lines if "tokens_per_second" in line]
    skipped = len(rates) - LOG_LINES
    assert skipped >= 0, f"{len(rates)} log lines after {warm_up} steps of warm-up"
    return harmonic_mean(rates[skipped:])
