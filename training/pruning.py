"""Heads and feed-forward units cut out of a model, with those that stay taught to make up for them.

Optimal Brain Surgeon (Hassibi & Stork 1993) over whole units and heads, as in ZipLM (Kurtić,
Frantar & Alistarh 2023): on text of the run, the one goes that the others can make up for best, and
what goes out of them is fitted anew, which has a closed form. Layer by layer, each behind those
already cut; in a layer attention first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from training.data.batching import Batch
from training.model.transformer import (
    PAD,
    CrossAttention,
    DecoderLayer,
    EncoderLayer,
    FeedForward,
    LayerSize,
    SelfAttention,
    Transformer,
)
from training.stage import say

CALIBRATION_PAIRS = 6000
"""Pairs of a run's text to prune on, at most: some sixty tokens or more for each of 1,500 units."""
DAMPING = 1e-4
"""What is added to each unit's mean square before inverting, as a share of the mean of all."""


@torch.no_grad()
def prune(
    model: Transformer,
    encoder: Sequence[LayerSize],
    decoder: Sequence[LayerSize],
    batches: Sequence[Batch],
) -> None:
    """Cut every layer down to its size, in place, keeping what the layers give on these batches."""
    model.eval()
    steps: list[Step] = []
    sources = [(batch.src, batch.src != PAD) for batch in batches]
    for src, mask in sources:
        state = model.embed(src, table=model.source_table)
        steps.append((state, mask, (model.padding_bias(src),)))
    memories = _prune_stack(model.encoder, steps, encoder, "encoder")
    steps = []
    for batch, memory, (src, _) in zip(batches, memories, sources, strict=True):
        target = next(iter(batch.targets.values()))
        context = (model.encoder_norm(memory), model.padding_bias(src), None)
        steps.append((model.embed(target.trg_in), target.mask, context))
    _prune_stack(model.decoder, steps, decoder, "decoder")


Step = tuple[Tensor, Tensor, tuple[Tensor | None, ...]]
"""States [B, T, D] that go into a layer, which of them are no padding [B, T], and what else the
layer is given."""


def _prune_stack(
    layers: Iterable[nn.Module], steps: Sequence[Step], sizes: Sequence[LayerSize], name: str
) -> list[Tensor]:
    """Prune layers one after another; → the states that come out of the last."""
    for number, (layer, size) in enumerate(zip(layers, sizes, strict=True), 1):
        assert isinstance(layer, EncoderLayer | DecoderLayer)
        what = f"{name} layer {number}"
        own, attention = LayerSize.of(layer), layer.attention
        if isinstance(attention, SelfAttention) and size.heads < own.heads:
            lost = cut_heads(attention, _gram(layer, attention.out, steps), size.heads)
            say(f"{what}: {size.heads} heads stay, {lost:.1%} is lost")
        if isinstance(layer, DecoderLayer) and size.cross_heads < own.cross_heads:
            lost = cut_heads(layer.cross, _gram(layer, layer.cross.out, steps), size.cross_heads)
            say(f"{what}: {size.cross_heads} heads for the source stay, {lost:.1%} is lost")
        if size.ffn < own.ffn:
            lost = cut_units(layer.ffn, _gram(layer, layer.ffn.outer, steps), size.ffn)
            say(f"{what}: {size.ffn:,} feed-forward units stay, {lost:.1%} is lost")
        steps = [(layer(state, *rest), mask, rest) for state, mask, rest in steps]
    return [state for state, _, _ in steps]


def _gram(layer: nn.Module, reads: nn.Linear, steps: Sequence[Step]) -> Tensor:
    """Sum over tokens of h hᵀ [F + 1, F + 1] in float64; h are what a linear layer reads, and a
    one."""
    moments = SecondMoments({"": reads})
    with moments:
        for state, mask, rest in steps:
            moments.mask = mask
            layer(state, *rest)
    return moments.found[""]


class SecondMoments:
    """While it is entered, sums h hᵀ [F + 1, F + 1] in float64 by the names of linear layers; h is
    what a layer reads at a position of `mask` [B, L], bool, and a one."""

    def __init__(self, layers: Mapping[str, nn.Linear]) -> None:
        self.mask = torch.empty(0)
        self.found = {
            name: torch.zeros(linear.in_features + 1, linear.in_features + 1, dtype=torch.float64)
            for name, linear in layers.items()
        }
        self._layers = layers
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> None:
        for name, linear in self._layers.items():
            hook = linear.register_forward_pre_hook(partial(self._add, name))
            self._hooks.append(hook)

    def _add(self, name: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        hidden = args[0][self.mask]
        hidden = torch.cat([hidden, hidden.new_ones(len(hidden), 1)], dim=1)
        self.found[name] += hidden.T @ hidden

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()


class _Fit:
    """A linear layer [outputs, F] of which some inputs stay, fitted to stand for all."""

    def __init__(self, linear: nn.Linear, gram: Tensor) -> None:
        self.weights = torch.cat([linear.weight.double().T, linear.bias.double()[None]])
        self.gram = gram
        self.total = float((self.weights * (gram @ self.weights)).sum()) or 1.0

    def of(self, inputs: Tensor) -> tuple[nn.Linear, float]:
        """The layer that reads these inputs [n] alone, and the share of its output's sum of squares
        that is lost."""
        gram, weights = self.gram, self.weights
        rows = torch.cat([inputs, torch.tensor([len(gram) - 1])])
        fitted = torch.linalg.solve(_damped(gram[rows][:, rows]), gram[rows] @ weights)
        missing = weights.clone()
        missing[rows] -= fitted
        linear = nn.Linear(len(inputs), weights.shape[1])
        linear.weight.copy_(fitted[:-1].T)
        linear.bias.copy_(fitted[-1])
        return linear, float((missing * (gram @ missing)).sum()) / self.total


def _rows_of(linear: nn.Linear, rows: Tensor) -> nn.Linear:
    """The outputs `rows` [n] of a linear layer."""
    chosen = nn.Linear(linear.in_features, len(rows))
    chosen.weight.copy_(linear.weight[rows])
    chosen.bias.copy_(linear.bias[rows])
    return chosen


@torch.no_grad()
def cut_units(ffn: FeedForward, gram: Tensor, units: int) -> float:
    """Cut a network down to `units`, on the sum of h hᵀ [F + 1, F + 1] of what its units give and a
    one; → the share of its output's sum of squares that is lost."""
    fit = _Fit(ffn.outer, gram)
    kept = chosen_units(gram, fit.weights, units)
    ffn.outer, lost = fit.of(kept)
    ffn.inner = _rows_of(ffn.inner, kept)
    return lost


@torch.no_grad()
def cut_heads(attention: SelfAttention | CrossAttention, gram: Tensor, heads: int) -> float:
    """Cut attention down to `heads`, on the sum of h hᵀ [H · D / H + 1, …] of what they mix and a
    one. The head goes, one at a time, without which the others lose least. → the share of its
    output's sum of squares that is lost."""
    width = attention.out.in_features // attention.heads
    fit = _Fit(attention.out, gram)
    stay, lost = list(range(attention.heads)), 0.0

    def inputs(chosen: Sequence[int]) -> Tensor:
        return torch.cat([torch.arange(head * width, (head + 1) * width) for head in chosen])

    while len(stay) > heads:
        tried = [[head for head in stay if head != gone] for gone in stay]
        found = [fit.of(inputs(chosen)) for chosen in tried]
        best = min(range(len(tried)), key=lambda index: found[index][1])
        stay, (attention.out, lost) = tried[best], found[best]
    rows = inputs(stay)
    size = attention.heads * width
    if isinstance(attention, SelfAttention):
        attention.qkv = _rows_of(attention.qkv, torch.cat([rows, size + rows, 2 * size + rows]))
    else:
        attention.query = _rows_of(attention.query, rows)
        attention.kv = _rows_of(attention.kv, torch.cat([rows, size + rows]))
    attention.heads = heads
    return lost


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
