"""Distillation of states by the model that a student is cut out of.

A cut leaves a student whose layers still mean what they meant, so that their states can be held
against the whole model's, as in TinyBERT (Jiao et al. 2020, section 3.1) and ZipLM (Kurtić, Frantar
& Alistarh 2023, token-wise distillation). Every number of every position teaches, where a
distribution teaches by its few likely words; what the text at hand lacks is kept with the rest; and
no output layer is computed, the dearest part of a step where a vocabulary is large.

The last states are compared by what the output layer makes of them: their difference d counts as
the mean square, over the vocabulary, of the logits that it makes, less their mean, which a softmax
does not see: dᵀ C d, C being the covariance of the target's embeddings. All others count by their
own squares. Either is a share of the variance that the whole model has there.

Shapes: B batch, S and T source and target length, N positions that are no padding, V vocabulary, D
width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.data.batching import Batch
from training.distill.losses.base import Loss, LossOutput, target_of
from training.model.transformer import PAD, Transformer

JITTER = 1e-6
"""Added to the variances of C before its root is taken."""


class StartStatesLoss(Loss):
    """Squared differences from the whole model's states along the references: of the encoder's and
    the decoder's last layers, and `layer_weight` times the mean of those between, where both models
    have as many layers."""

    paths = ("reference",)
    needs_start = True

    def __init__(self, layer_weight: float = 0.2) -> None:
        super().__init__()
        self.layer_weight = layer_weight
        # Not a part of this module: it neither learns nor is saved.
        self._teachers: tuple[Transformer, ...] = ()
        self._root = torch.empty(0)
        self._known: tuple[Tensor, Tensor] | None = None

    def teach_by(self, start: Transformer, known: tuple[Tensor, Tensor] | None = None) -> None:
        """Take the model that teaches, whole; `known` are the pieces of source [V'] and target [V]
        that it has learnt, bool. Pairs with others do not count."""
        self._teachers = (start.eval().requires_grad_(False),)
        device = start.embedding.weight.device
        if known is not None and not all(bool(side.all()) for side in known):
            self._known = (known[0].to(device), known[1].to(device))
        covariance = torch.cov(start.embedding.weight.double().T)
        ridge = JITTER * covariance.diagonal().mean() * torch.eye(len(covariance), device=device)
        self._root = torch.linalg.cholesky(covariance + ridge).float()

    def _masks(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The positions of source [B, S] and target [B, T] that count, bool."""
        target = target_of(batch, "reference")
        source, written = batch.src != PAD, target.mask
        if self._known is not None:
            known = self._known[0][batch.src].all(1) & self._known[1][target.trg_out].all(1)
            source, written = source & known[:, None], written & known[:, None]
        return source, written

    def size(self, batch: Batch) -> int:
        """The target words that count."""
        return int(self._masks(batch)[1].sum())

    def forward(self, model: Transformer, batch: Batch) -> LossOutput:
        (teacher,) = self._teachers
        target = target_of(batch, "reference")
        source, written = self._masks(batch)
        with torch.no_grad():
            goals = layer_states(teacher, batch.src, target.trg_in)
        found = layer_states(model, batch.src, target.trg_in)
        ends, between = [], []
        for mine, whole, mask, root in (
            (found[0], goals[0], source, None),
            (found[1], goals[1], written, self._root),
        ):
            ends.append(_lost(mine[-1][mask], whole[-1][mask], root))
            if len(mine) == len(whole):
                between += [
                    _lost(own[mask], goal[mask])
                    for own, goal in zip(mine[:-1], whole[:-1], strict=True)
                ]
        # The output bias takes part in nothing else, and processes wait for the gradient of all.
        loss = ends[0] + ends[1] + 0 * model.output_bias.sum()
        if between:
            loss = loss + self.layer_weight * torch.stack(between).mean()
        logs = {"encoder": ends[0].detach(), "decoder": ends[1].detach()}
        return LossOutput(loss, logs)


def layer_states(
    model: Transformer, src: Tensor, trg_in: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """What comes out of every layer for source ids [B, S] and target inputs [B, T]: states
    [B, S, D] of the encoder and [B, T, D] of the decoder, the last ones normed as the next part
    reads them."""
    bias = model.padding_bias(src)
    x, encoder = model.embed(src, table=model.source_table), []
    for layer in model.encoder:
        x = layer(x, bias)
        encoder.append(x)
    encoder[-1] = memory = model.encoder_norm(x)
    y, decoder = model.embed(trg_in), []
    for layer in model.decoder:
        y = layer(y, memory, bias, None)
        decoder.append(y)
    decoder[-1] = model.decoder_norm(y)
    return encoder, decoder


def _lost(states: Tensor, goal: Tensor, root: Tensor | None = None) -> Tensor:
    """The mean square of what states [N, D] lack of their goal, a share of the goal's variance;
    both times `root` [D, D] where there is one. 0 where there are none."""
    if not len(goal):
        return states.sum()
    missing, spread = states.float() - goal.float(), goal.float() - goal.float().mean(0)
    if root is not None:
        missing, spread = missing @ root, spread @ root
    return missing.square().mean() / spread.square().mean().clamp_(min=torch.finfo().tiny)
