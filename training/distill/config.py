"""What a recipe may say of an objective and its gate. No torch: checking a recipe is quick.

A new objective is one class here (joined to the union at the end) and one file in
`training/distill/objectives/`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A part of a recipe: frozen, and refusing unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


Path = Literal["reference", "hypothesis"]


class ConstantGate(Section):
    """g is a number: the fixed weight of the sentence-level loss."""

    kind: Literal["constant"] = "constant"
    value: float = Field(0.5, ge=0, le=1)
    """Weight of the sentence-level loss, 0 to 1."""


class SentenceGate(Section):
    """g = σ(w · mean encoder state + b): one learned weight a sentence."""

    kind: Literal["sentence"] = "sentence"
    initial: float = Field(0.5, gt=0, lt=1)
    """Weight of the sentence-level loss before anything is learned, 0 to 1 (exclusive)."""
    floor: float = Field(0.05, ge=0, lt=0.5)
    """g stays within [floor, 1 − floor]; a share of 1."""
    prior_mean: float = Field(0.5, gt=0, lt=1)
    """What the batch mean of g is drawn towards, 0 to 1 (exclusive)."""
    prior_weight: float = Field(1.0, ge=0)
    """Strength of that pull: weight of the binary KL to the prior, in nats a sentence."""
    entropy_weight: float = Field(0.05, ge=0)
    """Bonus for the entropy of g in each sentence, in nats a sentence."""


GateConfig = Annotated[ConstantGate | SentenceGate, Field(discriminator="kind")]


class NllObjective(Section):
    """Cross-entropy against the references: the baseline without a teacher."""

    kind: Literal["nll"] = "nll"
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Probability mass spread over the vocabulary, a share of 1."""


class SentenceObjective(Section):
    """Sentence-level distillation: cross-entropy against the teacher's translations."""

    kind: Literal["sentence"] = "sentence"
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Probability mass spread over the vocabulary, a share of 1."""


class TokenObjective(Section):
    """Token-level distillation: KL to the teacher's distribution at every position."""

    kind: Literal["token"] = "token"
    temperature: float = Field(1.0, gt=0, le=20)
    """τ, dividing the logits of teacher and student alike; no unit. Other than 1 needs the
    teacher's whole distribution (labels.top_k = 0)."""
    kd_rate: float = Field(1.0, ge=0, le=1)
    """Share of the KL in the loss; the rest is the nll of the same path. 0 to 1."""
    path: Path = "reference"
    """Whose words condition both models: the reference's or the teacher's translation's."""


class HybridObjective(Section):
    """g · sentence + (1 − g) · token: the paper's method."""

    kind: Literal["hybrid"] = "hybrid"
    gate: GateConfig = Field(default_factory=SentenceGate)
    """What sets g."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Of the sentence-level loss: probability mass spread over the vocabulary, a share of 1."""
    temperature: float = Field(1.0, gt=0, le=20)
    """Of the token-level loss; no unit. Other than 1 needs labels.top_k = 0."""
    kd_rate: float = Field(1.0, ge=0, le=1)
    """Share of the KL in the token-level loss; the rest is the nll of the same path. 0 to 1."""
    path: Path = "hypothesis"
    """The token-level path. `hypothesis` shares one forward pass with the sentence-level loss."""
    equalise: bool = True
    """Divide each loss by its own running mean before the gate weighs them (learned gates)."""


ObjectiveConfig = Annotated[
    NllObjective | SentenceObjective | TokenObjective | HybridObjective,
    Field(discriminator="kind"),
]


def needs_labels(objective: ObjectiveConfig) -> bool:
    """Whether the objective reads the teacher's label store."""
    return objective.kind != "nll"
