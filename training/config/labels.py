"""Recipe section of the labels: what the teacher is asked, and which answers are kept. No torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from training.config.losses import Section, TargetSource


class MbrConfig(Section):
    """Labels chosen by minimum Bayes risk: of many translations, the one most like all of them."""

    metric: Literal["chrf", "bleu"] = "chrf"
    """What "like" means: sentence chrF2 or sentence BLEU. BLEU is much slower to compute."""
    samples: int = Field(16, ge=0, le=256)
    """Translations that the teacher draws of each sentence, in torch, which a `train`, `checkpoint`
    or `marian` teacher can; 0: the choice is among its n_best."""
    temperature: float = Field(1.0, gt=0, le=2)
    """They are drawn from softmax(log-probabilities / it)."""


class LabelFilterConfig(Section):
    """Which of the teacher's translations are faulty. The best of the n-best without a fault takes
    their place; where there is none, the pair is not taught."""

    repeats: int = Field(4, ge=2)
    """A phrase of up to four words this many times in a row is a fault, unless the source has that
    too."""
    copied_words: int = Field(4, ge=1)
    """A translation that is its source, of at least so many words, is a fault."""
    length_ratio: float = Field(2.0, gt=1)
    """Largest ratio of the tokens of both sides, 10 added to each."""
    least_score: float | None = Field(None, le=0)
    """Least mean log-probability of a translation's tokens, nats. Default: any."""


class LabelsConfig(Section):
    """What the teacher is asked, once."""

    beam_size: int = Field(5, ge=1, le=32)
    """Beam of the teacher's translations."""
    n_best: int = Field(1, ge=1, le=32)
    """Translations kept a sentence; at most the beam size."""
    length_penalty: float = Field(1.0, ge=0, le=2)
    """Exponent of the length that a hypothesis's score is divided by."""
    top_k: int = Field(8, ge=0)
    """Log-probabilities kept a position; the rest is kept as one tail mass. 0 keeps all."""
    paths: list[TargetSource] = Field(default=["hypothesis"], min_length=1)
    """Along whose words the teacher's distributions are kept."""
    batch_tokens: int = Field(1024, ge=64)
    """Tokens in one batch of the teacher."""
    precision: Literal["int8", "float32"] = "int8"
    """Weights of the teacher while it translates. In CTranslate2 int8 keeps 7 bits. Of a `marian`
    teacher our compiled engine makes the translations in int8, on a CPU and where it is built, but
    for samples of `mbr`. Distributions are float32, unless they come with greedy translations in
    one pass; and so is all that is made on a GPU."""
    shortlist: bool = True
    """Let a `marian` teacher that comes with a lexicon score only the words that it lists for each
    sentence, some hundreds; its distributions are over those. Other teachers have no lexicon."""

    mbr: MbrConfig | None = None
    """Choose translations by minimum Bayes risk. Default: the beam search's best."""
    filter: LabelFilterConfig | None = None
    """Mend or drop faulty translations. Default: keep all."""

    @property
    def one_pass(self) -> bool:
        """Whether greedy decoding has all that is asked: one path, along its own words."""
        plain = self.mbr is None and self.filter is None
        return plain and self.beam_size == 1 and self.paths == ["hypothesis"] and self.top_k > 0

    @property
    def translates_in_int8(self) -> bool:
        """Whether translations that are searched for, not drawn, may be computed in int8."""
        drawn = self.mbr is not None and self.mbr.samples > 0
        return not drawn and self.precision == "int8"

    @model_validator(mode="after")
    def _n_best_fits(self) -> Self:
        drawn = self.mbr.samples if self.mbr is not None else 0
        if self.n_best > max(self.beam_size, drawn):
            raise ValueError(f"n_best {self.n_best} must not exceed beam_size {self.beam_size}")
        if self.mbr is not None and self.mbr.samples == 0 and self.n_best == 1:
            raise ValueError("mbr chooses among translations: it needs samples or n_best above 1")
        if "closest" in self.paths and self.n_best == 1:
            raise ValueError("the path `closest` needs n_best of 2 or more")
        return self
