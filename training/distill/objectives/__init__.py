"""Objectives: each a value that the one training loop is given.

An objective is an `nn.Module` (a learned gate has parameters) called with the model and a batch; a
new one is a file here, a config in `training.distill.config` and a line in `build_objective`.
"""

from __future__ import annotations

from training.distill.config import (
    HybridObjective,
    NllObjective,
    ObjectiveConfig,
    SentenceObjective,
    TokenObjective,
)
from training.distill.gate import build_gate
from training.distill.objectives.base import Objective, ObjectiveOutput
from training.distill.objectives.hybrid import Hybrid
from training.distill.objectives.nll import Nll, Sentence
from training.distill.objectives.token import Token

__all__ = ["Objective", "ObjectiveOutput", "build_objective"]


def build_objective(config: ObjectiveConfig, width: int) -> Objective:
    """The objective a recipe asks for; `width` is the student's, for gates that read its states."""
    match config:
        case NllObjective():
            return Nll(config.label_smoothing)
        case SentenceObjective():
            return Sentence(config.label_smoothing)
        case TokenObjective():
            return Token(config.temperature, config.kd_rate, config.path)
        case HybridObjective():
            return Hybrid(
                gate=build_gate(config.gate, width),
                label_smoothing=config.label_smoothing,
                temperature=config.temperature,
                kd_rate=config.kd_rate,
                path=config.path,
                equalise=config.equalise,
            )
    raise ValueError(f"no objective is registered for {config!r}")
