"""What an engine is: sentences in, translations out. Service, benchmarks and export know no more.

A new engine is a file here whose class extends `SentenceEngine`, a case in `load_engine`, its
`kind` in `export.runtime.manifest`, and an entry in `export.exporter.ENGINE_EXPORTERS`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import chain
from typing import Any, Protocol

import sentencepiece as spm

from export.runtime.bundle import Bundle, load_source_tokenizer, load_tokenizer
from export.runtime.engines.unknown import UnknownFinder, learnt_pieces
from export.runtime.formality import load_tags, text_tokenizer
from export.runtime.manifest import FORMALITY, SEARCH_OPTIONS, BundleError, Decoding, Formality

WIDTHS = (8, 9, 11, 15, 23, 24)
WIDTH_STEP = 8
"""Sources share a call where their widths (tokens, `</s>` counted) lie between the same two of
these, or after the last one in the same step.

There the matrix kernels of oneDNN with AVX2 and AVX-512 and of Intel's MKL change, and with them
the last bits of a sum: measured, docs/serving.md says how.
"""

TOKEN_CACHE_SIZE = 1024
"""Sentences whose tokens are kept: a caller counts them before it has them translated."""
TOKEN_CACHE_MAX_CHARS = 1000


@dataclass(frozen=True)
class TranslateOptions:
    """How to decode: 1 is greedy; scores cost a softmax a step.

    `alternatives`: further translations of the sentence. They are the next best of a beam search of
    at least one more than that, which then chooses the best one too. `repetition_penalty` above 1
    divides the log-probability of tokens that are already there (Keskar et al. 2019, section 4.1);
    `no_repeat_ngram_size` forbids a second n-gram of so many tokens, 0 forbids none. `formality` is
    the form of address, None the bundle's own. Raises ValueError for a value out of range.
    """

    beam_size: int = 1
    return_scores: bool = False
    alternatives: int = 0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    formality: Formality | None = None

    def __post_init__(self) -> None:
        if self.beam_size < 1:
            raise ValueError(f"beam_size is {self.beam_size}: set it to 1 (greedy) or more")
        if self.alternatives < 0:
            raise ValueError(f"alternatives is {self.alternatives}: set it to 0 or more")
        if not 1.0 <= self.repetition_penalty <= 10.0:
            raise ValueError(
                f"repetition_penalty is {self.repetition_penalty}: set it to 1 (none) up to 10"
            )
        if self.no_repeat_ngram_size < 0:
            raise ValueError(
                f"no_repeat_ngram_size is {self.no_repeat_ngram_size}: set it to 0 (none) or more"
            )

    @property
    def search_width(self) -> int:
        """Hypotheses that are followed: the beam, or as many as give the alternatives."""
        return max(self.beam_size, self.alternatives + 1)


@dataclass(frozen=True)
class Translation:
    """A translated sentence.

    `score` is the mean log-probability of its tokens (nats), if asked for. `tokens` counts them;
    `truncated` says that the output limit cut the translation off. `alternatives` are texts that
    differ from `text` and from each other, best first, at most as many as asked for.
    """

    text: str
    tokens: int
    score: float | None = None
    truncated: bool = False
    alternatives: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decoded:
    """What an engine's decoding gives for one sentence: target ids or pieces without `</s>`, their
    mean log-probability where asked for, whether the limit cut them off, and the tokens of the
    next hypotheses, best first."""

    tokens: list[Any]
    score: float | None = None
    truncated: bool = False
    alternatives: tuple[list[Any], ...] = ()


def unsupported_option(options: TranslateOptions, supported: frozenset[str]) -> str | None:
    """The first option that differs from its default and is not supported, if any: one of a search,
    or a form of address."""
    for field in fields(TranslateOptions):
        is_supported = field.name in supported or field.name not in {*SEARCH_OPTIONS, FORMALITY}
        if not is_supported and getattr(options, field.name) != field.default:
            return field.name
    return None


class Engine(Protocol):
    """A loaded model. `translate_batch` may be called from several threads at once.

    A sentence's translation does not depend on what shares its batch; docs/serving.md says how far
    that holds.
    """

    @property
    def max_input_tokens(self) -> int:
        """Tokens that a sentence may have, as `count_tokens` counts them."""

    @property
    def runtime(self) -> str:
        """What computes, as logs and `/v1/models` name it."""

    @property
    def reads_all_text(self) -> bool:
        """Whether no text is unknown to its tokenizer, as with byte fallback."""

    @property
    def supported_options(self) -> frozenset[str]:
        """Which of `SEARCH_OPTIONS` and `FORMALITY` may differ from their defaults."""

    def count_tokens(self, sentence: str) -> int:
        """Tokens of a sentence, without those of a form of address."""

    def unknown_spans(self, sentence: str) -> list[tuple[int, int]]:
        """Start and end, in characters, of each stretch that it can only read as unknown."""

    def output_limit(self, source_tokens: int) -> int:
        """Most tokens of a translation, `</s>` counted, for a source of so many without it."""

    def translate_batch(
        self, sentences: Sequence[str], options: TranslateOptions
    ) -> list[Translation]:
        """Translate sentences in order.

        Raises ValueError if one has too many tokens, or for options that are not supported.
        """


class SentenceEngine:
    """What engines share: SentencePiece on both sides, checked lengths, like lengths in a call, and
    the tag of a form of address before each source.

    An engine says with `decode` how ids or pieces (`token_type`) become ids or pieces. The manifest
    says which options of a search it supports; others are refused. Raises BundleError if the bundle
    has no such engine.
    """

    token_type: type = str
    runtime: str = ""
    _added_tokens: int = 1
    """Tokens of a source besides its pieces: `</s>`, and what an imported model asks for."""

    def __init__(self, bundle: Bundle, name: str | None = None) -> None:
        self._manifest = bundle.manifest
        self._entry = bundle.engine(name)
        self._supported_options = bundle.manifest.supported_options(self._entry)
        self._decoding: Decoding = bundle.manifest.decoding
        self._tokenizer = load_tokenizer(bundle)
        source_tokenizer = load_source_tokenizer(bundle, self._tokenizer)
        self._tags = load_tags(bundle, source_tokenizer)
        self._tag_tokens = max(map(len, self._tags.values()), default=0)
        self._source_tokenizer = text_tokenizer(bundle, source_tokenizer)
        self._unknown = UnknownFinder(
            self._source_tokenizer,
            learnt_pieces(self._source_tokenizer, bundle.manifest.missing_characters),
        )
        # Without a pool of its own, SentencePiece starts threads for each list.
        self._pool = spm.ThreadPool(1)
        self._cached_tokens = lru_cache(TOKEN_CACHE_SIZE)(self._tokenized)

    @property
    def max_input_tokens(self) -> int:
        return self._decoding.max_input_tokens - self._tag_tokens

    @property
    def reads_all_text(self) -> bool:
        return self._unknown.reads_all_text

    @property
    def supported_options(self) -> frozenset[str]:
        return self._supported_options

    def count_tokens(self, sentence: str) -> int:
        return len(self._tokens(sentence))

    def unknown_spans(self, sentence: str) -> list[tuple[int, int]]:
        return self._unknown.spans(sentence)

    def decode(
        self, sources: list[list[Any]], limit: int, options: TranslateOptions
    ) -> list[Decoded]:
        """Tokens of sources with their tags, without `</s>` → those of translations of at most
        `limit` tokens, `</s>` counted. The options are among the supported ones."""
        raise NotImplementedError

    def translate_batch(
        self, sentences: Sequence[str], options: TranslateOptions
    ) -> list[Translation]:
        self._check(options)
        sources = [self._tokens(sentence) for sentence in sentences]
        self._check_lengths(sources)
        sources = self._tagged(sources, options.formality)
        translations: list[Translation] = [Translation("", 0)] * len(sources)
        for rows, decoded in self._decode_all(sources, options):
            for row, translation in zip(rows, self._translations(decoded, options), strict=True):
                translations[row] = translation
        return translations

    def _tagged(self, sources: list[list[Any]], formality: Formality | None) -> list[list[Any]]:
        """Sources with the tag of a form of address, or of the bundle's own, where it has tags."""
        if self._manifest.formality is None:
            return sources
        tag: list[Any] = self._tags[formality or self._manifest.formality.default]
        if self.token_type is int:
            tag = [self._source_tokenizer.piece_to_id(piece) for piece in tag]
        return [[*tag, *source] if source else [] for source in sources]

    def _tokens(self, sentence: str) -> list[Any]:
        if len(sentence) > TOKEN_CACHE_MAX_CHARS:
            return self._tokenized(sentence)
        return self._cached_tokens(sentence)

    def _tokenized(self, sentence: str) -> list[Any]:
        tokens: list[Any] = self._source_tokenizer.encode(sentence, out_type=self.token_type)
        return tokens

    def _check(self, options: TranslateOptions) -> None:
        if (option := unsupported_option(options, self.supported_options)) is not None:
            value = getattr(options, option)
            raise ValueError(self._manifest.no_such_option(self._entry.name, option, value))

    def _check_lengths(self, sources: list[list[Any]]) -> None:
        for row, source in enumerate(sources):
            if len(source) > self.max_input_tokens:
                raise ValueError(
                    f"sentence {row} has {len(source)} tokens, the model takes "
                    f"{self.max_input_tokens}: split it first"
                )

    def _decode_all(
        self, sources: list[list[Any]], options: TranslateOptions
    ) -> Iterator[tuple[list[int], list[Decoded]]]:
        """Rows that have tokens and what they become, in calls of like widths, since sums depend on
        the width."""
        rows_by_width: dict[int, list[int]] = {}
        for row, source in enumerate(sources):
            if source:
                rows_by_width.setdefault(self._width(len(source)), []).append(row)
        for rows in rows_by_width.values():
            limit = self.output_limit(len(sources[rows[0]]))
            yield rows, self.decode([sources[row] for row in rows], limit, options)

    def output_limit(self, source_tokens: int) -> int:
        """Most output tokens for a source of so many, its tag counted: those of the longest that
        shares its calls.

        It depends on the source alone, as everything that shapes a sentence's translation should.
        """
        return self._decoding.output_limit(self._width(source_tokens) - self._added_tokens)

    def _width(self, source_tokens: int) -> int:
        return padded_tokens(source_tokens + self._added_tokens - 1)

    def _translations(
        self, decoded: Sequence[Decoded], options: TranslateOptions
    ) -> Iterator[Translation]:
        texts = iter(
            self._texts([[sentence.tokens, *sentence.alternatives] for sentence in decoded])
        )
        for sentence in decoded:
            text = next(texts)
            others = dict.fromkeys(next(texts) for _ in sentence.alternatives)
            yield Translation(
                text=text,
                tokens=len(sentence.tokens),
                score=sentence.score,
                truncated=sentence.truncated,
                alternatives=tuple(t for t in others if t and t != text)[: options.alternatives],
            )

    def _texts(self, hypotheses: Sequence[Sequence[list[Any]]]) -> list[str]:
        """The texts of all hypotheses, by one call: a thread that calls SentencePiece gives up
        Python's lock and waits for it again. One alone needs no thread of the pool, for which it
        would wait on a busy machine."""
        tokens = list(chain(*hypotheses))
        if len(tokens) == 1:
            texts = [self._tokenizer.decode(tokens[0])]
        else:
            texts = self._tokenizer.decode(tokens, thread_pool=self._pool)
        return [" ".join(text.splitlines()).strip() for text in texts]


def source_prefix_ids(bundle: Bundle, tokenizer: spm.SentencePieceProcessor) -> list[int]:
    """The ids that stand before every source, for engines that read ids.

    Raises BundleError where the manifest asks for what such engines do not do, or does not fit the
    source's tokenizer.
    """
    manifest = bundle.manifest
    if manifest.source_suffix or manifest.target_prefix:
        raise BundleError(
            f"{bundle.path}: only CTranslate2 engines know source_suffix and target_prefix: export "
            "or import the bundle again"
        )
    size = manifest.source_vocab_size or manifest.vocab_size
    if tokenizer.get_piece_size() != size:
        raise BundleError(
            f"{bundle.source_tokenizer_path} has {tokenizer.get_piece_size()} pieces, the manifest "
            f"says {size}: export or import the bundle again"
        )
    ids = [tokenizer.piece_to_id(piece) for piece in manifest.source_prefix]
    if any(tokenizer.is_unknown(index) for index in ids):
        raise BundleError(
            f"{bundle.source_tokenizer_path} lacks a piece of {list(manifest.source_prefix)}: "
            "import the bundle again"
        )
    return ids


def padded_tokens(source_tokens: int) -> int:
    """Most tokens that a source's row has in its call, `</s>` and padding counted."""
    width = source_tokens + 1
    if width > WIDTHS[-1]:
        return -(-width // WIDTH_STEP) * WIDTH_STEP
    return WIDTHS[bisect_left(WIDTHS, width)]
