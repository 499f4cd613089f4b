"""One of the teacher's n-best for every epoch: by its probabilities, the same when resumed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.training.distill.test_losses import model
from training.config.io import load_recipe
from training.config.losses import SentenceNBestObjective, SentenceObjective
from training.config.recipe import RecipeError
from training.data.dataset import ParallelDataset
from training.data.tokenizer import TOKEN_SCHEMA, write_tokens
from training.distill.label_store import LabelStore, label_schema, write_manifest, write_shard
from training.distill.losses import build_loss
from training.distill.nbest import NBestColumn
from training.model.transformer import EOS

LISTS = [
    [[[5, EOS], [6, 6, EOS], [7, 7, 7, EOS]], [[8, EOS]]],
    [[[9, EOS], [10, 10, EOS]]],
]
SCORES = [[np.log([0.3, 0.15, 0.05]).tolist(), [-1.0]], [np.log([0.02, 0.08]).tolist()]]


def column() -> NBestColumn:
    nbest = [pa.chunked_array([pa.array(one, pa.list_(pa.list_(pa.int32())))]) for one in LISTS]
    scores = [pa.chunked_array([pa.array(one, pa.list_(pa.float32()))]) for one in SCORES]
    return NBestColumn(nbest, scores)


def test_a_translation_is_drawn_by_its_share_of_the_teachers_probability() -> None:
    """Row by row (.3 .15 .05) over ½, the only one, and (.02 .08) over .1, in 4,000 epochs."""
    nbest = column()
    drawn = np.stack([nbest.draw(7, epoch) for epoch in range(4000)])
    assert drawn.min(0).tolist() == [0, 3, 4]
    assert drawn.max(0).tolist() == [2, 3, 5]
    shares = [(drawn[:, row] == number).mean() for row, number in ((0, 0), (0, 1), (2, 5))]
    assert shares == pytest.approx([0.6, 0.3, 0.8], abs=0.03)
    together = ((drawn[:, 0] == 0) & (drawn[:, 2] == 5)).mean()
    assert together == pytest.approx(0.6 * 0.8, abs=0.03), "rows are drawn apart"


def test_draws_follow_seed_and_epoch() -> None:
    nbest = column()
    again = [column().draw(7, epoch).tolist() for epoch in range(30)]
    assert [nbest.draw(7, epoch).tolist() for epoch in range(30)] == again
    assert [nbest.draw(8, epoch).tolist() for epoch in range(30)] != again
    assert len({tuple(row) for row in again}) > 2


def test_a_row_without_a_translation_is_refused() -> None:
    lists = [pa.chunked_array([pa.array([[[5, EOS]], []], pa.list_(pa.list_(pa.int32())))])]
    scores = [pa.chunked_array([pa.array([[-1.0], []], pa.list_(pa.float32()))])]
    with pytest.raises(ValueError, match="every row needs a translation"):
        NBestColumn(lists, scores)


@pytest.fixture
def data(tmp_path: Path) -> ParallelDataset:
    """Three rows in two shards, whose n-best are those above."""
    first = 0
    for number, (nbest, scores) in enumerate(zip(LISTS, SCORES, strict=True)):
        ids = list(range(first, first + len(nbest)))
        first += len(nbest)
        rows = {"id": ids, "src": [[5, EOS]] * len(ids), "trg": [[11, EOS]] * len(ids)}
        write_tokens(tmp_path / f"{number}.arrow", pa.table(rows, schema=TOKEN_SCHEMA))
        labels = {
            "id": ids,
            "nbest": nbest,
            "scores": scores,
            "hypothesis": [row[0] for row in nbest],
            "closest": [row[0] for row in nbest],
        }
        write_shard(
            tmp_path / f"labels/{number}.arrow", pa.table(labels, schema=label_schema([], 3))
        )
    write_manifest(tmp_path / "labels", ["0.arrow", "1.arrow"], 0, [])
    return ParallelDataset(
        [tmp_path / "0.arrow", tmp_path / "1.arrow"], LabelStore(tmp_path / "labels")
    )


def test_a_batch_holds_what_its_epoch_drew(data: ParallelDataset) -> None:
    everything = [ids for shard in LISTS for row in shard for ids in row]
    seen = set()
    for number in range(6):
        expected = column().draw(3, number)
        batches = list(data.epoch(number, 3, 100, ("drawn",), (), 0, 1))
        found = {}
        for batch in batches:
            assert batch.drawn is not None
            for row, words in zip(batch.ids.tolist(), batch.drawn.trg_out.tolist(), strict=True):
                found[row] = [word for word in words if word]
        assert [found[row] for row in range(3)] == [everything[index] for index in expected]
        seen.add(tuple(expected))
    assert len(seen) > 1
    (resumed,) = data.epoch(5, 3, 100, ("drawn",), (), 0, 1)
    assert resumed.ntokens == sum(len(everything[index]) for index in column().draw(3, 5))


def test_the_loss_is_sentence_level_on_what_was_drawn(data: ParallelDataset) -> None:
    student = model()
    loss = build_loss(SentenceNBestObjective(), 16)
    assert loss.paths == ("drawn",)
    (batch,) = data.epoch(4, 3, 100, loss.paths, loss.needs_distributions, 0, 1)
    expected = build_loss(SentenceObjective(), 16)(student, batch._replace(hypothesis=batch.drawn))
    assert torch.equal(loss(student, batch).loss, expected.loss)


def test_a_recipe_needs_several_translations_for_it() -> None:
    tiny = Path(__file__).parents[3] / "recipes" / "tiny.yaml"
    chosen = ["student.objective={kind: sentence-nbest}", "labels.n_best=1"]
    with pytest.raises(RecipeError, match=r"chooses among translations: it needs labels\.n_best"):
        load_recipe(tiny, chosen)
    recipe = load_recipe(tiny, [*chosen[:1], "labels.n_best=2", "labels.beam_size=2"])
    assert recipe.student.objective == SentenceNBestObjective()
