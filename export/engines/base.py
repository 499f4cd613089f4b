"""What an engine is: sentences in, translations out. Service, benchmarks and export know no more.

A new engine is a file here whose class extends `SentenceEngine`, a case in `load_engine`, its
`kind` in `export/manifest.py`, and a writer in `export/writers.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from export.bundle import Bundle
from export.manifest import Decoding
from export.tokenizer import load_tokenizer

LENGTH_STEP = 16
"""Output limits are rounded up to a multiple of this, so that like lengths share a call."""


@dataclass(frozen=True)
class TranslateOptions:
    """How to decode: 1 is greedy; scores cost a softmax a step."""

    beam_size: int = 1
    return_scores: bool = False


@dataclass(frozen=True)
class Translation:
    """A translated sentence.

    `score` is the mean log-probability of its tokens (nats), if asked for. `tokens` counts them;
    `truncated` says that the output limit cut the translation off.
    """

    text: str
    tokens: int
    score: float | None = None
    truncated: bool = False


@dataclass(frozen=True)
class Decoded:
    """What an engine's decoding gives for one sentence: target ids or pieces without `</s>`, their
    mean log-probability where asked for, and whether the limit cut them off."""

    tokens: list[Any]
    score: float | None = None
    truncated: bool = False


class Engine(Protocol):
    """A loaded model. `translate_batch` may be called from several threads at once.

    A sentence's translation does not depend on what shares its batch.
    """

    @property
    def max_input_tokens(self) -> int:
        """Tokens that a sentence may have."""

    def count_tokens(self, sentence: str) -> int:
        """Tokens of a sentence."""

    def output_limit(self, source_tokens: int) -> int:
        """Most tokens of a translation, `</s>` counted, for a source of so many without it."""

    def translate_batch(
        self, sentences: Sequence[str], options: TranslateOptions
    ) -> list[Translation]:
        """Translate sentences in order.

        Raises ValueError if one has too many tokens, or for options that the engine has not.
        """


class SentenceEngine:
    """What engines share: SentencePiece on both sides, checked lengths, one output limit a call.

    An engine says with `decode` how ids or pieces (`token_type`) become ids or pieces.
    """

    token_type: type = str

    def __init__(self, bundle: Bundle) -> None:
        self._decoding: Decoding = bundle.manifest.decoding
        self._tokenizer = load_tokenizer(bundle)

    @property
    def max_input_tokens(self) -> int:
        return self._decoding.max_input_tokens

    def count_tokens(self, sentence: str) -> int:
        return len(self._tokenizer.encode(sentence))

    def decode(
        self, sources: list[list[Any]], limit: int, options: TranslateOptions
    ) -> list[Decoded]:
        """Tokens of sources, without `</s>` → those of translations of at most `limit` tokens,
        `</s>` counted. Raises ValueError for options that the engine has not."""
        raise NotImplementedError

    def translate_batch(
        self, sentences: Sequence[str], options: TranslateOptions
    ) -> list[Translation]:
        sources: list[list[Any]] = self._tokenizer.encode(list(sentences), out_type=self.token_type)
        translations: list[Translation] = [Translation("", 0)] * len(sources)
        for limit, rows in self._by_limit(sources).items():
            decoded = self.decode([sources[row] for row in rows], limit, options)
            for row, one in zip(rows, decoded, strict=True):
                translations[row] = self._translation(one)
        return translations

    def _by_limit(self, sources: list[list[Any]]) -> dict[int, list[int]]:
        """Rows by output limit: decoding takes one limit a call, each sentence has its own."""
        rows_by_limit: dict[int, list[int]] = {}
        for row, source in enumerate(sources):
            if len(source) > self.max_input_tokens:
                raise ValueError(
                    f"sentence {row} has {len(source)} tokens, the model takes "
                    f"{self.max_input_tokens}: split it first"
                )
            if source:
                rows_by_limit.setdefault(self.output_limit(len(source)), []).append(row)
        return rows_by_limit

    def output_limit(self, source_tokens: int) -> int:
        """Most output tokens for a source of so many, rounded up to a multiple of LENGTH_STEP."""
        exact = self._decoding.output_limit(source_tokens)
        rounded = -(-exact // LENGTH_STEP) * LENGTH_STEP
        return min(rounded, self._decoding.max_output_tokens)

    def _translation(self, decoded: Decoded) -> Translation:
        text = self._tokenizer.decode(decoded.tokens)
        return Translation(
            text=" ".join(text.splitlines()).strip(),
            tokens=len(decoded.tokens),
            score=decoded.score,
            truncated=decoded.truncated,
        )
