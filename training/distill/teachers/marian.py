"""Pretrained models of Firefox, Marian and Hugging Face's Marian as teachers, in float32 in torch.

Read by `training.pretrained` into our Transformer: no other toolkit is needed, and no code of a
model's is run.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import sentencepiece as spm
import torch

from training.checkpoint import build_model
from training.config.model import MarianFolder
from training.config.recipe import RecipeError
from training.distill.teachers.native import TorchTeacher
from training.model.transformer import Transformer
from training.pretrained.base import PretrainedModel
from training.pretrained.files import PretrainedError
from training.pretrained.reader import read_pretrained


class MarianTeacher(TorchTeacher):
    """A pretrained model that is asked by the ids of its own SentencePiece models."""

    def __init__(
        self, config: MarianFolder, max_length: int, batch_tokens: int, shortlist: bool
    ) -> None:
        """`max_length` is the student's; with `shortlist` a model's lexicon limits the output.

        Raises RecipeError where the folder cannot be read.
        """
        try:
            self.pretrained = read_pretrained(Path(config.path), tuple(config.source_prefix))
        except PretrainedError as error:
            raise RecipeError(f"teacher.path: {error}") from None
        source = pieces_of(self.pretrained.source_tokenizer or self.pretrained.tokenizer)
        lexicon = self.pretrained.lexicon if shortlist else None
        super().__init__(
            _built(self.pretrained, max_length + len(config.source_prefix)),
            pieces_of(self.pretrained.tokenizer),
            batch_tokens,
            candidates=None if lexicon is None else lexicon.candidates,
            source_prefix=[source.index(piece) for piece in config.source_prefix],
            max_length=max_length,
        )


def _built(pretrained: PretrainedModel, max_length: int) -> Transformer:
    """The model with room for so many positions, which are sinusoids and so need no weights."""
    config = pretrained.config.model_copy(update={"max_length": max_length})
    table = pretrained.state.get("source_embedding.weight")
    model = build_model(
        config,
        len(pretrained.state["embedding.weight"]),
        None if table is None else len(table),
    )
    model.load_state_dict(
        {name: torch.from_numpy(np.array(value)) for name, value in pretrained.state.items()}
    )
    return model.eval()


def pieces_of(model: bytes) -> list[str]:
    """The pieces of a SentencePiece model in the order of their ids."""
    processor = spm.SentencePieceProcessor(model_proto=model)
    return [processor.id_to_piece(index) for index in range(processor.get_piece_size())]
