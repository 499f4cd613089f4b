"""Cached greedy and beam decoding against plain, uncached ones."""

from __future__ import annotations

import itertools

import pytest
import torch

from tests.training.plain_beam import plain_beam
from training.model.decoding import (
    NEVER,
    beam,
    beam_corpus,
    greedy,
    greedy_corpus,
    output_limit,
    sample,
)
from training.model.transformer import BOS, EOS, PAD, Transformer


@pytest.fixture(scope="module")
def model() -> Transformer:
    torch.manual_seed(5)
    model = Transformer(12, 16, 2, 32, 2, 2, dropout=0.0, max_length=40)
    with torch.no_grad():
        model.embedding.weight.mul_(3)
        model.output_bias[EOS] = 1.0
    return model.eval()


def log_probs(model: Transformer, src: torch.Tensor, prefix: list[int]) -> torch.Tensor:
    """Uncached log-probabilities [V] after a prefix, for one unpadded source row [1, S]."""
    logits = model(src, torch.tensor([[BOS, *prefix]]))[0, -1]
    logits[list(NEVER)] = float("-inf")
    return torch.log_softmax(logits, -1)


def plain_greedy(model: Transformer, src: torch.Tensor) -> tuple[list[int], float]:
    ids: list[int] = []
    score = 0.0
    for _ in range(output_limit(src.shape[1], model.max_length)):
        logp, token = log_probs(model, src, ids).max(0)
        score += logp.item()
        if token == EOS:
            break
        ids.append(int(token))
    return ids, score


def sources() -> list[list[int]]:
    torch.manual_seed(2)
    return [[*torch.randint(4, 12, (n,)).tolist(), EOS] for n in (1, 3, 7, 2, 5, 4)]


def test_greedy_equals_uncached(model: Transformer) -> None:
    found = greedy_corpus(model, sources(), batch_rows=4)
    for row, hypothesis in zip(sources(), found, strict=True):
        ids, score = plain_greedy(model, torch.tensor([row]))
        assert hypothesis.ids == ids
        assert hypothesis.score == pytest.approx(score, abs=1e-4)


def test_greedy_in_one_padded_batch_equals_alone(model: Transformer) -> None:
    rows = sources()
    src = torch.full((len(rows), max(map(len, rows))), PAD)
    for index, row in enumerate(rows):
        src[index, : len(row)] = torch.tensor(row)
    alone = [greedy(model, torch.tensor([row]))[0].ids for row in rows]
    assert [hypothesis.ids for hypothesis in greedy(model, src)] == alone


def test_beam_of_one_is_greedy(model: Transformer) -> None:
    for row in sources():
        src = torch.tensor([row])
        assert beam(model, src, 1)[0][0].ids == greedy(model, src)[0].ids


def test_wide_beam_finds_the_best_of_all_short_outputs(model: Transformer) -> None:
    """Against every output of at most two tokens, scored without a cache."""
    src = torch.tensor([sources()[0]])
    found = beam(model, src, 9 * 9, length_penalty=0.0)[0]
    for ids in [
        [],
        *([t] for t in range(4, 12)),
        *map(list, itertools.product(range(4, 12), repeat=2)),
    ]:
        score = sum(
            float(log_probs(model, src, ids[:t])[token]) for t, token in enumerate([*ids, EOS])
        )
        assert found[0].score >= score - 1e-4
        for hypothesis in found:
            if hypothesis.ids == ids:
                assert hypothesis.score == pytest.approx(score, abs=1e-4)


def test_beam_hypotheses_are_ranked_and_differ(model: Transformer) -> None:
    found = beam(model, torch.tensor([sources()[2]]), 4)[0]
    ranks = [hypothesis.score / (len(hypothesis.ids) + 1) for hypothesis in found]
    assert len(found) == 4
    assert ranks == sorted(ranks, reverse=True)
    assert len({tuple(hypothesis.ids) for hypothesis in found}) == 4


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_beam_in_one_padded_batch_equals_plain_beam_search(
    model: Transformer, width: int, length_penalty: float
) -> None:
    rows = sources()
    src = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(row) for row in rows], batch_first=True, padding_value=PAD
    )
    for row, found in zip(rows, beam(model, src, width, length_penalty), strict=True):
        wanted = plain_beam(model, row, width, length_penalty)
        assert [one.ids for one in found] == [one.ids for one in wanted]
        assert [one.score for one in found] == pytest.approx(
            [one.score for one in wanted], abs=1e-5
        )


def test_a_corpus_keeps_its_order_under_beam_search(model: Transformer) -> None:
    rows = sources()
    found = beam_corpus(model, rows, 3, batch_rows=2)
    for row, hypothesis in zip(rows, found, strict=True):
        assert hypothesis.ids == plain_beam(model, row, 3)[0].ids


@pytest.fixture
def unsure() -> Transformer:
    """A model with many likely translations."""
    torch.manual_seed(6)
    return Transformer(12, 16, 2, 32, 2, 2, dropout=0.0, max_length=40).eval()


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_are_drawn_by_their_probability(unsure: Transformer, temperature: float) -> None:
    rows = torch.tensor([[5, 6, EOS], [7, EOS, PAD]])
    torch.manual_seed(4)
    count = 4000
    found, scores = sample(unsure, rows, count, temperature)
    assert found.shape[:2] == scores.shape == (2, count)
    for src, drawn, scored in zip(([5, 6, EOS], [7, EOS]), found, scores, strict=True):
        first = (log_probs(unsure, torch.tensor([src]), []) / temperature).softmax(-1)
        for token in range(4, 12):
            share = float((drawn[:, 0] == token).float().mean())
            assert share == pytest.approx(float(first[token]), abs=0.03)
        limit = output_limit(len(src), unsure.max_length)
        for row, found_score in zip(drawn[:20].tolist(), scored.tolist(), strict=False):
            words = [word for word in row if word != PAD]
            assert row == [*words, *[PAD] * (len(row) - len(words))]
            assert words[-1] == EOS or len(words) == limit
            assert EOS not in words[:-1]
            steps = (log_probs(unsure, torch.tensor([src]), words[:at]) for at in range(len(words)))
            score = sum(float(logp[word]) for logp, word in zip(steps, words, strict=True))
            assert found_score == pytest.approx(score, abs=1e-3)


def test_samples_follow_the_seed(unsure: Transformer) -> None:
    rows = torch.tensor([[5, 6, EOS], [7, EOS, PAD]])
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(sample(unsure, rows, 5)[0].tolist())
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
