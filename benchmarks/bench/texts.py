"""Texts that are translated: test sets with references, and the sample of one that is timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.bench.results import ResultsError, TextRecord
from benchmarks.buckets import BUCKETS, buckets, thirds

if TYPE_CHECKING:
    import sentencepiece as spm

SEED = 12345


@dataclass(frozen=True)
class TestText:
    """A test set; `lengths` [S] counts source tokens by the run's tokenizer, `buckets` [S, 2] says
    which third each sentence is in by length and by rarity."""

    __test__ = False  # not one of pytest's

    name: str
    sources: list[str]
    references: list[str]
    lengths: np.ndarray
    buckets: np.ndarray
    rarity: np.ndarray

    def about(self) -> TextRecord:
        """What the results say of it."""
        rows = (f"{src}\t{ref}\n" for src, ref in zip(self.sources, self.references, strict=True))
        return TextRecord(
            name=self.name,
            sentences=len(self.sources),
            source_tokens=int(self.lengths.sum()),
            source_words=words(self.sources),
            sha256=sha256("".join(rows).encode()).hexdigest(),
            bucket_edges={
                "length": _edges(self.lengths, self.buckets[:, 0]),
                "rarity": _edges(self.rarity, self.buckets[:, 1]),
            },
        )


@dataclass(frozen=True)
class TextSample:
    """Sentences that are timed: every so-manieth of a text by length, in a fixed random order."""

    sentences: list[str]
    lengths: np.ndarray
    """Source tokens of each, [S]."""
    thirds: np.ndarray
    """Which third of the sample each is in by length, [S]."""

    @property
    def tokens_per_sentence(self) -> float:
        return float(self.lengths.mean())

    @property
    def words_per_sentence(self) -> float:
        return words(self.sentences) / len(self.sentences)


def make_text(
    name: str,
    pairs: Sequence[tuple[str, str]],
    tokenizer: spm.SentencePieceProcessor,
    rarity: np.ndarray,
) -> TestText:
    """A test set of (source, reference) pairs; `rarity` [V] is of the tokenizer's tokens.

    Raises ResultsError for no pairs.
    """
    if not pairs:
        raise ResultsError(f"the test set {name} has no sentences: give one that has")
    sources = [src for src, _ in pairs]
    rows: list[list[int]] = tokenizer.encode(sources)
    rare = [float(rarity[row].mean()) if row else 0.0 for row in rows]
    return TestText(
        name=name,
        sources=sources,
        references=[ref for _, ref in pairs],
        lengths=np.array([len(row) for row in rows]),
        buckets=buckets(rows, rarity),
        rarity=np.array(rare),
    )


def sample_of(
    text: TestText, count: int, fits: Callable[[int], bool] = lambda _: True
) -> TextSample:
    """At most `count` sentences of a text whose source tokens `fits` accepts."""
    order = [index for index in text.lengths.argsort(kind="stable") if fits(text.lengths[index])]
    step = max(len(order) / count, 1.0)
    chosen = np.array([order[int(place * step)] for place in range(min(count, len(order)))])
    chosen = np.random.default_rng(SEED).permutation(chosen)
    lengths = text.lengths[chosen]
    return TextSample([text.sources[index] for index in chosen], lengths, thirds(lengths))


def words(sentences: Sequence[str]) -> int:
    """Words of sentences, by white space."""
    return sum(len(sentence.split()) for sentence in sentences)


def _edges(values: np.ndarray, third: np.ndarray) -> tuple[float, float]:
    """The least value of the middle and of the last third."""
    found = [
        float(values[third == one].min()) if (third == one).any() else float(values.max())
        for one in range(1, BUCKETS)
    ]
    return found[0], found[1]
