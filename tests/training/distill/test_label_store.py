"""The label store: exact along a path, resumable shard by shard, and never half-believed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from export.ctranslate2 import to_ctranslate2
from tests.training.distill.store import write_shards, write_teacher
from training.config.recipe import LabelsConfig, RecipeError
from training.data.batching import map_table, pad_rows, target_sequence
from training.data.dataset import ParallelDataset
from training.data.tokenizer import TOKEN_SCHEMA, Tokenizer, write_tokens
from training.distill.label_store import LabelError, LabelStore
from training.distill.labelling import closest_to, label_corpus
from training.distill.teachers import NativeTeacher, Teacher
from training.model.decoding import beam
from training.model.transformer import EOS

CONFIG = LabelsConfig(beam_size=3, n_best=2, top_k=5, paths=["hypothesis", "reference"])


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def teacher(teacher_folder: Path) -> NativeTeacher:
    return NativeTeacher(teacher_folder, batch_tokens=64, converter=to_ctranslate2)


@pytest.fixture(scope="module")
def tokenizer(teacher_folder: Path) -> Tokenizer:
    return Tokenizer(teacher_folder / "tokenizer.model")


@pytest.fixture
def shards(tmp_path: Path, tokenizer: Tokenizer) -> list[Path]:
    return write_shards(tmp_path, tokenizer)


@pytest.fixture
def mixed(tmp_path: Path, shards: list[Path]) -> list[Path]:
    """The same text with every third reference taken away, and a shard with none at all."""
    for shard in shards:
        columns = map_table(shard).to_pydict()
        columns["trg"] = [
            [] if number % 3 == 0 or shard == shards[1] else trg
            for number, trg in zip(columns["id"], columns["trg"], strict=True)
        ]
        write_tokens(shard, pa.table(columns, schema=TOKEN_SCHEMA))
    return shards


def log_probs(
    teacher: NativeTeacher, data: ParallelDataset, row: int, target: np.ndarray
) -> torch.Tensor:
    """The teacher's log-probabilities [T, V] along a target, one row at a time."""
    side = target_sequence([target])
    with torch.inference_mode():
        logits = teacher.model(pad_rows([data.src[row]]), side.trg_in)[0]
    return torch.log_softmax(logits, -1)


def test_store_holds_what_the_teacher_says(
    tmp_path: Path, shards: list[Path], teacher: NativeTeacher, tokenizer: Tokenizer
) -> None:
    label_corpus(shards, tmp_path / "labels", lambda: teacher, CONFIG, tokenizer)
    store = LabelStore(tmp_path / "labels")
    data = ParallelDataset(shards, store)
    assert len(store) == len(data) == 30
    for row in range(0, 30, 7):
        best = beam(teacher.model, torch.tensor([data.src[row].tolist()]), 3)[0][0]
        assert [*best.ids, EOS] == store.hypotheses[row].tolist()
        for path, target in (("hypothesis", store.hypotheses[row]), ("reference", data.trg[row])):
            ids, logp, tail = store.distributions(path, np.array([row]))
            exact = log_probs(teacher, data, row, target)
            values, places = exact.topk(5, -1)
            assert torch.equal(ids, places)
            torch.testing.assert_close(logp, values, atol=5e-3, rtol=1e-3)
            torch.testing.assert_close(tail, 1 - values.exp().sum(1), atol=1e-5, rtol=0)


def test_batches_carry_the_labels_of_their_rows(
    tmp_path: Path, shards: list[Path], teacher: NativeTeacher, tokenizer: Tokenizer
) -> None:
    label_corpus(shards, tmp_path / "labels", lambda: teacher, CONFIG, tokenizer)
    data = ParallelDataset(shards, LabelStore(tmp_path / "labels"))
    batch = data.batch(np.array([3, 25]), ("hypothesis", "reference"), ("reference",))
    assert batch.hypothesis is not None
    assert batch.reference is not None
    assert batch.hypothesis.top_ids is None
    assert batch.reference.top_ids is not None
    assert batch.reference.top_ids.shape == (int(batch.reference.mask.sum()), 5)
    alone = data.batch(np.array([25]), ("reference",), ("reference",)).reference
    assert alone is not None
    assert alone.top_logp is not None
    assert batch.reference.top_logp is not None
    assert torch.equal(batch.reference.top_logp[-len(alone.top_logp) :], alone.top_logp)


def test_a_store_of_the_whole_vocabulary_holds_all_of_each_distribution(
    tmp_path: Path, mixed: list[Path], teacher: NativeTeacher, tokenizer: Tokenizer
) -> None:
    """`labels.top_k: 0`, for rows with a reference and without, several at once."""
    config = CONFIG.model_copy(update={"top_k": 0})
    label_corpus(mixed, tmp_path / "labels", lambda: teacher, config, tokenizer)
    store = LabelStore(tmp_path / "labels")
    data = ParallelDataset(mixed, store)
    pieces = len(teacher.pieces)
    assert store.top_k == 0
    for rows, along in (
        ([1, 2, 25], [data.trg[1], data.trg[2], data.trg[25]]),
        ([1, 3, 12], [data.trg[1], store.hypotheses[3], store.hypotheses[12]]),
    ):
        ids, logp, tail = store.distributions("reference", np.array(rows))
        assert ids.shape == logp.shape == (sum(map(len, along)), pieces)
        assert torch.equal(ids.sort(1).values, torch.arange(pieces).expand_as(ids))
        exact = torch.cat(
            [log_probs(teacher, data, row, target) for row, target in zip(rows, along, strict=True)]
        )
        torch.testing.assert_close(logp, exact.gather(1, ids), atol=2e-2, rtol=2e-3)
        assert not tail.any()
    batch = data.batch(np.array([1, 3]), ("hypothesis",), ("hypothesis",))
    assert batch.hypothesis is not None
    assert batch.hypothesis.top_ids is not None
    assert batch.hypothesis.top_ids.shape == (int(batch.hypothesis.mask.sum()), pieces)


def test_rows_without_a_reference_are_taught_along_the_hypothesis(
    tmp_path: Path, mixed: list[Path], teacher: NativeTeacher, tokenizer: Tokenizer
) -> None:
    label_corpus(mixed, tmp_path / "labels", lambda: teacher, CONFIG, tokenizer)
    store = LabelStore(tmp_path / "labels")
    data = ParallelDataset(mixed, store)
    assert len(data) == 30
    rows = np.array([1, 3, 12])
    batch = data.batch(rows, ("reference", "hypothesis"), ("reference", "hypothesis"))
    assert batch.reference is not None
    assert batch.hypothesis is not None
    assert batch.reference.trg_out[0].count_nonzero() == len(data.trg[1])
    for place in (1, 2):
        hypothesis = store.hypotheses[rows[place]]
        assert batch.reference.trg_out[place, : len(hypothesis)].tolist() == hypothesis.tolist()
    split = [len(data.trg[1]), len(store.hypotheses[1])]
    for along, own in zip((batch.reference, batch.hypothesis), split, strict=True):
        assert along.top_ids is not None
        assert along.top_ids.shape == (int(along.mask.sum()), 5)
        assert torch.equal(along.top_ids[own:], batch.hypothesis.top_ids[split[1] :])


def test_an_epoch_of_mixed_text_teaches_every_row_once(
    tmp_path: Path, mixed: list[Path], teacher: NativeTeacher, tokenizer: Tokenizer
) -> None:
    label_corpus(mixed, tmp_path / "labels", lambda: teacher, CONFIG, tokenizer)
    labelled = ParallelDataset(mixed, LabelStore(tmp_path / "labels"))
    alone = ParallelDataset(mixed)
    known = [number for number in [*range(10), *range(20, 30)] if number % 3]
    for data, expected in ((labelled, list(range(30))), (alone, known)):
        assert len(data) == len(expected)
        batches = data.epoch(0, 1, 60, ("reference",), (), 0, 1)
        assert sorted(number for batch in batches for number in batch.ids.tolist()) == expected
    assert labelled.batch_count(1, 60, ("reference",), 1) > alone.batch_count(
        1, 60, ("reference",), 1
    )


def test_text_without_any_reference_trains_no_teacher(mixed: list[Path]) -> None:
    with pytest.raises(RecipeError, match="no training text has a reference"):
        ParallelDataset([mixed[1]])


def test_a_store_without_the_hypothesis_cannot_teach_text_without_references(
    tmp_path: Path, mixed: list[Path], teacher: NativeTeacher, tokenizer: Tokenizer
) -> None:
    config = CONFIG.model_copy(update={"paths": ["reference"]})
    label_corpus(mixed, tmp_path / "labels", lambda: teacher, config, tokenizer)
    with pytest.raises(LabelError, match="no distributions along the hypothesis"):
        LabelStore(tmp_path / "labels").distributions("reference", np.array([3]))


def test_a_shard_without_rows_has_a_label_shard(
    tmp_path: Path, shards: list[Path], teacher: NativeTeacher, tokenizer: Tokenizer
) -> None:
    write_tokens(shards[1], TOKEN_SCHEMA.empty_table())
    label_corpus(shards, tmp_path / "labels", lambda: teacher, CONFIG, tokenizer)
    data = ParallelDataset(shards, LabelStore(tmp_path / "labels"))
    assert len(data) == 20
    assert data.batch(np.array([10]), ("hypothesis",), ("hypothesis",)).ids.tolist() == [20]


class Counting:
    """A teacher that counts what it is asked and can be made to die."""

    def __init__(self, teacher: Teacher, dies_after: int | None = None) -> None:
        self.teacher, self.calls, self.dies_after = teacher, 0, dies_after
        self.about = teacher.about

    def translate(self, src, beam_size, n_best, length_penalty):  # type: ignore[no-untyped-def]
        if self.dies_after is not None and self.calls >= self.dies_after:
            raise KeyboardInterrupt
        self.calls += 1
        return self.teacher.translate(src, beam_size, n_best, length_penalty)

    def distributions(self, src, trg, top_k):  # type: ignore[no-untyped-def]
        return self.teacher.distributions(src, trg, top_k)


def test_an_interrupted_run_asks_only_for_the_rest(
    tmp_path: Path, shards: list[Path], teacher: NativeTeacher, tokenizer: Tokenizer
) -> None:
    folder, whole = tmp_path / "labels", tmp_path / "whole"
    with pytest.raises(KeyboardInterrupt):
        label_corpus(shards, folder, lambda: Counting(teacher, dies_after=2), CONFIG, tokenizer)
    with pytest.raises(LabelError, match="no complete label store"):
        LabelStore(folder)
    rest = Counting(teacher)
    label_corpus(shards, folder, lambda: rest, CONFIG, tokenizer)
    assert rest.calls == 1
    label_corpus(shards, whole, lambda: teacher, CONFIG, tokenizer)
    for shard in shards:
        assert (folder / shard.name).read_bytes() == (whole / shard.name).read_bytes()


def test_nothing_to_do_makes_no_teacher(
    tmp_path: Path, shards: list[Path], teacher: NativeTeacher, tokenizer: Tokenizer
) -> None:
    label_corpus(shards, tmp_path / "labels", lambda: teacher, CONFIG, tokenizer)

    def refuse() -> Teacher:
        raise AssertionError("the teacher was made although every shard is labelled")

    label_corpus(shards, tmp_path / "labels", refuse, CONFIG, tokenizer)
    assert json.loads((tmp_path / "labels" / "labels.json").read_text())["top_k"] == 5


def test_damage_is_found_and_only_that_shard_is_made_again(
    tmp_path: Path, shards: list[Path], teacher: NativeTeacher, tokenizer: Tokenizer
) -> None:
    folder = tmp_path / "labels"
    label_corpus(shards, folder, lambda: teacher, CONFIG, tokenizer)
    damaged = folder / "00001.arrow"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(LabelError, match=r"00001\.arrow: missing or damaged"):
        LabelStore(folder)
    again = Counting(teacher)
    label_corpus(shards, folder, lambda: again, CONFIG, tokenizer)
    assert again.calls == 1
    assert len(LabelStore(folder)) == 30


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    "harm",
    [
        Path.unlink,
        truncate,
        lambda path: path.with_suffix(".json").unlink(),
        lambda path: path.with_suffix(".json").write_text("{"),
    ],
    ids=["missing", "half written", "no checksum", "damaged checksum"],
)
def test_a_shard_that_is_not_whole_is_refused_and_made_again_the_same(
    harm, tmp_path: Path, shards: list[Path], teacher: NativeTeacher, tokenizer: Tokenizer
) -> None:
    folder = tmp_path / "labels"
    label_corpus(shards, folder, lambda: teacher, CONFIG, tokenizer)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    harm(folder / "00002.arrow")
    with pytest.raises(LabelError, match=r"00002\.arrow: missing or damaged"):
        LabelStore(folder)
    again = Counting(teacher)
    label_corpus(shards, folder, lambda: again, CONFIG, tokenizer)
    assert again.calls == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_an_open_store_is_mapped_not_held(
    tmp_path: Path, shards: list[Path], teacher: NativeTeacher, tokenizer: Tokenizer
) -> None:
    label_corpus(shards, tmp_path / "labels", lambda: teacher, CONFIG, tokenizer)
    held = pa.total_allocated_bytes()
    store = LabelStore(tmp_path / "labels")
    data = ParallelDataset(shards, store)
    assert pa.total_allocated_bytes() == held
    for values in (store.tails("hypothesis")[12], store.hypotheses[12], data.src[12]):
        assert not values.flags.owndata
        assert not values.flags.writeable


def test_labels_of_other_text_are_refused(
    tmp_path: Path, shards: list[Path], teacher: NativeTeacher, tokenizer: Tokenizer
) -> None:
    label_corpus(shards[:2], tmp_path / "labels", lambda: teacher, CONFIG, tokenizer)
    with pytest.raises(ValueError, match="of other text"):
        ParallelDataset(shards, LabelStore(tmp_path / "labels"))


def test_a_path_without_distributions_says_what_to_add(
    tmp_path: Path, shards: list[Path], teacher: NativeTeacher, tokenizer: Tokenizer
) -> None:
    config = CONFIG.model_copy(update={"paths": ["hypothesis"]})
    label_corpus(shards, tmp_path / "labels", lambda: teacher, config, tokenizer)
    with pytest.raises(LabelError, match=r"add it to labels\.paths"):
        LabelStore(tmp_path / "labels").distributions("reference", np.array([0]))


def test_all_of_the_vocabulary_leaves_no_tail(teacher: NativeTeacher) -> None:
    found = teacher.distributions([[5, 6, EOS]], [[7, EOS]], 0)[0]
    assert found.logp.shape == (2, len(teacher.pieces))
    assert found.tail.tolist() == [0, 0]
    assert np.exp(found.logp).sum(1) == pytest.approx([1, 1], abs=1e-5)


def test_closest_translation_by_hand() -> None:
    """Sentence BLEU: an exact match, else the longest shared n-grams; of equal ones the first."""
    reference = "Ein Hund läuft über die Wiese."
    near = "Ein Hund läuft über den Platz."
    assert closest_to(reference, ["Zwei Katzen.", near]) == 1
    assert closest_to(reference, [near, reference, reference]) == 1
    assert closest_to(reference, ["Nichts davon"]) == 0


def test_closest_path_is_one_of_the_translations(
    tmp_path: Path, shards: list[Path], teacher: NativeTeacher, tokenizer: Tokenizer
) -> None:
    config = CONFIG.model_copy(update={"paths": ["closest"]})
    label_corpus(shards, tmp_path / "labels", lambda: teacher, config, tokenizer)
    store = LabelStore(tmp_path / "labels")
    data = ParallelDataset(shards, store)
    tables = [map_table(tmp_path / "labels" / shard.name) for shard in shards]
    nbest = [found for table in tables for found in table["nbest"].to_pylist()]
    for row in range(30):
        chosen = store.translations("closest")[row].tolist()
        texts = tokenizer.decode(nbest[row])
        best = closest_to(tokenizer.decode([data.trg[row].tolist()])[0], texts)
        assert chosen == nbest[row][best]
    batch = data.batch(np.array([0, 1]), ("closest",), ("closest",))
    assert batch.closest is not None
    assert batch.closest.tail is not None


def test_store_of_one_translation_has_no_closest_path(
    tmp_path: Path, shards: list[Path], teacher: NativeTeacher, tokenizer: Tokenizer
) -> None:
    config = CONFIG.model_copy(update={"n_best": 1})
    label_corpus(shards, tmp_path / "labels", lambda: teacher, config, tokenizer)
    with pytest.raises(LabelError, match=r"labels\.n_best"):
        LabelStore(tmp_path / "labels").translations("closest")
