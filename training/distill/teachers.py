"""Teachers: who translates the training text and gives distributions over the student's vocabulary.

Shapes: N positions, K top-k, V vocabulary, T target length.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch

from training.batching import pad_rows, target_side
from training.checkpoint import load_checkpoint
from training.decoding import output_limit
from training.launch import thread_count
from training.model import EOS
from training.tokenizer import Tokenizer

LIMIT_STEP = 16


@dataclass(frozen=True)
class Distributions:
    """Top-k of each position of a path: ids [N, K], log-probabilities [N, K] (nats), tail [N]."""

    ids: np.ndarray
    logp: np.ndarray
    tail: np.ndarray


class Teacher(Protocol):
    """A teacher that shares the student's vocabulary. Token ids of both sides end with EOS."""

    def translate(
        self, src: list[list[int]], beam_size: int, n_best: int, length_penalty: float
    ) -> list[list[tuple[list[int], float]]]:
        """`n_best` translations of each source with their log-probabilities, best first."""
        ...

    def distributions(
        self, src: list[list[int]], trg: list[list[int]], top_k: int
    ) -> list[Distributions]:
        """The next-token distributions at every position of each given target."""
        ...


class OwnTeacher:
    """A Quickstudy checkpoint: CTranslate2 translates, torch gives the distributions."""

    def __init__(
        self,
        checkpoint: Path,
        batch_tokens: int = 1024,
        precision: Literal["int8", "float32"] = "float32",
    ) -> None:
        loaded = load_checkpoint(checkpoint)
        self.model = loaded.model
        self.batch_tokens = batch_tokens
        self.pieces = Tokenizer(loaded.tokenizer).pieces
        self._ids = {piece: index for index, piece in enumerate(self.pieces)}
        self._folder = tempfile.TemporaryDirectory(prefix="quickstudy-teacher-")
        self._translator = self._converted(precision)

    def _converted(self, precision: Literal["int8", "float32"]) -> Any:
        import ctranslate2

        from export.to_ctranslate2 import to_ctranslate2

        folder = Path(self._folder.name) / "model"
        to_ctranslate2(self.model, self.pieces, folder, precision)
        return ctranslate2.Translator(str(folder), inter_threads=thread_count(1), intra_threads=1)

    def translate(
        self, src: list[list[int]], beam_size: int, n_best: int, length_penalty: float
    ) -> list[list[tuple[list[int], float]]]:
        found: list[list[tuple[list[int], float]]] = [[]] * len(src)
        for limit, rows in self._by_limit(src).items():
            results = self._translator.translate_batch(
                # EOS is added by the converted model itself.
                [[self.pieces[token] for token in src[row][:-1]] for row in rows],
                beam_size=beam_size,
                num_hypotheses=n_best,
                length_penalty=length_penalty,
                return_scores=True,
                max_batch_size=self.batch_tokens,
                batch_type="tokens",
                max_input_length=0,
                min_decoding_length=0,
                max_decoding_length=limit,
                disable_unk=True,
            )
            for row, result in zip(rows, results, strict=True):
                found[row] = self._hypotheses(result, length_penalty)
        return found

    def _by_limit(self, src: list[list[int]]) -> dict[int, list[int]]:
        """Rows by output limit, rounded up: the engine takes one limit a call."""
        rows_by_limit: dict[int, list[int]] = {}
        for row, source in enumerate(src):
            exact = output_limit(len(source), self.model.max_length)
            rounded = -(-exact // LIMIT_STEP) * LIMIT_STEP
            limit = min(rounded, self.model.max_length - 2)
            rows_by_limit.setdefault(limit, []).append(row)
        return rows_by_limit

    def _hypotheses(self, result: Any, length_penalty: float) -> list[tuple[list[int], float]]:
        found = []
        for tokens, score in zip(result.hypotheses, result.scores, strict=True):
            ids = [self._ids[token] for token in tokens] + [EOS]
            found.append((ids, score * len(ids) ** length_penalty))
        return found

    @torch.inference_mode()
    def distributions(
        self, src: list[list[int]], trg: list[list[int]], top_k: int
    ) -> list[Distributions]:
        order = sorted(range(len(src)), key=lambda index: (len(trg[index]), len(src[index])))
        found: list[Distributions | None] = [None] * len(src)
        start = 0
        while start < len(order):
            end = start + 1
            while (
                end < len(order) and len(trg[order[end]]) * (end - start + 1) <= self.batch_tokens
            ):
                end += 1
            rows = order[start:end]
            batch = self._batch([src[i] for i in rows], [trg[i] for i in rows], top_k)
            for index, distribution in zip(rows, batch, strict=True):
                found[index] = distribution
            start = end
        return [distribution for distribution in found if distribution is not None]

    def _batch(self, src: list[list[int]], trg: list[list[int]], top_k: int) -> list[Distributions]:
        side = target_side([np.asarray(row) for row in trg])
        memory, bias = self.model.encode(pad_rows([np.asarray(row) for row in src]))
        states = self.model.decode(side.trg_in, memory, bias)[side.mask]
        logp = torch.log_softmax(self.model.logits(states).float(), dim=-1)
        width = logp.shape[1]
        if top_k == 0 or top_k >= width:
            ids = torch.arange(width).expand(len(logp), width)
            tail = torch.zeros(len(logp))
        else:
            logp, ids = logp.topk(top_k, dim=-1)
            tail = (1 - logp.exp().sum(1)).clamp(min=0)
        cuts = np.cumsum([len(row) for row in trg])[:-1]
        parts = (np.split(part.numpy(), cuts) for part in (ids, logp, tail))
        return [Distributions(*part) for part in zip(*parts, strict=True)]
