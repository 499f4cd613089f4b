"""Recipe sections of objectives and their gates. No torch: checking a recipe is quick.

A new objective is a class here (joined to the union at the end) and a loss in
`training.distill.losses`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A part of a recipe: frozen, and refusing unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
    FORMER_DEFAULTS: ClassVar[dict[str, Any]] = {}
    """What a field was by default when results that must not count for a new default were made."""


TargetSource = Literal["reference", "hypothesis", "closest"]
"""Whose words a student is taught along: the reference y, the teacher's best translation ŷ, or the
one of its n-best that is closest to y by sentence BLEU."""

TargetPath = TargetSource | Literal["drawn", "student"]
"""Also one of the teacher's n-best that is drawn for every epoch, which has no distributions, or
what the student wrote itself in the last on-policy round."""


class ConstantGateConfig(Section):
    """g is a number: the fixed weight of the sentence-level loss."""

    kind: Literal["constant"] = "constant"
    value: float = Field(0.5, ge=0, le=1)
    """Weight of the sentence-level loss, 0 to 1."""


class ScheduleGateConfig(Section):
    """g moves in a straight line over the run."""

    kind: Literal["schedule"] = "schedule"
    start: float = Field(1.0, ge=0, le=1)
    """Weight of the sentence-level loss at the first step, 0 to 1."""
    end: float = Field(0.0, ge=0, le=1)
    """Weight of the sentence-level loss at the last step, 0 to 1."""


class LearnedGateConfig(Section):
    """What every gate that is trained with the student shares."""

    initial: float = Field(0.5, gt=0, lt=1)
    """Weight of the sentence-level loss before anything is learned, 0 to 1 (exclusive)."""
    floor: float = Field(0.05, ge=0, lt=0.5)
    """g stays within [floor, 1 − floor]; a share of 1."""
    prior_mean: float = Field(0.5, gt=0, lt=1)
    """What the batch mean of g is drawn towards, 0 to 1 (exclusive)."""
    prior_weight: float = Field(1.0, ge=0)
    """Strength of that pull: weight of the binary KL to the prior, in nats."""
    entropy_weight: float = Field(0.05, ge=0)
    """Bonus for the mean entropy of g, in nats."""
    learns_from: Literal["batch", "held-out"] = "batch"
    """What moves it: `batch`, which of the two losses is the smaller in the training batch; or
    `held-out`, which of them, learnt from, makes validation text likelier: every third pair of it,
    which then chooses no checkpoints."""


class CorpusGateConfig(LearnedGateConfig):
    """g = σ(b): one learned weight for the whole corpus."""

    kind: Literal["corpus"] = "corpus"


class SentenceGateConfig(LearnedGateConfig):
    """g = σ(w · mean encoder state + b): one learned weight a sentence."""

    kind: Literal["sentence"] = "sentence"


class TokenGateConfig(LearnedGateConfig):
    """g = σ(w · decoder state + v · teacher's entropy + b): one learned weight a position."""

    kind: Literal["token"] = "token"


GateConfig = Annotated[
    ConstantGateConfig
    | ScheduleGateConfig
    | CorpusGateConfig
    | SentenceGateConfig
    | TokenGateConfig,
    Field(discriminator="kind"),
]


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


class SentenceInterpolatedObjective(Section):
    """Sentence-level distillation on the hypothesis of the teacher's n-best that is closest to the
    reference by sentence BLEU."""

    kind: Literal["sentence-interpolated"] = "sentence-interpolated"
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Probability mass spread over the vocabulary, a share of 1."""


class SentenceNBestObjective(Section):
    """Sentence-level distillation on one of the teacher's n-best, drawn for every epoch by the
    teacher's probabilities."""

    kind: Literal["sentence-nbest"] = "sentence-nbest"
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Probability mass spread over the vocabulary, a share of 1."""


class TokenLevel(Section):
    """What every objective with a token-level loss shares."""

    temperature: float = Field(1.0, gt=0, le=20)
    """τ, dividing the logits of teacher and student alike; no unit. Other than 1 needs the
    teacher's whole distribution (labels.top_k = 0)."""
    kd_rate: float = Field(1.0, ge=0, le=1)
    """Share of the KL in the token-level loss; the rest is the nll of the same path. 0 to 1."""


class TokenObjective(TokenLevel):
    """Token-level distillation: KL to the teacher's distribution at every position."""

    kind: Literal["token"] = "token"
    path: TargetSource = "reference"
    """Whose words condition both models: the reference's or the teacher's translation's."""


class StartTokenObjective(Section):
    """Token-level distillation along the references by the model that the student starts from
    (`student.start`), before anything of it is cut; it is asked batch by batch."""

    kind: Literal["start-token"] = "start-token"
    kd_rate: float = Field(0.5, ge=0, le=1)
    """Share of the KL in the loss; the rest is the nll of the references. 0 to 1."""
    top_k: int = Field(8, ge=1)
    """Likeliest words of the whole model that are told apart; the others count as one."""


class StartStatesObjective(Section):
    """Distillation of the states of every layer, along the references, by the model that the
    student is cut out of (`student.start`), whole; it is asked batch by batch. For students of the
    same width that lost heads or units."""

    kind: Literal["start-states"] = "start-states"
    layer_weight: float = Field(0.2, ge=0)
    """Weight of the layers between, where student and whole model have as many, beside the last of
    the encoder and of the decoder, which weigh 1 each."""


class SelectiveObjective(TokenLevel):
    """Token-level distillation of the words that the student finds hardest; the others are taught
    by their nll alone."""

    kd_rate: float = Field(0.5, ge=0, le=1)
    """Share of the KL in the loss of a chosen word; the rest is its nll. 0 to 1."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Of the nll: probability mass spread over the vocabulary, a share of 1."""
    share: float = Field(0.5, gt=0, le=1)
    """Share of the words that are chosen, those with the highest nll of the student. 0 to 1."""
    path: TargetSource = "reference"
    """Whose words condition both models: the reference's or the teacher's translation's."""


class SelectiveBatchObjective(SelectiveObjective):
    """The hardest words are those of the batch."""

    kind: Literal["selective-batch"] = "selective-batch"


class SelectiveGlobalObjective(SelectiveObjective):
    """The hardest words are those above a quantile of the words seen last."""

    kind: Literal["selective-global"] = "selective-global"
    queue_size: int = Field(30_000, ge=1, le=10_000_000)
    """Words whose nll is remembered, first in, first out."""


class TieObjective(TokenLevel):
    """Token-level distillation with a ranking loss that lifts the teacher's top-1."""

    kind: Literal["tie"] = "tie"
    path: TargetSource = "reference"
    """Whose words condition both models: the reference's or the teacher's translation's."""
    rank_weight: float = Field(1.0, ge=0)
    """Weight of the ranking loss beside the token-level loss."""
    rank_top_k: int = Field(5, ge=1)
    """Likeliest words of the student that must not stand above the teacher's top-1."""
    margin: float = Field(0.1, ge=0, le=1)
    """By how much probability the teacher's top-1 must lead, 0 to 1."""


class HybridObjective(TokenLevel):
    """g · sentence + (1 − g) · token: the paper's method."""

    kind: Literal["hybrid"] = "hybrid"
    gate: GateConfig = Field(default_factory=SentenceGateConfig)
    """What sets g."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Of the sentence-level loss: probability mass spread over the vocabulary, a share of 1."""
    path: TargetSource = "hypothesis"
    """The token-level path. `hypothesis` shares one forward pass with the sentence-level loss."""
    scale: Literal["gradient", "auto", "none", "running-mean", "excess"] = "gradient"
    """How the two losses are put on one scale before the gate weighs them: so that g is the
    sentence-level share of the gradient, each divided by its running mean, each as excess over its
    least possible value, or not at all. `auto`, the default of earlier versions, is running-mean
    for a learned gate, else none."""
    FORMER_DEFAULTS: ClassVar[dict[str, Any]] = {"scale": "auto"}

    reference_weight: float = Field(0.0, ge=0)
    """Weight of the plain cross-entropy on the reference, added to the gated loss."""

    @property
    def loss_scale(self) -> Literal["gradient", "none", "running-mean", "excess"]:
        """`scale` without `auto`."""
        if self.scale != "auto":
            return self.scale
        return "running-mean" if isinstance(self.gate, LearnedGateConfig) else "none"

    @model_validator(mode="after")
    def _gate_fits(self) -> Self:
        if self.gate.kind == "token" and self.path != "hypothesis":
            raise ValueError(
                "a gate of kind token weighs both losses at the same position: it needs path: "
                "hypothesis"
            )
        alone = self.gate.kind == "corpus" and self.gate.learns_from == "batch"
        if alone and self.scale == "gradient":
            raise ValueError(
                "a gate of kind corpus learns nothing where each loss is compared with its own "
                "mean, as scale: gradient does: let it learn from held-out text with learns_from: "
                "held-out, set g with gate: {kind: constant}, or use scale: excess"
            )
        return self


class RiskObjective(Section):
    """Minimum risk training: for a student that has been taught (`student.start`), by the BLEU of
    translations that it draws itself."""

    kind: Literal["risk"] = "risk"
    samples: int = Field(5, ge=2, le=100)
    """Translations drawn of each sentence."""
    draw_temperature: float = Field(0.7, gt=0, le=2)
    """They are drawn from softmax(log-probabilities / it); below 1 they are likelier ones."""
    sharpness: float = Field(0.5, gt=0)
    """Exponent of the student's probabilities of what it drew; no unit."""
    nll_weight: float = Field(0.3, ge=0, le=1)
    """Weight of the loss that holds on to whole translations, 0 to 1; the rest is the risk's."""
    nll_path: Literal["reference", "hypothesis"] = "hypothesis"
    """Those translations: the teacher's, or the references, which need no teacher."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Of that loss: probability mass spread over the vocabulary, a share of 1."""


class OnPolicyObjective(Section):
    """Sentence-level distillation and, from the first round on, token-level distillation along what
    the student writes itself, by the teacher's distributions there."""

    kind: Literal["on-policy"] = "on-policy"
    rounds: int = Field(3, ge=1, le=100)
    """How often the student translates the text and the teacher is asked along its words."""
    first_round: float = Field(0.25, ge=0, lt=1)
    """When the first one is, as a share of the run; the others follow evenly. Until then the loss
    is the sentence-level one alone."""
    share: float = Field(1.0, gt=0, le=1)
    """Share of the sentences that are translated in a round, drawn anew for each."""
    draw_temperature: float = Field(0.0, ge=0, le=2)
    """0: the student translates greedily; above: it draws from softmax(log-probabilities / it)."""
    divergence: Literal["kl", "jensen-shannon"] = "kl"
    """From the teacher's distribution to the student's: KL(T ‖ S), or the Jensen-Shannon
    divergence, which is bounded and weighs the words that either finds likely."""
    weight: float = Field(0.5, ge=0, le=1)
    """Weight of the loss along the student's words, the rest is the sentence-level loss's; with
    scale `gradient` its share of the gradient."""
    scale: Literal["gradient", "none"] = "gradient"
    """How the two losses are put on one scale, as in `hybrid`."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Of the sentence-level loss: probability mass spread over the vocabulary, a share of 1."""

    def begins(self, number: int) -> float:
        """When a round (from 1) is, as a share of the run."""
        return self.first_round + (1 - self.first_round) * (number - 1) / self.rounds


ObjectiveConfig = Annotated[
    NllObjective
    | SentenceObjective
    | SentenceInterpolatedObjective
    | SentenceNBestObjective
    | TokenObjective
    | StartTokenObjective
    | StartStatesObjective
    | HybridObjective
    | SelectiveBatchObjective
    | SelectiveGlobalObjective
    | TieObjective
    | RiskObjective
    | OnPolicyObjective,
    Field(discriminator="kind"),
]


def needs_labels(objective: ObjectiveConfig) -> bool:
    """Whether the objective reads the teacher's label store."""
    if isinstance(objective, RiskObjective):
        return objective.nll_path == "hypothesis"
    return objective.kind not in ("nll", *BY_START)


BY_START = ("start-token", "start-states")
"""Objectives of what a student starts from."""


def needs_distributions(objective: ObjectiveConfig) -> bool:
    """Whether the objective reads the teacher's distributions, not only its translations."""
    return objective.kind == "on-policy" or hasattr(objective, "path")


def learns_from_held_out(objective: ObjectiveConfig) -> bool:
    """Whether the objective has a gate that learns from validation text."""
    gate = objective.gate if isinstance(objective, HybridObjective) else None
    return isinstance(gate, LearnedGateConfig) and gate.learns_from == "held-out"
