"""A bundle's CTranslate2 engine."""

from __future__ import annotations

from collections.abc import Sequence

import ctranslate2

from export.runtime.bundle import Bundle, pieces, text_pieces
from export.runtime.ctranslate2_format import check_ctranslate2
from export.runtime.engines.base import Decoded, SentenceEngine, TranslateOptions
from export.runtime.engines.unknown import UnknownFinder
from export.runtime.foreign_ctranslate2 import Framing, open_framing
from export.runtime.manifest import EngineEntry

NEVER = ("<pad>", "<s>")
"""What no translation of our own models holds besides `<unk>`; torch and the ONNX graph rule the
same out."""


class CTranslate2Engine(SentenceEngine):
    """A CTranslate2 model of a bundle. Not fork-safe: make it in the process that uses it.

    `inter_threads` translate at the same time, each with `intra_threads`; `max_batch_tokens` is
    the most padded source tokens it takes at once. Raises BundleError if the bundle has no such
    engine, its files are not what our export writes, or an imported folder is no model that is
    known to the last variable.

    Alternatives are the beam's. CTranslate2's own `return_alternatives`, which forces another first
    word each, keeps the greedy translation but gives poor sentences: on 63 sentences the mean
    log-probability of three alternatives was -5.4, against -0.6 for the beam's.
    """

    runtime = "CTranslate2"

    def __init__(
        self,
        bundle: Bundle,
        name: str | None = None,
        *,
        inter_threads: int = 1,
        intra_threads: int = 1,
        max_batch_tokens: int = 1024,
    ) -> None:
        super().__init__(bundle, name)
        engine = self._entry
        self._framing = self._checked(bundle, engine)
        self._added_tokens = self._framing.added
        if (vocabulary := self._framing.source_vocabulary) is not None:
            text = text_pieces(self._source_tokenizer)
            no_text = set(pieces(self._source_tokenizer)) - text
            self._unknown = UnknownFinder(self._source_tokenizer, vocabulary | no_text)
        self._never = [[token] for token in self._framing.never]
        self._max_batch_tokens = max_batch_tokens
        self._use_vmap = engine.shortlist
        self._literal_spaces = bundle.manifest.keeps_original_folder
        self._translator = ctranslate2.Translator(
            str(bundle.engine_path(engine.name)),
            compute_type=engine.compute,
            inter_threads=inter_threads,
            intra_threads=intra_threads,
        )

    def _checked(self, bundle: Bundle, engine: EngineEntry) -> Framing:
        """What belongs around a sentence, once the folder is known to be sound."""
        folder, manifest = bundle.engine_path(engine.name), bundle.manifest
        if manifest.keeps_original_folder:
            return open_framing(folder, manifest, engine, text_pieces(self._tokenizer))
        limits = manifest.decoding
        positions = max(limits.max_input_tokens + 1, limits.max_output_tokens)
        ours = pieces(self._tokenizer)
        check_ctranslate2(folder, ours, manifest.special_tokens, positions=positions)
        return Framing(never=NEVER)

    def decode(
        self, sources: list[list[str]], limit: int, options: TranslateOptions
    ) -> list[Decoded]:
        framing = self._framing
        prefix, suffix = framing.source_prefix, framing.source_suffix
        if prefix or suffix:
            sources = [[*prefix, *source, *suffix] for source in sources]
        start = list(framing.target_prefix)
        longest = limit + framing.returned_prefix
        results = self._translator.translate_batch(
            sources,
            target_prefix=[start] * len(sources) if start else None,
            max_batch_size=self._max_batch_tokens,
            batch_type="tokens",
            beam_size=options.search_width,
            num_hypotheses=options.search_width if options.alternatives else 1,
            repetition_penalty=options.repetition_penalty,
            no_repeat_ngram_size=options.no_repeat_ngram_size,
            return_scores=options.return_scores,
            max_input_length=0,
            min_decoding_length=1 + framing.returned_prefix,
            max_decoding_length=longest,
            disable_unk=True,
            suppress_sequences=self._never,
            use_vmap=self._use_vmap,
        )
        return [self._decoded(result, longest, options) for result in results]

    def _decoded(
        self, result: ctranslate2.TranslationResult, longest: int, options: TranslateOptions
    ) -> Decoded:
        """A result without the target prefix, which CTranslate2 counts as tokens of probability 1
        when it divides by the length."""
        prefix = self._framing.returned_prefix
        best, *others = result.hypotheses
        score = None
        if options.return_scores:
            counted = min(len(best) + 1, longest)
            score = result.scores[0] * counted / max(counted - prefix, 1)
        return Decoded(
            tokens=best[prefix:],
            score=score,
            truncated=len(best) >= longest,
            alternatives=tuple(tokens[prefix:] for tokens in others),
        )

    def _texts(self, hypotheses: Sequence[Sequence[list[str]]]) -> list[str]:
        texts = super()._texts(hypotheses)
        if not self._literal_spaces:
            return texts
        # A token that the target's tokenizer lacks, such as a source piece in a joint vocabulary,
        # is decoded as it stands.
        return [text.replace("▁", " ").strip() for text in texts]
