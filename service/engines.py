"""Engines translate sentences; this is all that the service knows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import ctranslate2
import sentencepiece as spm

from export.bundle import Bundle
from export.manifest import Decoding

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


class Engine(Protocol):
    """A loaded model. `translate_batch` may be called from several threads at once.

    A sentence's translation does not depend on what shares its batch.
    """

    @property
    def max_input_tokens(self) -> int:
        """Tokens that a sentence may have."""

    def count_tokens(self, sentence: str) -> int:
        """Tokens of a sentence."""

    def translate_batch(
        self, sentences: Sequence[str], options: TranslateOptions
    ) -> list[Translation]:
        """Translate sentences in order. Raises ValueError if one has too many tokens."""


class CTranslate2Engine:
    """A bundle's CTranslate2 engine. Not fork-safe: make it in the process that uses it."""

    def __init__(
        self,
        bundle: Bundle,
        name: str | None = None,
        *,
        inter_threads: int = 1,
        intra_threads: int = 1,
        max_batch_tokens: int = 1024,
    ) -> None:
        engine = bundle.engine(name)
        self._decoding: Decoding = bundle.manifest.decoding
        self._max_batch_tokens = max_batch_tokens
        self._tokenizer = spm.SentencePieceProcessor(model_file=str(bundle.tokenizer_path))
        self._translator = ctranslate2.Translator(
            str(bundle.engine_path(engine.name)),
            compute_type="float32" if engine.precision == "float32" else "int8",
            inter_threads=inter_threads,
            intra_threads=intra_threads,
        )

    @property
    def max_input_tokens(self) -> int:
        return self._decoding.max_input_tokens

    def count_tokens(self, sentence: str) -> int:
        return len(self._tokenizer.encode(sentence))

    def translate_batch(
        self, sentences: Sequence[str], options: TranslateOptions
    ) -> list[Translation]:
        sources: list[list[str]] = self._tokenizer.encode(list(sentences), out_type=str)
        translations: list[Translation] = [Translation("", 0)] * len(sources)
        for limit, rows in self._by_limit(sources).items():
            results = self._translate([sources[row] for row in rows], limit, options)
            for row, result in zip(rows, results, strict=True):
                translations[row] = self._translation(result, limit, options)
        return translations

    def _by_limit(self, sources: list[list[str]]) -> dict[int, list[int]]:
        """Rows by output limit: the engine takes one limit a call, each sentence has its own."""
        rows_by_limit: dict[int, list[int]] = {}
        for row, source in enumerate(sources):
            if len(source) > self.max_input_tokens:
                raise ValueError(
                    f"sentence {row} has {len(source)} tokens, the model takes "
                    f"{self.max_input_tokens}: split it first"
                )
            if source:
                rows_by_limit.setdefault(self._limit(len(source)), []).append(row)
        return rows_by_limit

    def _limit(self, source_tokens: int) -> int:
        exact = self._decoding.output_limit(source_tokens)
        rounded = -(-exact // LENGTH_STEP) * LENGTH_STEP
        return min(rounded, self._decoding.max_output_tokens)

    def _translate(
        self, sources: list[list[str]], limit: int, options: TranslateOptions
    ) -> list[ctranslate2.TranslationResult]:
        return self._translator.translate_batch(
            sources,
            max_batch_size=self._max_batch_tokens,
            batch_type="tokens",
            beam_size=options.beam_size,
            return_scores=options.return_scores,
            max_input_length=0,
            max_decoding_length=limit,
            disable_unk=True,
        )

    def _translation(
        self, result: ctranslate2.TranslationResult, limit: int, options: TranslateOptions
    ) -> Translation:
        pieces = result.hypotheses[0]
        text = self._tokenizer.decode(pieces)
        return Translation(
            text=" ".join(text.splitlines()).strip(),
            tokens=len(pieces),
            score=result.scores[0] if options.return_scores else None,
            truncated=len(pieces) >= limit,
        )
