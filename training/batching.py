"""Batches by target-token budget, of sentences alike in length.

Shapes: B batch, S source length, T target length, K top-k. Padding is on the right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.model import BOS, EOS, PAD


class TargetSide(NamedTuple):
    """One path that a batch is taught along: a reference or a teacher's translation.

    `trg_in` [B, T] starts with BOS, `trg_out` [B, T] ends with EOS. Where the teacher's
    distributions are known: `top_ids` [N, K], `top_logp` [N, K] (nats) and `tail` [N] (the
    probability mass outside the top k) for the N non-pad positions in row-major order.
    """

    trg_in: Tensor
    trg_out: Tensor
    top_ids: Tensor | None = None
    top_logp: Tensor | None = None
    tail: Tensor | None = None

    @property
    def mask(self) -> Tensor:
        """Non-pad target positions [B, T], bool."""
        return self.trg_out != PAD

    @property
    def targets(self) -> Tensor:
        """The words at the non-pad positions, [N]."""
        return self.trg_out[self.mask]


class Batch(NamedTuple):
    """Source ids [B, S] with the target sides that an objective asks for, by path."""

    ids: Tensor
    src: Tensor
    reference: TargetSide | None = None
    hypothesis: TargetSide | None = None
    closest: TargetSide | None = None

    @property
    def ntokens(self) -> int:
        """Non-pad target tokens of the longest side taught, the unit of speed and budget."""
        sides = (self.reference, self.hypothesis, self.closest)
        return max(int(side.mask.sum()) for side in sides if side is not None)

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        moved: Batch = _move(self, device)
        return moved


def _move(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Batch | TargetSide):
        return type(value)(*(_move(part, device) for part in value))
    return value


def padded(values: np.ndarray, lengths: np.ndarray) -> Tensor:
    """Ids of all rows one after another, and how many each row has [B] → [B, L], PAD on the
    right."""
    rows = np.full((len(lengths), int(lengths.max(initial=0))), PAD, dtype=np.int64)
    rows[np.arange(rows.shape[1]) < lengths[:, None]] = values
    return torch.from_numpy(rows)


def pad_rows(rows: Sequence[np.ndarray]) -> Tensor:
    """Rows of ids → [B, L], PAD on the right."""
    values = np.concatenate(rows) if len(rows) else np.empty(0, dtype=np.int64)
    return padded(values, np.array([len(row) for row in rows], dtype=np.int64))


def target_side(rows: Sequence[np.ndarray]) -> TargetSide:
    """Rows of target ids, EOS last → inputs and outputs, each [B, T]."""
    return side_of_outputs(pad_rows(rows))


def side_of_outputs(trg_out: Tensor) -> TargetSide:
    """Outputs [B, T], EOS last, PAD right → the side with its inputs."""
    trg_in = torch.cat([trg_out.new_full((len(trg_out), 1), BOS), trg_out[:, :-1]], dim=1)
    # An input position under padding is padding too: EOS is never fed.
    return TargetSide(trg_in.masked_fill(trg_out == PAD, PAD), trg_out)


def token_batches(
    src_lengths: np.ndarray, trg_lengths: np.ndarray, budget: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """Row numbers of each batch, in shuffled order.

    Rows are sorted by target length, then source length, ties broken at random, and cut where
    rows × longest target (or source, where a source is over twice the budget) exceeds `budget`
    tokens. A single row longer than the budget is a batch of its own.
    """
    ties = generator.random(len(src_lengths))
    order = np.lexsort((ties, src_lengths, trg_lengths)).astype(np.int32)
    del ties
    batches: list[np.ndarray] = []
    start = 0
    widest = 0
    for position, row in enumerate(order):
        widest_with = max(widest, int(trg_lengths[row]), int(src_lengths[row] + 1) // 2)
        if position > start and widest_with * (position - start + 1) > budget:
            batches.append(order[start:position])
            start = position
            widest_with = max(int(trg_lengths[row]), int(src_lengths[row] + 1) // 2)
        widest = widest_with
    if start < len(order):
        batches.append(order[start:])
    return [batches[index] for index in generator.permutation(len(batches))]


def process_share(batches: list[np.ndarray], rank: int, world_size: int) -> Iterator[np.ndarray]:
    """Every `world_size`-th batch; a last incomplete round is left out, so that no process waits
    for a batch that another does not have."""
    rounds = len(batches) // world_size
    for index in range(rounds):
        yield batches[index * world_size + rank]


def clipped(rows: list[list[int]], longest: int) -> list[list[int]]:
    """Source ids cut to what a model can take, EOS kept last."""
    return [row if len(row) <= longest else [*row[: longest - 1], EOS] for row in rows]
