"""Quickstudy checkpoints as teachers, and ensembles of teachers.

An ensemble averages probabilities, not log-probabilities, over whole distributions, before any
top-k. Its members translate together: one beam search over the averaged probabilities.

Shapes: B batch, N positions, V vocabulary.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from training.checkpoint import load_checkpoint
from training.data.batching import pad_rows, target_sequence
from training.data.tokenizer import Tokenizer
from training.distill.teachers.base import (
    About,
    Distributions,
    Hypotheses,
    Ids,
    Member,
    Steps,
    batched_distributions,
    batches_by_length,
)
from training.distill.teachers.ctranslate2_teacher import translate_tokens
from training.distributed import settle_gpu, thread_count
from training.model.decoding import NEVER, TransformerSteps, beam, beam_search, output_limit
from training.model.transformer import EOS, Transformer, parameter_count

Precision = Literal["float32", "int8"]
CTranslate2Converter = Callable[[Transformer, list[str], Path, Precision], None]
"""Writes a model, whose pieces are given in the order of their ids, as a CTranslate2 folder. A
module-level function, so that it can be sent to worker processes."""


class NativeTeacher:
    """A checkpoint whose tokens are the student's.

    With a `converter` it translates in CTranslate2, which is faster on a CPU; without one, or on a
    GPU, in torch.
    """

    def __init__(
        self,
        checkpoint: Path,
        batch_tokens: int = 1024,
        precision: Precision = "float32",
        converter: CTranslate2Converter | None = None,
    ) -> None:
        loaded = load_checkpoint(checkpoint)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        settle_gpu()
        self.model = loaded.model.to(self.device)
        self.max_length = self.model.max_length
        self.batch_tokens = batch_tokens
        self.precision: Precision = precision
        self._converter = converter
        self.pieces = Tokenizer(loaded.tokenizer).pieces
        self._ids = {piece: index for index, piece in enumerate(self.pieces)}

    @property
    def about(self) -> About:
        if self._converter_in_use is None:
            return About("torch", "float32", parameter_count(self.model))
        precision = "int8-7bit" if self.precision == "int8" else self.precision
        return About("CTranslate2", precision, parameter_count(self.model))

    @property
    def _converter_in_use(self) -> CTranslate2Converter | None:
        """None where torch translates. On a GPU it always does: CTranslate2's wheels need a CUDA
        of their own."""
        return None if self.device.type == "cuda" else self._converter

    @functools.cached_property
    def _translator(self) -> Any:
        import ctranslate2

        assert self._converter is not None
        with tempfile.TemporaryDirectory(prefix="quickstudy-teacher-") as scratch:
            folder = Path(scratch) / "model"
            self._converter(self.model, self.pieces, folder, self.precision)
            return ctranslate2.Translator(
                str(folder), inter_threads=thread_count(1), intra_threads=1
            )

    def translate(
        self, src: list[Ids], beam_size: int, n_best: int, length_penalty: float
    ) -> list[Hypotheses]:
        if self._converter_in_use is None:
            return self.search(src, beam_size, n_best, length_penalty)
        translations = translate_tokens(
            self._translator,
            # EOS is added by the converted model itself.
            [[self.pieces[token] for token in ids[:-1]] for ids in src],
            self.max_length,
            self.batch_tokens,
            beam_size,
            n_best,
            length_penalty,
        )
        return [
            [
                ([*(self._ids[token] for token in tokens), EOS], score)
                for tokens, score in hypotheses
            ]
            for hypotheses in translations
        ]

    def search(
        self, src: list[Ids], beam_size: int, n_best: int, length_penalty: float
    ) -> list[Hypotheses]:
        """`n_best` translations of each source by beam search in torch, on the model's device."""
        translations: dict[int, Hypotheses] = {}
        for rows in batches_by_length(src, src, self.batch_tokens):
            batch = self._padded([src[row] for row in rows])
            hypotheses = beam(self.model, batch, beam_size, length_penalty)
            for row, best in zip(rows, hypotheses, strict=True):
                translations[row] = [
                    ([*hypothesis.ids, EOS], hypothesis.score) for hypothesis in best[:n_best]
                ]
        return [translations[row] for row in range(len(src))]

    def distributions(self, src: list[Ids], trg: list[Ids], top_k: int) -> list[Distributions]:
        return batched_distributions(self._log_probs, src, trg, top_k, self.batch_tokens)

    def log_probs(self, src: list[Ids], trg: list[Ids]) -> Tensor:
        """Log-probabilities [N, V] along the targets of one batch, in the computer's memory."""
        return self._log_probs(src, trg).cpu()

    @torch.inference_mode()
    def _log_probs(self, src: list[Ids], trg: list[Ids]) -> Tensor:
        """Log-probabilities [N, V] on the model's device."""
        target = target_sequence([np.asarray(row) for row in trg])
        memory, bias = self.model.encode(self._padded(src))
        states = self.model.decode(target.trg_in.to(self.device), memory, bias)
        return torch.log_softmax(self.model.logits(states[target.mask]).float(), dim=-1)

    def _padded(self, src: list[Ids]) -> Tensor:
        """Sources [B, S] on the model's device."""
        return pad_rows([np.asarray(row) for row in src]).to(self.device)

    def steps(self, src: list[Ids], times: int) -> TransformerSteps:
        """The decoding of some sources in torch, from its start; each source `times` times."""
        return TransformerSteps(self.model, self._padded(src), times)


# --- ensembles ---------------------------------------------------------------------------------


_TINY = 1e-38


class EnsembleTeacher:
    """Teachers over one vocabulary; `weights` are divided by their sum, None weighs all alike."""

    def __init__(self, members: Sequence[Member], weights: Sequence[float] | None = None) -> None:
        self.members = list(members)
        raw_weights = [1.0] * len(self.members) if weights is None else list(weights)
        self.weights = [weight / sum(raw_weights) for weight in raw_weights]
        self.batch_tokens = min(member.batch_tokens for member in self.members)
        self.max_length = min(member.max_length for member in self.members)

    @property
    def about(self) -> About:
        sizes = [member.about.parameters for member in self.members]
        known = [size for size in sizes if size is not None]
        total = sum(known) if len(known) == len(sizes) else None
        return About(f"ensemble of {len(sizes)}", "float32", total)

    def translate(
        self, src: list[Ids], beam_size: int, n_best: int, length_penalty: float
    ) -> list[Hypotheses]:
        translations: list[Hypotheses] = [[]] * len(src)
        for rows in batches_by_length(src, src, max(self.batch_tokens // beam_size, 1)):
            sources = [src[row] for row in rows]
            steps = AveragedSteps(
                [member.steps(sources, beam_size) for member in self.members], self.weights
            )
            limits = [output_limit(len(source), self.max_length) for source in sources]
            searched = beam_search(steps, limits, beam_size, length_penalty)
            for row, hypotheses in zip(rows, searched, strict=True):
                translations[row] = [
                    ([*hypothesis.ids, EOS], hypothesis.score) for hypothesis in hypotheses[:n_best]
                ]
        return translations

    def distributions(self, src: list[Ids], trg: list[Ids], top_k: int) -> list[Distributions]:
        return batched_distributions(self.log_probs, src, trg, top_k, self.batch_tokens)

    def log_probs(self, src: list[Ids], trg: list[Ids]) -> Tensor:
        """Logarithm [N, V] of the members' averaged probabilities along the targets."""
        parts = [member.log_probs(src, trg).exp() for member in self.members]
        return average(parts, self.weights).clamp(min=_TINY).log()

    def steps(self, src: list[Ids], times: int) -> Steps:
        """The members' decoding together."""
        return AveragedSteps([member.steps(src, times) for member in self.members], self.weights)


class AveragedSteps:
    """The steps of several teachers in one: their probabilities averaged."""

    def __init__(self, members: Sequence[Steps], weights: Sequence[float]) -> None:
        self._members = members
        self._weights = weights

    def next_log_probs(self, last: Tensor) -> Tensor:
        """Tokens [B] → log-probabilities [B, V] of the next ones, none for those of `NEVER`."""
        probabilities = self.next_probabilities(last)
        probabilities[:, list(NEVER)] = 0.0
        return (probabilities / probabilities.sum(1, keepdim=True)).log()

    def next_probabilities(self, last: Tensor) -> Tensor:
        """Tokens [B] → averaged probabilities [B, V] of the next ones."""
        parts = [steps.next_probabilities(last).cpu() for steps in self._members]
        return average(parts, self._weights)

    def select(self, rows: Tensor) -> None:
        """Keep these rows of the batch, in that order, in every member."""
        for steps in self._members:
            steps.select(rows)


def average(parts: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Weighted mean of equal shapes; the weights sum to one."""
    total = torch.zeros_like(parts[0])
    for part, weight in zip(parts, weights, strict=True):
        total.add_(part, alpha=weight)
    return total
