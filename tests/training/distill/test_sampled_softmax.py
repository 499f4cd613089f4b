"""The sampled softmax: which words are scored, and how near it comes to the whole vocabulary."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from training.data.batching import Batch, target_from_outputs
from training.distill.losses.base import Loss
from training.distill.losses.kd import CrossEntropyLoss, TokenKDLoss
from training.distill.sampled_softmax import scored_words
from training.model.transformer import EOS, PAD, Transformer
from training.trainer import DistillationModule

VOCAB = 300


def tiny_model() -> Transformer:
    torch.manual_seed(1)
    model = Transformer(VOCAB, width=16, heads=2, ffn=32, encoder_layers=1, decoder_layers=1)
    torch.nn.init.normal_(model.output_bias)
    return model.eval()


def tiny_batch() -> Batch:
    """Three pairs of different lengths, with a teacher's top 4 along the references."""
    generator = torch.Generator().manual_seed(2)
    trg = torch.randint(4, 60, (3, 6), generator=generator)
    for row, length in enumerate((6, 4, 2)):
        trg[row, length - 1] = EOS
        trg[row, length:] = PAD
    target = target_from_outputs(trg)
    places = int(target.mask.sum())
    top = torch.stack([torch.randperm(VOCAB, generator=generator)[:4] for _ in range(places)])
    logp = torch.log_softmax(torch.randn(places, 5, generator=generator), dim=1)
    target = target._replace(top_ids=top, top_logp=logp[:, :4], tail=logp[:, 4].exp())
    return Batch(torch.arange(3), torch.randint(4, VOCAB, (3, 5), generator=generator), target)


def gradients(model: Transformer, loss: Loss, sampled: int | None) -> Tensor:
    """All gradients of one batch, one after another, with the loss in front."""
    model.zero_grad()
    value = DistillationModule(model, loss, sampled)(tiny_batch()).loss
    value.backward()
    parts = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return torch.cat([value.detach()[None], *parts])


def test_needed_words_are_scored_and_the_rest_is_drawn_without_repetition() -> None:
    batch = tiny_batch()
    assert batch.reference is not None
    assert batch.reference.top_ids is not None
    needed = {0, 1, 2, 3, *batch.reference.trg_out.flatten().tolist()}
    needed |= set(batch.reference.top_ids.flatten().tolist())
    words, offset = scored_words(batch, VOCAB, 20)
    ids = words.tolist()
    assert ids == sorted(set(ids))
    assert len(ids) == len(needed) + 20
    assert needed <= set(ids)
    assert {word for word, more in zip(ids, offset.tolist(), strict=True) if more == 0} == needed
    assert offset.max().exp().item() == pytest.approx((VOCAB - len(needed)) / 20)
    drawn = {tuple(scored_words(batch, VOCAB, 20).words.tolist()) for _ in range(5)}
    assert len(drawn) > 1, "every batch draws anew"


def test_places_stand_for_the_same_words_and_padding_stays_padding() -> None:
    batch = tiny_batch()
    scored = scored_words(batch, VOCAB, 20)
    before, after = batch.reference, scored.relabelled(batch).reference
    assert before is not None
    assert after is not None
    assert before.top_ids is not None
    assert after.top_ids is not None
    assert torch.equal(scored.words[after.trg_out], before.trg_out)
    assert torch.equal(scored.words[after.top_ids], before.top_ids)
    assert torch.equal(after.mask, before.mask)
    assert torch.equal(after.trg_in, before.trg_in), "inputs are embedded by their own ids"


@pytest.mark.parametrize("loss", [lambda: CrossEntropyLoss(0.1), lambda: TokenKDLoss(kd_rate=0.5)])
def test_all_words_drawn_is_the_whole_softmax(loss: Callable[[], Loss]) -> None:
    model = tiny_model()
    whole, sampled = gradients(model, loss(), None), gradients(model, loss(), VOCAB)
    assert torch.allclose(whole, sampled, atol=1e-6)


@pytest.mark.parametrize("loss", [lambda: CrossEntropyLoss(0.0), lambda: TokenKDLoss(kd_rate=0.5)])
def test_the_mean_gradient_over_many_draws_is_near_the_whole_one(loss: Callable[[], Loss]) -> None:
    """100 of some 250 words of an untrained model, whose scores differ widely."""
    model = tiny_model()
    whole = gradients(model, loss(), None)
    draws = torch.stack([gradients(model, loss(), 100) for _ in range(200)])
    alike = torch.nn.functional.cosine_similarity
    assert alike(draws[:, 1:], whole[None, 1:], dim=1).min() > 0.85
    mean = draws.mean(0)
    assert alike(mean[1:], whole[1:], dim=0) > 0.999
    assert mean[0].item() == pytest.approx(whole[0].item(), rel=0.01)


def test_without_what_stands_for_the_rest_the_mean_gradient_is_far() -> None:
    model = tiny_model()
    whole = gradients(model, CrossEntropyLoss(0.0), None)
    none = gradients(model, CrossEntropyLoss(0.0), 0)
    assert abs(none[0] - whole[0]) > 0.2 * whole[0]
