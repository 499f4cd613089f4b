"""Validation text: what chooses checkpoints, what a gate learns from, how well a model does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import sacrebleu
import torch
from lightning_fabric import Fabric

from training.config.recipe import RecipeError
from training.data.batching import Batch, clipped, pad_rows, target_sequence, token_batches
from training.data.prepare import read_pairs
from training.data.tokenizer import Tokenizer
from training.model.decoding import greedy_corpus
from training.model.transformer import PAD, Transformer

GATE_EVERY = 3
"""Of so many validation pairs a gate that learns from held-out text has one, the last."""
Pair = tuple[str, str]


def split_validation(path: Path, gate_learns: bool) -> tuple[list[Pair], list[Pair]]:
    """The validation pairs that choose checkpoints, and those that a gate learns from: every third,
    or none where `gate_learns` is false.

    Raises RecipeError where there are too few for both.
    """
    pairs = list(read_pairs(path))
    if not gate_learns:
        return pairs, []
    if len(pairs) < GATE_EVERY:
        raise RecipeError(
            f"{path}: a gate that learns from held-out text has every third validation pair, and "
            f"there are {len(pairs)}: give more, or use gate.learns_from: batch"
        )
    last = GATE_EVERY - 1
    chooses = [pair for number, pair in enumerate(pairs) if number % GATE_EVERY != last]
    return chooses, pairs[last::GATE_EVERY]


class Validator:
    """Holds the pairs that choose checkpoints; `bleu` translates them greedily.

    Scores are sacreBLEU's corpus BLEU of detokenised, cased text with its defaults.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        tokenizer: Tokenizer,
        max_length: int,
        source: Tokenizer | None = None,
    ) -> None:
        """`source` is the tokenizer of the sources, where they have one of their own."""
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


class HeldOutText:
    """Pairs in batches, for what learns from held-out text; what is too long for the model is left
    out. Call it with a number for that batch, the same whenever it is asked.

    Raises RecipeError where nothing is short enough.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        tokenizer: Tokenizer,
        source: Tokenizer | None,
        max_length: int,
        budget: int,
        seed: int,
    ) -> None:
        sides = (source or tokenizer).encode([src for src, _ in pairs])
        targets = tokenizer.encode([trg for _, trg in pairs])
        self.pairs = [
            (np.array(src), np.array(trg))
            for src, trg in zip(sides, targets, strict=True)
            if max(len(src), len(trg)) < max_length
        ]
        if not self.pairs:
            raise RecipeError(
                f"none of {len(pairs)} validation pairs is shorter than max_length = {max_length}: "
                "a gate has nothing to learn from"
            )
        self.budget, self.seed = budget, seed
        self._lengths = np.array([[len(src), len(trg)] for src, trg in self.pairs]).T
        # How many batches hold each pair once.
        self.count = len(self._batches(0))

    def _batches(self, epoch: int) -> list[np.ndarray]:
        generator = np.random.default_rng([self.seed, epoch])
        src, trg = self._lengths
        return token_batches(src, trg, self.budget, generator)

    def __call__(self, number: int) -> Batch:
        """Batch number so and so, counted over epochs of all pairs, each in another order."""
        epoch, place = divmod(number, self.count)
        batches = self._batches(epoch)
        rows = batches[min(place, len(batches) - 1)]
        src, trg = ([self.pairs[row][side] for row in rows] for side in (0, 1))
        return Batch(torch.from_numpy(rows), pad_rows(src), reference=target_sequence(trg))
