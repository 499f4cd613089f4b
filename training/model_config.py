"""What a recipe may say of a model's dimensions, its training and its tokenizer.

Lengths are in tokens, times in minutes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from training.distill.config import Section

Share = Annotated[float, Field(ge=0, lt=1)]


class ModelConfig(Section):
    """Dimensions of a Transformer."""

    width: int = Field(256, ge=8)
    """Width of the states (d_model)."""
    heads: int = Field(4, ge=1)
    """Attention heads; must divide the width."""
    ffn: int = Field(1024, ge=8)
    """Inner width of the feed-forward layers."""
    encoder_layers: int = Field(6, ge=1)
    """Encoder depth."""
    decoder_layers: int = Field(2, ge=1)
    """Decoder depth."""
    activation: Literal["relu", "gelu", "silu"] = "relu"
    """Activation of the feed-forward layers."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout of residual branches, embeddings and inner feed-forward states, a share of 1."""
    max_length: int = Field(256, ge=16)
    """Longest sequence of either side, in tokens."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads or self.width % 2:
            raise ValueError(
                f"width {self.width} must be even and a multiple of heads {self.heads}"
            )
        return self


class TrainingConfig(Section):
    """One training run. It ends at whichever limit comes first."""

    batch_tokens: int = Field(1024, ge=32)
    """Target tokens in one process's batch, padding counted."""
    accumulate: int = Field(1, ge=1)
    """Batches summed into one step of the optimiser."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate, at the end of the warm-up."""
    warmup_steps: int = Field(1000, ge=1)
    """Steps of linear warm-up; inverse square root after them."""
    cooldown: float = Field(0.0, ge=0, lt=1)
    """Last share of the run (of its nearest limit) in which the rate falls linearly to a tenth."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay (AdamW)."""
    betas: tuple[Share, Share] = (0.9, 0.98)
    """Adam's decay rates, each from 0 to below 1."""
    clip_norm: float = Field(1.0, gt=0)
    """Largest gradient norm; longer gradients are scaled down to it."""
    max_steps: int | None = Field(None, ge=1)
    """Limit in optimiser steps."""
    max_epochs: int | None = Field(None, ge=1)
    """Limit in passes over the training text."""
    max_minutes: float | None = Field(None, gt=0)
    """Limit in minutes of training time, resumed time counted."""
    log_every: int = Field(50, ge=1)
    """Steps between log lines."""
    validate_every: int = Field(500, ge=1)
    """Steps between validations."""
    validation_pairs: int = Field(1000, ge=1)
    """Validation pairs translated each time."""
    patience: int = Field(10, ge=1)
    """Validations without a better BLEU before the run stops early."""
    average: int = Field(4, ge=1)
    """Checkpoints averaged at the end: the best by validation BLEU."""
    checkpoint_minutes: float = Field(3.0, gt=0)
    """Minutes between checkpoints to resume from."""
    processes: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Processes on this machine: `auto` is one a core on a CPU (8 at most), one a GPU."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """`auto` is bf16-mixed where the processor computes in bf16, else 32-true."""

    @model_validator(mode="after")
    def _limited(self) -> Self:
        if self.max_steps is None and self.max_epochs is None and self.max_minutes is None:
            raise ValueError("give at least one limit: max_steps, max_epochs or max_minutes")
        return self


class TokenizerConfig(Section):
    """A joint SentencePiece model of both languages, trained on the run's text."""

    kind: Literal["train"] = "train"
    vocab_size: int = Field(6000, ge=300)
    """Pieces, the 256 bytes and 4 special ones among them."""
    type: Literal["unigram", "bpe"] = "unigram"
    """SentencePiece algorithm."""
    character_coverage: float = Field(0.9995, gt=0.9, le=1.0)
    """Share of the text's characters with a piece of their own; the rest fall back to bytes."""
    sample_lines: int = Field(1_000_000, ge=1)
    """Lines it is trained on at most."""


class AdoptedTokenizer(Section):
    """The given teacher's own SentencePiece model, so that its distributions can be learned."""

    kind: Literal["teacher"] = "teacher"


DEFAULT_KIND = "train"
"""Kind of a tokenizer or teacher that names none."""


def with_kind(value: Any) -> Any:
    """A section with the default kind where it names none."""
    return {"kind": DEFAULT_KIND, **value} if isinstance(value, dict) else value


AnyTokenizer = Annotated[
    TokenizerConfig | AdoptedTokenizer, Field(discriminator="kind"), BeforeValidator(with_kind)
]
