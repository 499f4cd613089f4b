"""`risk`: minimum risk training, for a student that translates already (Shen et al. 2016).

The student draws translations of each sentence, and is taught to give its probability to those that
are like the reference. It learns from what it would write itself, and of whole sentences, where
every other objective gives it the words before the next one.

Shapes: B batch, C candidates of the batch, K candidates a sentence at most, N target positions.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import torch
from torch import Tensor

from training.batching import Batch, TargetSide, target_side
from training.decoding import sample
from training.distill.objectives.base import (
    Objective,
    ObjectiveOutput,
    PathName,
    side_of,
    target_logits,
    token_mean,
)
from training.distill.objectives.logp import student_logp
from training.distill.objectives.nll import token_nll
from training.model import EOS, PAD, Transformer

Ids = tuple[int, ...]
ORDERS = range(1, 5)


def sentence_bleu(candidate: Ids, reference: Ids) -> float:
    """BLEU of a candidate's token ids against a reference's, 0 to 1.

    Up to 4-grams, with one added to matches and totals of all but single tokens (Lin & Och 2004).
    0 for an empty candidate or no token in common.
    """
    if not candidate or not reference:
        return 0.0
    total = 0.0
    for order in ORDERS:
        have, want = (
            Counter(zip(*(ids[at:] for at in range(order)), strict=False))
            for ids in (candidate, reference)
        )
        matched = sum((have & want).values())
        added = int(order > 1)
        if matched + added == 0:
            return 0.0
        total += math.log((matched + added) / (max(len(candidate) - order + 1, 0) + added))
    brevity = min(0.0, 1 - len(reference) / len(candidate))
    return math.exp(total / len(ORDERS) + brevity)


class Risk(Objective):
    """(1 − w) · risk + w · sentence-level loss.

    The risk of a sentence is Σ_y Q(y | x) · (1 − BLEU(y, reference)) over the distinct ones of
    `samples` translations y that the student draws without dropout, Q ∝ P(y | x)^sharpness (Shen et
    al. 2016, section 3); the loss has its mean over the sentences. The sentence-level loss, along
    the teacher's translations, keeps the student from forgetting (as Edunov et al. 2018 combine
    sequence-level with token-level losses). Where the text has no reference the teacher's
    translation is it; a sentence with neither has no risk.
    """

    paths: tuple[PathName, ...] = ("reference", "hypothesis")

    def __init__(
        self,
        samples: int,
        draw_temperature: float,
        sharpness: float,
        nll_weight: float,
        label_smoothing: float,
    ) -> None:
        super().__init__()
        self.samples = samples
        self.draw_temperature = draw_temperature
        self.sharpness = sharpness
        self.nll_weight = nll_weight
        self.label_smoothing = label_smoothing

    def forward(self, model: Transformer, batch: Batch) -> ObjectiveOutput:
        side = side_of(batch, "hypothesis")
        drawn = self._draw(model, batch.src)
        memory, bias = model.encode(batch.src)
        student = student_logp(target_logits(model, side, memory, bias), side.targets)
        nll = token_mean(token_nll(student, self.label_smoothing))
        risk, reward = self._risk(model, drawn, _rows(side_of(batch, "reference")), memory, bias)
        loss = (1 - self.nll_weight) * risk + self.nll_weight * nll
        logs = {"risk": risk.detach(), "reward": reward, "sentence_loss": nll.detach()}
        return ObjectiveOutput(loss, logs)

    def _draw(self, model: Transformer, src: Tensor) -> list[list[Ids]]:
        """The distinct translations drawn of each sentence."""
        learning = model.training
        model.eval()
        try:
            found = sample(model, src, self.samples, self.draw_temperature)
        finally:
            model.train(learning)
        return [list({tuple(one.ids): None for one in some}) for some in found]

    def _risk(
        self,
        model: Transformer,
        drawn: list[list[Ids]],
        references: list[Ids],
        memory: Tensor,
        bias: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Mean risk of the sentences, with a gradient, and the mean BLEU of the candidates."""
        device = memory.device
        owners = torch.tensor([row for row, some in enumerate(drawn) for _ in some], device=device)
        places = torch.tensor([at for some in drawn for at in range(len(some))], device=device)
        rewards = torch.tensor(
            [
                sentence_bleu(one, reference)
                for some, reference in zip(drawn, references, strict=True)
                for one in some
            ],
            device=device,
        )
        candidates = target_side([np.array([*one, EOS]) for some in drawn for one in some])
        candidates = TargetSide(candidates.trg_in.to(device), candidates.trg_out.to(device))
        own_bias = None if bias is None else bias[owners]
        logits = target_logits(model, candidates, memory[owners], own_bias)
        logp = student_logp(logits, candidates.targets).target
        positions = candidates.mask.nonzero()[:, 0]
        scores = logp.new_zeros(len(owners)).index_add(0, positions, logp)
        known = torch.tensor([bool(row) for row in references], device=device)
        table = scores.new_full((len(drawn), self.samples), float("-inf"))
        table = table.index_put((owners, places), self.sharpness * scores)
        weight = table.softmax(1)[owners, places]
        risks = weight * (1 - rewards) * known[owners]
        return risks.sum() / len(drawn), rewards.mean()


def _rows(side: TargetSide) -> list[Ids]:
    """The ids of each row, without EOS and padding."""
    return [tuple(t for t in row if t not in (PAD, EOS)) for row in side.trg_out.tolist()]
