"""Minimum-Bayes-risk choice: sacreBLEU's scores, the choice written out, labels that follow it."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
import sacrebleu
import torch
from pydantic import ValidationError

from tests.training.distill.store import write_teacher
from training.config.labels import LabelsConfig, MbrConfig
from training.data.tokenizer import Tokenizer
from training.distill.label_store import LabelError
from training.distill.labelling import label_rows
from training.distill.mbr import bleu, chrf, expected_utility, ranked
from training.distill.teachers import NativeTeacher
from training.distill.teachers.base import Hypotheses
from training.model.transformer import EOS

WORDS = ["der", "die", "Hund", "Katze", "läuft", "schläft", "über", "Wiese", "ein", "a", "Ärger"]
TEXTS = ["", "a", "ab", "Der Hund.", "Der  Hund läuft!", "日本語", "a b a b a b", "Der Hund läuft"]


def random_texts(count: int, seed: int) -> list[str]:
    chooser = random.Random(seed)
    return [" ".join(chooser.choices(WORDS, k=chooser.randint(1, 7))) for _ in range(count)]


@pytest.mark.parametrize("texts", [TEXTS, random_texts(9, 3)])
def test_chrf_and_bleu_are_sacrebleu_s(texts: list[str]) -> None:
    one, two = chrf(texts), bleu(texts)
    assert one.shape == (len(texts), len(texts))
    for row, hypothesis in enumerate(texts):
        for column, reference in enumerate(texts):
            expected = sacrebleu.sentence_chrf(hypothesis, [reference]).score
            assert one[row, column] == pytest.approx(expected, abs=1e-9), (hypothesis, reference)
            expected = sacrebleu.sentence_bleu(hypothesis, [reference]).score
            assert two[row, column] == pytest.approx(expected, abs=1e-9)


def test_expected_utility_is_the_weighed_mean() -> None:
    """Written out in plain Python, equal texts counted as often as they stand."""
    texts = random_texts(6, 5)
    texts += texts[:2]
    weights = np.array([3.0, 1.0, 0.5, 2.0, 1.0, 1.0, 0.25, 4.0])
    expected = [
        sum(
            weight * sacrebleu.sentence_chrf(text, [other]).score
            for other, weight in zip(texts, weights, strict=True)
        )
        / weights.sum()
        for text in texts
    ]
    assert expected_utility(texts, weights, chrf).tolist() == pytest.approx(expected)
    order = ranked(texts, weights, chrf)
    assert sorted(order) == list(range(6)), "each text once, by its first place"
    assert all(expected[one] >= expected[two] - 1e-9 for one, two in pairwise(order))


def test_of_equal_ones_the_first_is_chosen() -> None:
    assert ranked(["ab", "xy", "ab", "zw"], np.ones(4), chrf) == [0, 1, 3]
    assert ranked(["b", "c"], np.ones(2), chrf) == [0, 1]


class Told:
    """A teacher that is told its n-best; it can draw nothing."""

    def __init__(self, nbest: list[Hypotheses]) -> None:
        self.nbest = nbest

    def translate(self, *_: object) -> list[Hypotheses]:
        return self.nbest


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> NativeTeacher:
    return NativeTeacher(write_teacher(tmp_path_factory.mktemp("mbr")), batch_tokens=64)


@pytest.fixture(scope="module")
def tokenizer(teacher: NativeTeacher, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(write_teacher(tmp_path_factory.mktemp("words")) / "tokenizer.model")


def test_an_n_best_list_is_ranked_by_risk_and_probability(tokenizer: Tokenizer) -> None:
    """The search's best is unlike the others, which are alike; unless it is far likelier."""
    texts = ["xyz", "the cat sat here", "the cat sat there"]
    rows = tokenizer.encode(texts)
    config = LabelsConfig(n_best=2, beam_size=3, paths=["hypothesis"], mbr=MbrConfig(samples=0))
    for lead, first in ((0.1, "the cat sat"), (6.0, "xyz")):
        scores = [-1.0, -1.0 - lead, -1.1 - lead]
        told = Told([list(zip(rows, scores, strict=True))])
        config = config.model_copy(update={"paths": []})
        columns = label_rows(told, [rows[0]], [rows[0]], config, tokenizer)  # type: ignore[arg-type]
        best, *others = columns["nbest"][0]  # type: ignore[misc]
        assert columns["hypothesis"] == [best]
        assert tokenizer.decode([best])[0].startswith(first)
        assert len(others) == 1
        assert columns["scores"][0][0] == scores[rows.index(best)]  # type: ignore[index]


def test_a_teacher_that_cannot_draw_says_so(tokenizer: Tokenizer) -> None:
    config = LabelsConfig(mbr=MbrConfig(samples=4)).model_copy(update={"paths": []})
    with pytest.raises(LabelError, match="draws no translations: use one of kind train"):
        label_rows(Told([]), [[5, EOS]], [[5, EOS]], config, tokenizer)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="it needs samples or n_best above 1"):
        LabelsConfig(mbr=MbrConfig(samples=0))
    assert LabelsConfig(beam_size=1, n_best=8, mbr=MbrConfig(samples=8)).n_best == 8


def test_samples_are_the_teachers_own_and_drawn_alike_again(teacher: NativeTeacher) -> None:
    """Held to the model's own probabilities of what was drawn; other draws leave them alone."""
    src = [[5, 6, 7, EOS], [9, EOS]]
    drawn = teacher.sample(src, 3, 1.0)
    torch.rand(5)
    assert teacher.sample(src, 3, 1.0) == drawn
    assert [len(row) for row in drawn] == [3, 3]
    state = torch.get_rng_state()
    teacher.sample(src, 3, 1.0)
    assert torch.equal(torch.get_rng_state(), state)
    ids, score = drawn[0][0]
    limit = 2 * len(src[0]) + 10
    logp = teacher.log_probs([src[0]], [ids]).double()
    kept = len(ids) if len(ids) <= limit else limit
    own = logp.gather(1, torch.tensor(ids)[:, None])[:kept, 0].sum().item()
    # Specials other than EOS are never drawn, so what is drawn is a little likelier.
    assert own - 1e-3 <= score <= own + 0.5 * len(ids)


def test_samples_become_labels_by_their_likeness(
    teacher: NativeTeacher, tokenizer: Tokenizer
) -> None:
    src = [[5, 6, 7, EOS], [9, 8, EOS]]
    config = LabelsConfig(n_best=2, beam_size=2, top_k=3, mbr=MbrConfig(samples=6))
    columns = label_rows(teacher, src, src, config, tokenizer)
    for row, drawn in enumerate(teacher.sample(src, 6, 1.0)):
        texts = tokenizer.decode([ids for ids, _ in drawn])
        means = [
            np.mean([sacrebleu.sentence_chrf(text, [other]).score for other in texts])
            for text in texts
        ]
        best = columns["hypothesis"][row]
        assert means[[ids for ids, _ in drawn].index(best)] == pytest.approx(max(means))
        assert best == columns["nbest"][row][0]  # type: ignore[index]
        assert len(columns["hypothesis_tail"][row]) == len(best)  # type: ignore[arg-type]
    assert label_rows(teacher, src, src, config, tokenizer)["nbest"] == columns["nbest"]
