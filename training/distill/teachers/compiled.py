"""Labels by a compiled int8 engine, several times as quick as torch on a CPU: translations, greedy
in one pass with their distributions, or by beam search.

The engine is handed in, since it belongs to `export`, of which training knows nothing. It differs
from torch in two ways: no translation is empty, and distributions are over the words that may be
written, without `<unk>` and the like.

Shapes: N positions of a translation, K top-k.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from training.distill.teachers.base import (
    NO_LOGP,
    Distributions,
    GreedyLabel,
    Hypotheses,
    Ids,
    batches_by_length,
)
from training.model.transformer import EOS, Transformer

Result = TypeVar("Result")
CALL_TOKENS = 256
"""Source tokens of a call. Beyond, what it works with leaves the second cache (an AMD EPYC of
512 KB labelled 3,500 words a CPU second at 256 tokens, 3,400 at 128 and 3,000 at 512)."""


class TopK(Protocol):
    """The likeliest words of each position: ids [N, K], log-probabilities [N, K], tail [N]."""

    @property
    def ids(self) -> NDArray[np.int32]: ...

    @property
    def logp(self) -> NDArray[np.float32]: ...

    @property
    def tail(self) -> NDArray[np.float32]: ...


class Translation(Protocol):
    """Ids without EOS, their log-probability, and the distributions along them if asked for."""

    @property
    def ids(self) -> Ids: ...

    @property
    def score(self) -> float: ...

    @property
    def top_k(self) -> TopK | None: ...


class LabelEngine(Protocol):
    """A model that decodes in int8; a translation does not depend on its call's others."""

    @property
    def kernel(self) -> str:
        """Which instructions it computes with, for reports."""
        ...

    def translate(
        self,
        sources: Sequence[Sequence[int]],
        limits: Sequence[int],
        *,
        candidates: Sequence[NDArray[np.integer[Any]]] | None,
        scored: bool,
        top_k: int,
    ) -> Sequence[Translation]:
        """Translations of so many ids at most, with the `top_k` words of every position, EOS
        counted, over each sentence's candidates if the engine was opened for such."""
        ...

    def search(
        self,
        sources: Sequence[Sequence[int]],
        limits: Sequence[int],
        *,
        beam_size: int,
        n_best: int,
        length_penalty: float,
        candidates: Sequence[NDArray[np.integer[Any]]] | None,
    ) -> Sequence[Sequence[Translation]]:
        """The `n_best` translations of each source that a beam finds, best first."""
        ...


EngineOpener = Callable[[Transformer, bool, int], LabelEngine | None]
"""A model, whether sentences come with candidates, and how many threads will call at once → the
engine; None for a model that it does not compute. A module-level function, so that it can be sent
to worker processes."""


@dataclass(frozen=True)
class CompiledLabeller:
    """An engine and what each call of it is given."""

    engine: LabelEngine
    threads: int
    candidates: Callable[[Ids], NDArray[np.integer[Any]]] | None
    """Of a source: the ids of the words that it may become, EOS among them."""
    vocab_size: int

    def label(self, src: list[Ids], limits: Sequence[int], top_k: int) -> list[GreedyLabel]:
        """The greedy translation of each source, EOS last, and its top-k, of which there are none
        with `top_k` 0; `limits` are the most tokens of each, EOS counted."""
        most = min(top_k, self.vocab_size)

        def call(rows: list[int]) -> list[tuple[int, GreedyLabel]]:
            sources = [src[row] for row in rows]
            found = self.engine.translate(
                sources,
                [limits[row] for row in rows],
                candidates=self._candidates(sources),
                scored=True,
                top_k=most,
            )
            return list(zip(rows, map(_label, found), strict=True))

        return self._in_calls(call, src, CALL_TOKENS)

    def search(
        self,
        src: list[Ids],
        limits: Sequence[int],
        beam_size: int,
        n_best: int,
        length_penalty: float,
    ) -> list[Hypotheses]:
        """The `n_best` translations of each source, EOS last, by a beam; limits as for `label`."""

        def call(rows: list[int]) -> list[tuple[int, Hypotheses]]:
            sources = [src[row] for row in rows]
            searched = self.engine.search(
                sources,
                [limits[row] for row in rows],
                beam_size=beam_size,
                n_best=n_best,
                length_penalty=length_penalty,
                candidates=self._candidates(sources),
            )
            hypotheses = [[([*one.ids, EOS], one.score) for one in found] for found in searched]
            return list(zip(rows, hypotheses, strict=True))

        return self._in_calls(call, src, max(CALL_TOKENS // beam_size, 1))

    def _in_calls(
        self, call: Callable[[list[int]], list[tuple[int, Result]]], src: list[Ids], tokens: int
    ) -> list[Result]:
        """What calls of so many source tokens give for their rows, in order."""
        calls = list(batches_by_length(src, src, tokens))
        with ThreadPoolExecutor(self.threads) as threads:
            results = dict(pair for pairs in threads.map(call, calls) for pair in pairs)
        return [results[row] for row in range(len(src))]

    def _candidates(self, src: list[Ids]) -> list[NDArray[np.integer[Any]]] | None:
        if self.candidates is None:
            return None
        listed = [self.candidates(ids) for ids in src]
        return [words[words >= EOS] for words in listed]


def _label(translation: Translation) -> GreedyLabel:
    ids, top = [*translation.ids, EOS], translation.top_k
    if top is None:
        none = np.empty((len(ids), 0), np.float32)
        return [(ids, translation.score)], Distributions(
            none.astype(np.int32), none, np.ones(len(ids), np.float32)
        )
    logp = np.maximum(top.logp, np.float32(NO_LOGP))
    return [(ids, translation.score)], Distributions(top.ids, logp, top.tail)
