"""Pretrained models of Firefox, Marian and Hugging Face's Marian as teachers.

Read by `training.pretrained` into our Transformer: no other toolkit is needed, and no code of a
model's is run. They compute in float32 in torch; translations may be a compiled int8 engine's.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import sentencepiece as spm
import torch

from training.checkpoint import build_model
from training.config.model import MarianFolder
from training.config.recipe import RecipeError
from training.distill.teachers.base import About, GreedyLabel, Hypotheses, Ids
from training.distill.teachers.compiled import CompiledLabeller, EngineOpener
from training.distill.teachers.native import TorchTeacher
from training.distributed import thread_count
from training.model.transformer import Transformer, parameter_count
from training.pretrained.base import PretrainedModel
from training.pretrained.files import PretrainedError
from training.pretrained.reader import read_pretrained


class MarianTeacher(TorchTeacher):
    """A pretrained model that is asked by the ids of its own SentencePiece models."""

    def __init__(
        self,
        config: MarianFolder,
        max_length: int,
        batch_tokens: int,
        shortlist: bool,
        open_engine: EngineOpener | None = None,
    ) -> None:
        """`max_length` is the student's; with `shortlist` a model's lexicon limits the output. On a
        CPU the engine that `open_engine` gives translates, in int8.

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
        self._open_engine = open_engine

    @functools.cached_property
    def _labeller(self) -> CompiledLabeller | None:
        """None where torch labels."""
        if self._open_engine is None or self.device.type == "cuda":
            return None
        threads = thread_count(1)
        engine = self._open_engine(self.model, self._candidates is not None, threads)
        if engine is None:
            return None
        return CompiledLabeller(engine, threads, self._candidates, self.model.vocab_size)

    @property
    def about(self) -> About:
        if self._labeller is None:
            return super().about
        engine = f"compiled engine ({self._labeller.engine.kernel})"
        return About(engine, "int8", parameter_count(self.model))

    def greedy_labels(self, src: list[Ids], top_k: int) -> list[GreedyLabel]:
        """The greedy translation of each source and its top-k, in one pass."""
        if self._labeller is None:
            return super().greedy_labels(src, top_k)
        return self._labeller.label(self._prefixed(src), self._limits(src), top_k)

    def search(
        self, src: list[Ids], beam_size: int, n_best: int, length_penalty: float
    ) -> list[Hypotheses]:
        """`n_best` translations of each source by beam search."""
        if self._labeller is None:
            return super().search(src, beam_size, n_best, length_penalty)
        return self._labeller.search(
            self._prefixed(src), self._limits(src), beam_size, n_best, length_penalty
        )

    def _prefixed(self, src: list[Ids]) -> list[Ids]:
        return [[*self._source_prefix, *ids] for ids in src]


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
