"""Feed-forward units cut out of a model, with those that stay taught to make up for them.

Optimal Brain Surgeon (Hassibi & Stork 1993) over whole units, as in ZipLM (Kurtić, Frantar &
Alistarh 2023): on text of the run, the unit goes that the others can make up for best, and what
goes out of them is fitted anew, which has a closed form. Layer by layer, each behind those already
cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from training.data.batching import Batch
from training.model.transformer import ACTIVATIONS, PAD, FeedForward, Transformer
from training.stage import say

CALIBRATION_PAIRS = 2000
"""Pairs of a run's text to prune on: some twenty tokens for each of 1,500 units."""
DAMPING = 1e-4
"""What is added to each unit's mean square before inverting, as a share of the mean of all."""


def feed_forward_units(model: Transformer) -> int:
    """Units of each layer's feed-forward network."""
    ffn = model.encoder[0].ffn
    assert isinstance(ffn, FeedForward)
    return ffn.inner.out_features


@torch.no_grad()
def prune_feed_forward(model: Transformer, units: int, batches: Sequence[Batch]) -> None:
    """Cut the feed-forward networks of every layer down to `units` units, in place, keeping what
    they give on these batches."""
    model.eval()
    encoder: list[Step] = []
    sources = [(batch.src, batch.src != PAD) for batch in batches]
    for src, mask in sources:
        state = model.embed(src, table=model.source_table)
        encoder.append((state, mask, (model.padding_bias(src),)))
    memories = _prune_stack(model.encoder, encoder, units, "encoder")
    decoder: list[Step] = []
    for batch, memory, (src, _) in zip(batches, memories, sources, strict=True):
        target = next(iter(batch.targets.values()))
        context = (model.encoder_norm(memory), model.padding_bias(src), None)
        decoder.append((model.embed(target.trg_in), target.mask, context))
    _prune_stack(model.decoder, decoder, units, "decoder")


Step = tuple[Tensor, Tensor, tuple[Tensor | None, ...]]
"""States [B, T, D] that go into a layer, which of them are no padding [B, T], and what else the
layer is given."""


def _prune_stack(
    layers: Iterable[nn.Module], steps: Sequence[Step], units: int, name: str
) -> list[Tensor]:
    """Prune layers one after another; → the states that come out of the last."""
    for number, layer in enumerate(layers, 1):
        ffn = layer.ffn
        assert isinstance(ffn, FeedForward)
        if ffn.inner.out_features > units:
            lost = _prune(ffn, _gram(layer, ffn, steps), units)
            say(f"{name} layer {number}: {units:,} feed-forward units stay, {lost:.1%} is lost")
        steps = [(layer(state, *rest), mask, rest) for state, mask, rest in steps]
    return [state for state, _, _ in steps]


def _gram(layer: nn.Module, ffn: FeedForward, steps: Sequence[Step]) -> Tensor:
    """Sum over tokens of h hᵀ [F + 1, F + 1] in float64; h are what a layer's units give, and a
    one."""
    size = ffn.inner.out_features + 1
    gram = torch.zeros(size, size, dtype=torch.float64)
    given: list[Tensor] = []
    hook = ffn.inner.register_forward_hook(lambda module, args, out: given.append(out))
    try:
        for state, mask, rest in steps:
            layer(state, *rest)
            hidden = ACTIVATIONS[ffn.activation](given.pop())[mask]
            hidden = torch.cat([hidden, hidden.new_ones(len(hidden), 1)], dim=1)
            gram += hidden.T @ hidden
    finally:
        hook.remove()
    return gram


def _prune(ffn: FeedForward, gram: Tensor, units: int) -> float:
    """Cut a network down to `units`; → the share of its output's sum of squares that is lost."""
    outer, bias = ffn.outer.weight, ffn.outer.bias
    weights = torch.cat([outer.double().T, bias.double()[None]])
    kept = chosen_units(gram, weights, units)
    columns = torch.cat([kept, torch.tensor([len(gram) - 1])])
    fitted = torch.linalg.solve(_damped(gram[columns][:, columns]), gram[columns] @ weights)
    whole = (weights * (gram @ weights)).sum()
    missing = weights.clone()
    missing[columns] -= fitted
    error = (missing * (gram @ missing)).sum() / whole
    inner = ffn.inner
    ffn.inner, ffn.outer = nn.Linear(inner.in_features, units), nn.Linear(units, len(bias))
    ffn.inner.weight.copy_(inner.weight[kept])
    ffn.inner.bias.copy_(inner.bias[kept])
    ffn.outer.weight.copy_(fitted[:-1].T)
    ffn.outer.bias.copy_(fitted[-1])
    return float(error)


def _damped(gram: Tensor) -> Tensor:
    return gram + DAMPING * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)


def chosen_units(gram: Tensor, weights: Tensor, count: int) -> Tensor:
    """The `count` units [count], ascending, that stay of F.

    `gram` [F + 1, F + 1] is the sum of h hᵀ, `weights` [F + 1, D] what goes out; the last of both
    is a constant, which stays. One at a time goes the unit j of least |w_j|² / (G⁻¹)_jj, the rise
    of the squared error once the others have taken over, which they do before the next is chosen.
    """
    inverse = torch.linalg.inv(_damped(gram))
    weights = weights.clone()
    steps = len(gram) - 1 - count
    # What the removals take from the inverse is factor · factorᵀ, a pivoted Cholesky factor.
    factor = gram.new_zeros(len(gram), steps)
    diagonal = inverse.diagonal().clone()
    stays = torch.ones(len(gram), dtype=torch.bool)
    for step in range(steps):
        rise = weights.square().sum(1) / diagonal
        unit = int(rise[:-1].masked_fill(~stays[:-1], torch.inf).argmin())
        column = inverse[:, unit] - factor[:, :step] @ factor[unit, :step]
        pivot = column[unit].clone()
        factor[:, step] = column / pivot.sqrt()
        diagonal -= factor[:, step].square()
        weights -= torch.outer(column / pivot, weights[unit])
        stays[unit] = False
    return stays[:-1].nonzero()[:, 0]
