"""Models in torch as teachers, Quickstudy checkpoints above all, and ensembles of teachers.

An ensemble averages probabilities, not log-probabilities, over whole distributions, before any
top-k. Its members translate together: one beam search over the averaged probabilities.

Shapes: B batch, N positions, V vocabulary.
"""

from __future__ import annotations

import functools
import tempfile
import zlib
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
    NO_LOGP,
    About,
    Distributions,
    GreedyLabel,
    Hypotheses,
    Ids,
    Member,
    Steps,
    batched_distributions,
    batches_by_length,
)
from training.distill.teachers.ctranslate2_teacher import translate_tokens
from training.distill.teachers.greedy import greedy_labels
from training.distributed import settle_gpu, thread_count
from training.model.decoding import NEVER, TransformerSteps, beam_search, output_limit, sample
from training.model.shortlisted import AllWords, CandidateSteps, CandidateWords, Words
from training.model.transformer import EOS, PAD, Transformer, parameter_count

Precision = Literal["float32", "int8"]
CTranslate2Converter = Callable[[Transformer, list[str], Path, Precision], None]
"""Writes a model, whose pieces are given in the order of their ids, as a CTranslate2 folder. A
module-level function, so that it can be sent to worker processes."""
GREEDY_BATCHES = 3
"""How many batches greedy decoding takes at once: rows leave as they end, and products of few rows
are slow."""
Candidates = Callable[[Ids], np.ndarray]
"""Source ids, EOS last → the ids of the words that this sentence may become, EOS among them."""


class TorchTeacher:
    """A Transformer whose tokens are the student's.

    With a `converter` it translates in CTranslate2, which is faster on a CPU; without one, or on a
    GPU, or with a decoder cell that CTranslate2 lacks, in torch. With `candidates`, source ids →
    the ids of the words that this sentence may become, only those are scored. `source_prefix` are
    ids in front of every source; `max_length` is the most tokens of either side, without the
    prefix.
    """

    def __init__(
        self,
        model: Transformer,
        pieces: list[str],
        batch_tokens: int = 1024,
        precision: Precision = "float32",
        converter: CTranslate2Converter | None = None,
        candidates: Candidates | None = None,
        source_prefix: Sequence[int] = (),
        max_length: int | None = None,
    ) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        settle_gpu()
        self.model = model.to(self.device)
        self.max_length = max_length or self.model.max_length
        self.batch_tokens = batch_tokens
        self.precision: Precision = precision
        self._converter = converter
        self._candidates = candidates
        self._source_prefix = list(source_prefix)
        self.pieces = pieces
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
        if self.device.type == "cuda" or not ctranslate2_has(self.model):
            return None
        return self._converter

    @property
    def one_pass(self) -> bool:
        """Whether `greedy_labels` is the way to labels: torch translates."""
        return self._converter_in_use is None

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

    @functools.cached_property
    def _all_words(self) -> AllWords:
        return AllWords(self.model)

    def translate(
        self, src: list[Ids], beam_size: int, n_best: int, length_penalty: float
    ) -> list[Hypotheses]:
        if self._converter_in_use is None:
            if beam_size == 1:
                return [hypotheses for hypotheses, _ in self.greedy_labels(src, 0)]
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
        translations: list[Hypotheses] = [[]] * len(src)
        for rows in batches_by_length(src, src, self.batch_tokens):
            sources = [src[row] for row in rows]
            steps = self.steps(sources, beam_size)
            searched = beam_search(steps, self._limits(sources), beam_size, length_penalty)
            for row, best in zip(rows, searched, strict=True):
                translations[row] = [
                    ([*hypothesis.ids, EOS], hypothesis.score) for hypothesis in best[:n_best]
                ]
        return translations

    def sample(self, src: list[Ids], count: int, temperature: float) -> list[Hypotheses]:
        """`count` translations of each source, drawn word by word in torch, on the model's device.

        Their draws follow the sources of their batch, so that whoever labels a shard draws alike.
        """
        translations: list[Hypotheses] = [[]] * len(src)
        for rows in batches_by_length(src, src, max(self.batch_tokens // count, 1)):
            sources = [src[row] for row in rows]
            devices = [self.device] if self.device.type == "cuda" else []
            with torch.random.fork_rng(devices):
                torch.manual_seed(zlib.crc32(np.concatenate(sources).astype("<i4").tobytes()))
                drawn, scores = sample(self.model, self._padded(sources), count, temperature)
            for row, ids, logp in zip(rows, drawn.tolist(), scores.tolist(), strict=True):
                translations[row] = [
                    ([*(token for token in one if token not in (EOS, PAD)), EOS], score)
                    for one, score in zip(ids, logp, strict=True)
                ]
        return translations

    def greedy_labels(self, src: list[Ids], top_k: int) -> list[GreedyLabel]:
        """The greedy translation of each source and its top-k, in one pass in torch."""
        labels: dict[int, GreedyLabel] = {}
        for rows in batches_by_length(src, src, GREEDY_BATCHES * self.batch_tokens):
            sources = [src[row] for row in rows]
            labels |= zip(
                rows,
                greedy_labels(
                    self.model,
                    self._padded(sources),
                    self._limits(sources),
                    self._words(sources),
                    top_k,
                ),
                strict=True,
            )
        return [labels[row] for row in range(len(src))]

    def _limits(self, src: list[Ids]) -> list[int]:
        return [output_limit(len(ids), self.max_length) for ids in src]

    def _words(self, src: list[Ids]) -> Words:
        if self._candidates is None:
            return self._all_words
        return CandidateWords(
            self.model, [self._candidates([*self._source_prefix, *ids]) for ids in src]
        )

    def distributions(self, src: list[Ids], trg: list[Ids], top_k: int) -> list[Distributions]:
        return batched_distributions(self._log_probs, src, trg, top_k, self.batch_tokens)

    def log_probs(self, src: list[Ids], trg: list[Ids]) -> Tensor:
        """Log-probabilities [N, V] along the targets of one batch, in the computer's memory."""
        return self._log_probs(src, trg).cpu()

    @torch.inference_mode()
    def _log_probs(self, src: list[Ids], trg: list[Ids]) -> Tensor:
        """Log-probabilities [N, V] on the model's device; `NO_LOGP` of what is no candidate."""
        target = target_sequence([np.asarray(row) for row in trg])
        memory, bias = self.model.encode(self._padded(src))
        states = self.model.decode(target.trg_in.to(self.device), memory, bias)
        states = states[target.mask.to(self.device)]
        words = self._words(src)
        if not isinstance(words, CandidateWords):
            return words.logits(states).log_softmax(1)
        rows = torch.arange(len(trg)).repeat_interleave(torch.tensor([len(ids) for ids in trg]))
        words = words.select(rows.to(self.device))
        logp = words.logits(states).log_softmax(1).clamp(min=NO_LOGP)
        return words.spread(logp, self.model.vocab_size, NO_LOGP)

    def _padded(self, src: list[Ids]) -> Tensor:
        """Sources [B, S] with their prefix, on the model's device."""
        return pad_rows([np.array([*self._source_prefix, *row]) for row in src]).to(self.device)

    def steps(self, src: list[Ids], times: int) -> TransformerSteps:
        """The decoding of some sources in torch, from its start; each source `times` times."""
        words = self._words(src)
        if isinstance(words, CandidateWords):
            return CandidateSteps(self.model, self._padded(src), times, words)
        return TransformerSteps(self.model, self._padded(src), times)


def ctranslate2_has(model: Transformer) -> bool:
    """Whether CTranslate2 has all that a model is made of, as our converter writes it."""
    return (
        model.decoder_cell == "attention" and not model.post_norm and model.source_embedding is None
    )


class NativeTeacher(TorchTeacher):
    """A Quickstudy checkpoint."""

    def __init__(
        self,
        checkpoint: Path,
        batch_tokens: int = 1024,
        precision: Precision = "float32",
        converter: CTranslate2Converter | None = None,
    ) -> None:
        loaded = load_checkpoint(checkpoint)
        pieces = Tokenizer(loaded.tokenizer).pieces
        super().__init__(loaded.model, pieces, batch_tokens, precision, converter)


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
