"""Batches: budgets, order, shares and padding."""

from __future__ import annotations

import numpy as np
import torch

from training.batching import Batch, pad_rows, process_share, target_side, token_batches
from training.model import BOS, EOS, PAD


def lengths(count: int = 500) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.integers(2, 40, count), generator.integers(2, 40, count)


def test_every_row_is_in_one_batch_within_the_budget() -> None:
    src, trg = lengths()
    batches = token_batches(src, trg, 256, np.random.default_rng(1))
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    for rows in batches:
        assert trg[rows].max() * len(rows) <= 256
        assert src[rows].max() * len(rows) <= 2 * 256 + 2 * len(rows)


def test_a_row_over_the_budget_is_alone() -> None:
    batches = token_batches(
        np.array([3, 3, 3]), np.array([2, 100, 2]), 10, np.random.default_rng(0)
    )
    assert sorted(map(len, batches)) == [1, 2]


def test_order_depends_on_the_generator_alone() -> None:
    src, trg = lengths()
    one, two, other = (
        token_batches(src, trg, 256, np.random.default_rng(seed)) for seed in (7, 7, 8)
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=False))


def test_processes_get_equal_disjoint_shares() -> None:
    batches = [np.array([index]) for index in range(7)]
    shares = [list(process_share(batches, rank, 3)) for rank in range(3)]
    assert [len(share) for share in shares] == [2, 2, 2]
    assert sorted(int(rows[0]) for share in shares for rows in share) == [0, 1, 2, 3, 4, 5]


def test_targets_are_shifted_and_padded() -> None:
    side = target_side([np.array([7, 8, EOS]), np.array([9, EOS])])
    assert side.trg_in.tolist() == [[BOS, 7, 8], [BOS, 9, PAD]]
    assert side.trg_out.tolist() == [[7, 8, EOS], [9, EOS, PAD]]
    assert side.mask.sum() == 5


def test_ntokens_counts_the_longer_side() -> None:
    short, long = target_side([np.array([EOS])]), target_side([np.array([5, 6, EOS])])
    batch = Batch(torch.tensor([0]), pad_rows([np.array([4, EOS])]), short, long)
    assert batch.ntokens == 3
