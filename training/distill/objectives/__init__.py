"""Objectives: each a value that the one training loop is given.

An objective is an `nn.Module` (a learned gate has parameters) called with the model and a batch; a
new one is a file here, a config in `training.distill.config` and a line in `build_objective`.
"""

from __future__ import annotations

from training.distill.config import (
    HybridObjective,
    NllObjective,
    ObjectiveConfig,
    RiskObjective,
    SelectiveBatchObjective,
    SelectiveGlobalObjective,
    SentenceInterpolatedObjective,
    SentenceObjective,
    TieObjective,
    TokenObjective,
)
from training.distill.gate import build_gate
from training.distill.objectives.base import Objective, ObjectiveOutput
from training.distill.objectives.hybrid import Hybrid
from training.distill.objectives.nll import Nll, Sentence, SentenceInterpolated
from training.distill.objectives.risk import Risk
from training.distill.objectives.selective import SelectiveBatch, SelectiveGlobal
from training.distill.objectives.tie import Tie
from training.distill.objectives.token import Token

__all__ = ["Objective", "ObjectiveOutput", "build_objective"]


def build_objective(config: ObjectiveConfig, width: int) -> Objective:
    """The objective a recipe asks for; `width` is the student's, for gates that read its states.

    A config's fields are its objective's arguments.
    """
    options = config.model_dump(exclude={"kind", "gate"})
    match config:
        case NllObjective():
            return Nll(**options)
        case SentenceObjective():
            return Sentence(**options)
        case SentenceInterpolatedObjective():
            return SentenceInterpolated(**options)
        case TokenObjective():
            return Token(**options)
        case HybridObjective():
            return Hybrid(gate=build_gate(config.gate, width), **options)
        case SelectiveBatchObjective():
            return SelectiveBatch(**options)
        case SelectiveGlobalObjective():
            return SelectiveGlobal(**options)
        case TieObjective():
            return Tie(**options)
        case RiskObjective():
            return Risk(**options)
    raise ValueError(f"no objective is registered for {config!r}")
