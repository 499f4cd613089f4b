"""Validation text, and how well a model translates it."""

from __future__ import annotations

from pathlib import Path

import sacrebleu
import torch
from lightning_fabric import Fabric

from training.data.batching import clipped
from training.data.prepare import read_pairs
from training.data.tokenizer import Tokenizer
from training.model.decoding import greedy_corpus
from training.model.transformer import PAD, Transformer


class Validator:
    """Holds the validation text; `bleu` translates it greedily.

    Scores are sacreBLEU's corpus BLEU of detokenised, cased text with its defaults.
    """

    def __init__(
        self,
        path: Path,
        tokenizer: Tokenizer,
        limit: int,
        max_length: int,
        source: Tokenizer | None = None,
    ) -> None:
        """`source` is the tokenizer of the sources, where they have one of their own."""
        pairs = list(read_pairs(path))[:limit]
        self.references = [trg for _, trg in pairs]
        self.tokenizer = tokenizer
        rows = (source or tokenizer).encode([src for src, _ in pairs])
        # What is too long for the model is cut: it still counts, and is worth little.
        self.rows = clipped(rows, max_length - 1)

    def bleu(self, model: Transformer, fabric: Fabric) -> float:
        """BLEU on the same text in every process; each translates its share."""
        training = model.training
        model.eval()
        share = self.rows[fabric.global_rank :: fabric.world_size]
        translations = [hypothesis.ids for hypothesis in greedy_corpus(model, share)]
        model.train(training)
        return self._score(self._gather(translations, fabric))

    def _gather(self, translations: list[list[int]], fabric: Fabric) -> list[list[int]]:
        if fabric.world_size == 1:
            return translations
        rounds = -(-len(self.rows) // fabric.world_size)
        widest = max((len(ids) for ids in translations), default=0)
        agreed = fabric.all_reduce(torch.tensor(float(widest)), reduce_op="max")
        assert isinstance(agreed, torch.Tensor)
        widest = int(agreed)
        packed = torch.full((rounds, max(widest, 1)), PAD)
        for index, ids in enumerate(translations):
            packed[index, : len(ids)] = torch.tensor(ids, dtype=torch.long)
        everything = fabric.all_gather(packed.to(fabric.device))
        assert isinstance(everything, torch.Tensor)
        rows = everything.transpose(0, 1).reshape(-1, packed.shape[1])[: len(self.rows)]
        return [[token for token in row if token != PAD] for row in rows.tolist()]

    def _score(self, ids: list[list[int]]) -> float:
        return sacrebleu.corpus_bleu(self.tokenizer.decode(ids), [self.references]).score
