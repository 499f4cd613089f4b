"""Minimum risk training (Shen et al. 2016), for a student that already translates.

The student draws translations of each sentence and learns to give its probability to those that
are like the reference: it learns from what it would write itself and from whole sentences, where
every other loss gives it the words before the next one.

Shapes: B batch, C distinct candidates of the batch, K candidates drawn a sentence, T their length,
R a reference's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.config.losses import TargetPath
from training.data.batching import Batch, target_from_outputs
from training.distill.losses.base import (
    Loss,
    LossOutput,
    student_logp,
    target_logits,
    target_of,
    token_mean,
)
from training.distill.losses.kd import token_nll
from training.model.decoding import sample
from training.model.transformer import EOS, PAD, Transformer

ORDERS = range(1, 5)


def sentence_bleu(candidates: Tensor, references: Tensor) -> Tensor:
    """BLEU of each candidate against its reference, 0 to 1: ids [C, T] and [C, R], PAD right, no
    EOS → [C].

    Up to 4-grams, with one added to matches and totals of all but single tokens (Lin & Och 2004).
    0 for an empty candidate or no token in common.
    """
    known = candidates != PAD
    lengths, wanted = known.sum(1), (references != PAD).sum(1)
    words = (candidates[:, :, None] == candidates[:, None, :]) & known[:, :, None]
    words_there = (candidates[:, :, None] == references[:, None, :]) & known[:, :, None]
    same, there = words, words_there
    total = lengths.new_zeros(len(candidates), dtype=torch.float32)
    for order in ORDERS:
        if order > 1:
            same, there = _longer(same, words, order), _longer(there, words_there, order)
        # The n-th of a candidate's equal n-grams counts where the reference has n of them.
        matched = (same.tril().sum(2) <= there.sum(2)) & same.diagonal(dim1=1, dim2=2)
        added = int(order > 1)
        share = (matched.sum(1) + added) / ((lengths - order + 1).clamp(min=0) + added)
        total = total + share.log()
    brevity = (1 - wanted / lengths).clamp(max=0)
    found = (total / len(ORDERS) + brevity).exp()
    return torch.where((lengths > 0) & (wanted > 0), found, 0.0)


def _longer(shorter: Tensor, words: Tensor, order: int) -> Tensor:
    """Where n-grams of `order` at positions [C, I, J] are equal, from those a word shorter
    [C, I + 1, J + 1] and the words [C, T, R]."""
    return shorter[:, :-1, :-1] & words[:, order - 1 :, order - 1 :]


class MinimumRiskLoss(Loss):
    """(1 − w) · risk + w · sentence-level loss.

    The risk of a sentence is Σ_y Q(y | x) · (1 − BLEU(y, reference)) over the distinct ones of
    `samples` translations y that the student draws without dropout, Q ∝ P(y | x)^sharpness (Shen et
    al. 2016, section 3); the loss has its mean over the sentences. The sentence-level loss, along
    the teacher's translations or the references (`nll_path`), keeps the student from forgetting (as
    Edunov et al. 2018 combine sequence-level with token-level losses). Where the text has no
    reference the teacher's translation is it; a sentence with neither has no risk.
    """

    def __init__(
        self,
        samples: int,
        draw_temperature: float,
        sharpness: float,
        nll_weight: float,
        nll_path: TargetPath,
        label_smoothing: float,
    ) -> None:
        super().__init__()
        self.paths = ("reference",) if nll_path == "reference" else ("reference", "hypothesis")
        self.nll_path = nll_path
        self.samples = samples
        self.draw_temperature = draw_temperature
        self.sharpness = sharpness
        self.nll_weight = nll_weight
        self.label_smoothing = label_smoothing

    def size(self, batch: Batch) -> int:
        """Sentences, which the risk is a mean over."""
        return len(batch.src)

    def forward(self, model: Transformer, batch: Batch) -> LossOutput:
        target = target_of(batch, self.nll_path)
        drawn = self._draw(model, batch.src)
        memory, bias = model.encode(batch.src)
        student = student_logp(target_logits(model, target, memory, bias), target.targets)
        nll = token_mean(token_nll(student, self.label_smoothing))
        reference = target_of(batch, "reference").trg_out
        risk, reward = self._risk(model, drawn, reference, memory, bias)
        loss = (1 - self.nll_weight) * risk + self.nll_weight * nll
        logs = {"risk": risk.detach(), "reward": reward, "sentence_loss": nll.detach()}
        return LossOutput(loss, logs)

    def _draw(self, model: Transformer, src: Tensor) -> Tensor:
        """Ids [B, K, T], PAD right, of the translations drawn of each sentence."""
        learning = model.training
        model.eval()
        try:
            drawn, _ = sample(model, src, self.samples, self.draw_temperature)
        finally:
            model.train(learning)
        return drawn

    def _risk(
        self,
        model: Transformer,
        drawn: Tensor,
        reference: Tensor,
        memory: Tensor,
        bias: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Mean risk of the sentences, with a gradient, and the mean BLEU of the candidates."""
        drawn, reference = _without_eos(drawn), _without_eos(reference)
        owners, places = _first_of_each(drawn).nonzero().unbind(1)
        candidates = drawn[owners, places]
        rewards = sentence_bleu(candidates, reference[owners])
        target = target_from_outputs(_with_eos(candidates))
        own_bias = None if bias is None else bias[owners]
        logits = target_logits(model, target, memory[owners], own_bias)
        logp = student_logp(logits, target.targets).target
        positions = target.mask.nonzero()[:, 0]
        scores = logp.new_zeros(len(owners)).index_add(0, positions, logp)
        table = scores.new_full(drawn.shape[:2], float("-inf"))
        table = table.index_put((owners, places), self.sharpness * scores)
        weight = table.softmax(1)[owners, places]
        known = (reference != PAD).any(1)
        risks = weight * (1 - rewards) * known[owners]
        return risks.sum() / len(drawn), rewards.mean()


def _without_eos(ids: Tensor) -> Tensor:
    """Ids with PAD for EOS, of any shape."""
    return ids.masked_fill(ids == EOS, PAD)


def _with_eos(ids: Tensor) -> Tensor:
    """Ids [C, T], PAD right → [C, up to T + 1], EOS after the last of each row."""
    lengths = (ids != PAD).sum(1, keepdim=True)
    longest = int(lengths.max()) + 1
    return F.pad(ids, (0, 1), value=PAD).scatter(1, lengths, EOS)[:, :longest]


def _first_of_each(drawn: Tensor) -> Tensor:
    """Which translations [B, K, T] do not repeat an earlier one of their sentence [B, K]."""
    same = (drawn[:, :, None] == drawn[:, None]).all(3)
    return same.tril(-1).sum(2) == 0
