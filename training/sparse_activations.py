"""Training for feed-forward units that are mostly zero, so that an engine leaves them out.

What a ReLU makes 0 need not be multiplied: the compiled engine skips it. A penalty on how many
units are active makes more of them 0, as Kurtz et al. 2020 do ("Inducing and Exploiting Activation
Sparsity for Fast Neural Network Inference", ICML, section 3), by Hoyer's measure of a position's
units h, (Σ|h|)² / Σh² (squared, as Yang et al. 2020 take it for weights, "DeepHoyer",
https://arxiv.org/abs/1908.09979). It lies between 1, where one unit is active, and the number of
units, where all are equally so, and no scaling of h changes it. Its gradient makes values below
Σh² / Σ|h| smaller and larger ones larger, so that few are left that matter.

Shapes: H feed-forward units of a layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from training.distill.losses.base import LossOutput
from training.model.transformer import FeedForward, Transformer


def active_units(hidden: Tensor) -> Tensor:
    """Non-negative activations [..., H] → Hoyer's measure [...] of how many are active, 0 to H."""
    squares = hidden.square().sum(-1)
    measure: Tensor = hidden.sum(-1).square() / squares.clamp_min(torch.finfo(squares.dtype).tiny)
    return measure


class SparseActivations:
    """Adds to a loss how many feed-forward units of a model are active.

    The share of all layers' units counts, a mean over positions, those of padding among them.
    Raises ValueError where the model's activation is not `relu`: others make nothing 0.
    """

    def __init__(self, model: Transformer, weight: float) -> None:
        """With `weight` nats a target token for all units."""
        blocks = [module for module in model.modules() if isinstance(module, FeedForward)]
        if any(block.activation != "relu" for block in blocks):
            raise ValueError("only units of the activation relu can be sparse")
        self._weight = weight
        self._units = sum(block.inner.out_features for block in blocks)
        self._seen: dict[nn.Module, list[tuple[Tensor, Tensor]]] | None = None
        for block in blocks:
            block.outer.register_forward_pre_hook(self._see)

    def _see(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self._seen is None or not torch.is_grad_enabled():  # as where translations are drawn
            return
        hidden = inputs[0]
        with torch.no_grad():
            active = (hidden > 0).sum() / max(hidden[..., 0].numel(), 1)
        self._seen.setdefault(module, []).append((active_units(hidden).mean(), active))

    def penalised(self, compute: Callable[[], LossOutput]) -> LossOutput:
        """What `compute` gives by passes through the model, with the penalty; the share of units
        above 0 is logged as `active_units`."""
        self._seen = {}
        try:
            output = compute()
            layers = [
                torch.stack([torch.stack(measures) for measures in calls]).mean(0)
                for calls in self._seen.values()
            ]
        finally:
            self._seen = None
        if not layers:
            return output
        effective, active = (torch.stack(layers).sum(0) / self._units).unbind()
        logs = {**output.logs, "active_units": active.detach()}
        return LossOutput(output.loss + self._weight * effective, logs)
