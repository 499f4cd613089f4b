"""What every trainer under measurement is given, and how one is run in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from training.launch import available_cores
from training.recipe import ModelConfig

T = TypeVar("T")

LABEL_SMOOTHING = 0.1
LEARNING_RATE = 1e-4
CLIP_NORM = 1.0
BETAS = (0.9, 0.98)


@dataclass(frozen=True)
class Task:
    """The same work for every trainer; plain data, so that processes can be spawned with it."""

    model: ModelConfig
    tokenizer: Path
    tokens: list[Path]
    """Token shards."""
    labels: Path
    """A label store with distributions along `hypothesis`."""
    validation: Path
    """A few pairs of text: the loop wants some at its end, and their time is not counted."""
    folder: Path
    """Where trainers may write; a folder of their own each time."""
    batch_tokens: int = 1024
    warm_up: int = 30
    """Steps before the clock starts."""
    steps: int = 100
    """Steps that are timed."""
    seed: int = 1


class TrainerUnavailable(Exception):
    """A trainer that cannot run here; the message says why, or which command installs it."""


class BaselineTrainer(Protocol):
    """One way to train the model of a task."""

    @property
    def name(self) -> str:
        """What the tables call it, with its precision."""
        ...

    def tokens_per_second(self, task: Task) -> float:
        """Target tokens a second (EOS counted, padding not), all cores together.

        Raises Unavailable where it cannot be measured.
        """
        ...


def in_fresh_process(function: Callable[..., T], *arguments: Any) -> T:
    """Run a picklable function in a new process: no threads, caches or settings of others."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def use_cores(threads: int | None = None) -> None:
    """Let torch use so many threads in this process; all cores by default."""
    torch.set_num_threads(threads or available_cores())
