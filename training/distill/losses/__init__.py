"""Losses: modules that the one training loop is given, one for each objective of a recipe.

A loss is an `nn.Module` (a learned gate has parameters) called with the model and a batch. A new
one is a class here, a config in `training.config.losses` and a case in `build_loss`.
"""

from __future__ import annotations

from training.config.losses import (
    HybridObjective,
    NllObjective,
    ObjectiveConfig,
    OnPolicyObjective,
    RiskObjective,
    SelectiveBatchObjective,
    SelectiveGlobalObjective,
    SentenceInterpolatedObjective,
    SentenceNBestObjective,
    SentenceObjective,
    StartStatesObjective,
    StartTokenObjective,
    TieObjective,
    TokenObjective,
)
from training.distill.gates import build_gate
from training.distill.losses.base import Loss, LossOutput
from training.distill.losses.hybrid import HybridLoss
from training.distill.losses.kd import (
    CrossEntropyLoss,
    InterpolatedSentenceKDLoss,
    NBestSentenceKDLoss,
    SentenceKDLoss,
    TokenKDLoss,
)
from training.distill.losses.minimum_risk import MinimumRiskLoss
from training.distill.losses.on_policy import OnPolicyLoss
from training.distill.losses.selective_kd import (
    SelectiveBatchKDLoss,
    SelectiveGlobalKDLoss,
    TieKDLoss,
)
from training.distill.losses.start_states import StartStatesLoss
from training.distill.losses.start_token import StartTokenLoss

__all__ = ["Loss", "LossOutput", "build_loss"]


def build_loss(config: ObjectiveConfig, width: int) -> Loss:
    """The loss of an objective; `width` is the student's, for gates that read its states.

    A config's fields are its loss's arguments.
    """
    options = config.model_dump(exclude={"kind", "gate", "scale"})
    match config:
        case NllObjective():
            return CrossEntropyLoss(**options)
        case SentenceObjective():
            return SentenceKDLoss(**options)
        case SentenceInterpolatedObjective():
            return InterpolatedSentenceKDLoss(**options)
        case SentenceNBestObjective():
            return NBestSentenceKDLoss(**options)
        case TokenObjective():
            return TokenKDLoss(**options)
        case StartTokenObjective():
            return StartTokenLoss(**options)
        case StartStatesObjective():
            return StartStatesLoss(**options)
        case HybridObjective():
            gate = build_gate(config.gate, width)
            return HybridLoss(gate=gate, scale=config.loss_scale, **options)
        case SelectiveBatchObjective():
            return SelectiveBatchKDLoss(**options)
        case SelectiveGlobalObjective():
            return SelectiveGlobalKDLoss(**options)
        case TieObjective():
            return TieKDLoss(**options)
        case RiskObjective():
            return MinimumRiskLoss(**options)
        case OnPolicyObjective():
            return OnPolicyLoss(
                weight=config.weight,
                divergence=config.divergence,
                scale=config.scale,
                label_smoothing=config.label_smoothing,
            )
    raise ValueError(f"no objective is registered for {config!r}")
