"""Feed-forward units cut out of a model: which go, and how well the others make up for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.training.test_transfer import DIMENSIONS, pretrained, tokenized, training_run
from tests.training.tiny_pretrained import FFN
from training.checkpoint import build_model, load_checkpoint
from training.config.model import ModelConfig
from training.data.batching import Batch, target_from_outputs
from training.model.transformer import EOS, Transformer
from training.pruning import chosen_units, feed_forward_units, prune_feed_forward
from training.run import Run
from training.trainer import train

__all__ = ["pretrained", "tokenized"]


def model(ffn: int = 32) -> Transformer:
    torch.manual_seed(0)
    return build_model(ModelConfig(**{**DIMENSIONS, "ffn": ffn, "dropout": 0.0}), 50).eval()  # type: ignore[arg-type]


def batches(seed: int = 0, count: int = 6) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)

    def ids(length: int) -> Tensor:
        return torch.randint(4, 50, (8, length), generator=generator)

    made = []
    for _ in range(count):
        src, trg = ids(9), ids(7)
        src[:4, 6:], trg[2:5, 4:] = 0, 0  # padding
        trg[trg != 0] = trg[trg != 0].clamp(min=EOS)
        made.append(Batch(torch.arange(8), src, reference=target_from_outputs(trg)))
    return made


def logits(transformer: Transformer, some: list[Batch]) -> Tensor:
    with torch.no_grad():
        return torch.cat(
            [
                transformer(batch.src, target.trg_in)[target.mask]
                for batch in some
                for target in batch.targets.values()
            ]
        )


def least_error(gram: Tensor, weights: Tensor, kept: list[int]) -> float:
    """Squared error that is left when these rows [of F + 1] are fitted to stand for all."""
    fitted = torch.linalg.solve(gram[kept][:, kept], gram[kept] @ weights)
    missing = weights.clone()
    missing[kept] -= fitted
    return float((missing * (gram @ missing)).sum())


@pytest.mark.parametrize("seed", range(5))
def test_each_unit_that_goes_is_the_one_that_costs_least(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.eye(9) + 0.3 * torch.rand(9, 9, generator=generator)
    hidden = (torch.randn(200, 9, generator=generator) @ mixed).relu().double()
    hidden = torch.cat([hidden, hidden.new_ones(200, 1)], dim=1)
    weights = torch.randn(10, 4, generator=generator, dtype=torch.float64)
    gram = hidden.T @ hidden
    kept = list(range(10))
    while len(kept) > 5:
        costs = {
            unit: least_error(gram, weights, [u for u in kept if u != unit]) for unit in kept[:-1]
        }
        kept.remove(min(costs, key=costs.__getitem__))
    assert chosen_units(gram, weights, 4).tolist() == kept[:-1]


def test_units_that_say_the_same_are_not_both_cut() -> None:
    """Each of two equal units is worthless beside the other; together they count most."""
    generator = torch.Generator().manual_seed(1)
    hidden = torch.rand(100, 4, generator=generator, dtype=torch.float64)
    hidden[:, 1] = hidden[:, 0]
    hidden = torch.cat([hidden, torch.ones(100, 1, dtype=torch.float64)], dim=1)
    weights = torch.tensor([[5.0], [5.0], [0.1], [0.2], [0.0]], dtype=torch.float64)
    kept = chosen_units(hidden.T @ hidden, weights, 2).tolist()
    assert len({0, 1} & set(kept)) == 1


def test_what_the_others_can_say_is_not_lost() -> None:
    """Half of the units are doubled: cut to half, the model computes what it did, also on other
    text."""
    whole, other = model(), model()
    for layer in [*whole.encoder, *whole.decoder]:
        with torch.no_grad():
            layer.ffn.inner.weight[16:] = layer.ffn.inner.weight[:16]
            layer.ffn.inner.bias[16:] = layer.ffn.inner.bias[:16]
    other.load_state_dict(whole.state_dict())
    prune_feed_forward(other, 16, batches())
    assert feed_forward_units(other) == 16
    assert {layer.ffn.outer.in_features for layer in [*other.encoder, *other.decoder]} == {16}
    held_out = batches(seed=9)
    goal = logits(whole, held_out)
    assert (logits(other, held_out) - goal).norm() < 0.01 * goal.norm()


def test_fitted_anew_they_are_nearer_than_cut_alone() -> None:
    whole, fitted, cut = model(), model(), model()
    prune_feed_forward(fitted, 24, batches(count=40))
    for layer in [*cut.encoder, *cut.decoder]:
        weight = layer.ffn.outer.weight
        worth = weight.norm(dim=0) * layer.ffn.inner.weight.norm(dim=1)
        with torch.no_grad():
            weight[:, worth.topk(8, largest=False).indices] = 0
    held_out = batches(seed=7)
    goal = logits(whole, held_out)
    assert (logits(fitted, held_out) - goal).norm() < 0.8 * (logits(cut, held_out) - goal).norm()


def test_a_student_of_fewer_units_learns_from_a_pretrained_model(
    tokenized: Run, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = training_run(tokenized, tmp_path / "run", pretrained)
    run = replace(run, model=run.model.model_copy(update={"ffn": FFN // 2}))
    train(run)
    assert "encoder layer 1: " in capsys.readouterr().err
    assert feed_forward_units(load_checkpoint(run.checkpoint).model) == FFN // 2
