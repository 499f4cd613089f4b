"""Batches: budgets, order, shares and padding."""

from __future__ import annotations

import numpy as np
import torch

from training.data.batching import (
    Batch,
    clipped,
    pad_rows,
    padded,
    process_share,
    target_sequence,
    token_batches,
)
from training.model.transformer import BOS, EOS, PAD


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
    assert of_batches([3], [100], 10) == [[0]]


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
    side = target_sequence([np.array([7, 8, EOS]), np.array([9, EOS])])
    assert side.trg_in.tolist() == [[BOS, 7, 8], [BOS, 9, PAD]]
    assert side.trg_out.tolist() == [[7, 8, EOS], [9, EOS, PAD]]
    assert side.mask.sum() == 5


def test_ntokens_counts_the_longer_side() -> None:
    short, long = target_sequence([np.array([EOS])]), target_sequence([np.array([5, 6, EOS])])
    batch = Batch(torch.tensor([0]), pad_rows([np.array([4, EOS])]), short, long)
    assert batch.ntokens == 3
    assert Batch(torch.tensor([0]), batch.src, long, short).ntokens == 3
    assert Batch(torch.tensor([0]), batch.src, closest=short).ntokens == 1


def of_batches(src: list[int], trg: list[int], budget: int) -> list[list[int]]:
    batches = token_batches(np.array(src), np.array(trg), budget, np.random.default_rng(3))
    return sorted(sorted(rows.tolist()) for rows in batches)


def test_batches_are_as_full_as_the_budget_allows() -> None:
    """Rows × the longest target: 3 · 4 fill 12; the row of 5 would make 4 · 5 of them."""
    assert of_batches([2] * 5, [4, 5, 4, 4, 5], 12) == [[0, 2, 3], [1, 4]]
    assert sorted(map(len, of_batches([2] * 5, [4, 5, 4, 4, 5], 11))) == [1, 2, 2]
    assert of_batches([], [], 12) == []


def test_a_long_source_counts_half() -> None:
    """Sources of 9 are as wide as targets of 5: two of them fill 10, not 9; of 11, as 6."""
    assert of_batches([9, 9], [2, 2], 10) == [[0, 1]]
    assert of_batches([9, 9], [2, 2], 9) == [[0], [1]]
    assert of_batches([11, 11], [2, 2], 11) == [[0], [1]]
    assert of_batches([8, 8], [2, 2], 8) == [[0, 1]]
    assert of_batches([9, 2], [2, 3], 9) == [[0], [1]]


def test_a_new_batch_forgets_how_wide_the_last_one_was() -> None:
    """Sorted by target: a source of 20 alone, then two short rows that fit together."""
    assert of_batches([20, 2, 2], [2, 3, 3], 10) == [[0], [1, 2]]
    # A source of 9 begins a batch of width 5, so that a target of 4 does not fit beside it.
    assert of_batches([2, 9, 2, 2], [2, 3, 3, 4], 8) == [[0, 2], [1], [3]]


def test_rows_of_equal_length_are_shuffled() -> None:
    batches = token_batches(np.full(40, 3), np.full(40, 4), 160, np.random.default_rng(3))
    assert [len(rows) for rows in batches] == [40]
    assert batches[0].tolist() != list(range(40))
    assert batches[0].dtype == np.int32


def test_padding_of_few_rows_or_none() -> None:
    assert pad_rows([]).shape == (0, 0)
    assert pad_rows([np.empty(0, dtype=np.int64)] * 2).shape == (2, 0)
    values = padded(np.array([7, 8, 9]), np.array([1, 0, 2]))
    assert values.tolist() == [[7, PAD], [PAD, PAD], [8, 9]]


def test_a_batch_moves_with_all_its_parts() -> None:
    side = target_sequence([np.array([5, EOS])])._replace(tail=torch.ones(2))
    batch = Batch(torch.tensor([0]), pad_rows([np.array([4, EOS])]), side)
    moved = batch.to(torch.device("meta"))
    assert moved.reference is not None
    assert moved.reference.tail is not None
    assert moved.hypothesis is None
    assert moved.reference.top_ids is None
    for part in (moved.ids, moved.src, moved.reference.trg_out, moved.reference.tail):
        assert part.device.type == "meta"


def test_sources_are_cut_to_what_a_model_takes() -> None:
    rows = [[5, 6, EOS], [5, 6, 7, EOS], [5, 6, 7, 8, EOS]]
    assert clipped(rows, 4) == [[5, 6, EOS], [5, 6, 7, EOS], [5, 6, 7, EOS]]


def test_a_last_round_that_is_not_whole_is_left_out() -> None:
    batches = [np.array([index]) for index in range(7)]
    assert [int(rows[0]) for rows in process_share(batches, 2, 3)] == [2, 5]
    assert [int(rows[0]) for rows in process_share(batches, 0, 1)] == list(range(7))
    assert list(process_share(batches, 0, 8)) == []
