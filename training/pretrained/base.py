"""Pretrained models of other toolkits, as their readers return them. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from training.config.model import ModelConfig
from training.pretrained.files import PretrainedError
from training.pretrained.lexicon import Lexicon

Format = Literal["firefox", "marian", "huggingface-marian"]
Array = NDArray[np.float32]
Languages = tuple[str | None, str | None]
"""Source and target, as the files name them; None where they do not."""

MAX_LAYERS = 64
MAX_LENGTH = 512
"""Positions of an imported model whose files set no limit: sinusoids have none."""


@dataclass(frozen=True)
class PretrainedModel:
    """A model of another toolkit with our names, shapes and token ids.

    Ids 0 to 3 are `<pad>`, `<unk>`, `<s>` and `</s>`; embeddings of `<pad>` and `<s>` are zero, so
    a decoder that starts with `<s>` starts with a zero vector, as Marian does. Sources end with
    `</s>`.
    """

    config: ModelConfig
    state: dict[str, Array]
    """Weights as `training.model.transformer.Transformer.state_dict` names and shapes them."""
    tokenizer: bytes
    """SentencePiece model of the target, or of both sides."""
    source_tokenizer: bytes | None
    """SentencePiece model of the source where it is another one."""
    lexicon: Lexicon | None
    format: Format
    name: str
    version: str | None
    """Of the toolkit that wrote the model, as the files say it."""
    files: dict[str, str]
    """SHA-256 of every file that was read, by name."""
    languages: Languages = (None, None)
    source_prefix: tuple[str, ...] = ()
    """Pieces in front of every source, such as `>>deu<<`."""
    max_length_factor: float | None = None
    """Most target tokens a source token, where the files set it."""


def model_config(**fields: Any) -> ModelConfig:
    """The dimensions of an imported model. Raises PretrainedError where they do not fit."""
    try:
        return ModelConfig(**fields)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
        raise PretrainedError(f"the model's dimensions do not fit: {faults}") from None


def check_finite(state: dict[str, Array], origin: str) -> None:
    """Raise PretrainedError where a weight is no number."""
    for name, value in state.items():
        if not np.isfinite(value).all():
            raise PretrainedError(f"{origin}: damaged, {name} holds values that are no numbers")
