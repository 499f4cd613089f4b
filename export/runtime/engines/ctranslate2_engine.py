"""A bundle's CTranslate2 engine."""

from __future__ import annotations

import ctranslate2

from export.runtime.bundle import Bundle, pieces
from export.runtime.ctranslate2_format import check_ctranslate2
from export.runtime.engines.base import Decoded, SentenceEngine, TranslateOptions

NEVER = [["<pad>"], ["<s>"]]
"""What no translation holds besides `<unk>`; torch and the ONNX graph rule the same out."""


class CTranslate2Engine(SentenceEngine):
    """A CTranslate2 model of a bundle. Not fork-safe: make it in the process that uses it.

    `inter_threads` translate at the same time, each with `intra_threads`; `max_batch_tokens` is
    the most padded source tokens it takes at once. Raises BundleError if the bundle has no such
    engine, or its files are not what our export writes.

    Alternatives are the beam's. CTranslate2's own `return_alternatives`, which forces another first
    word each, keeps the greedy translation but gives poor sentences: on 63 sentences the mean
    log-probability of three alternatives was -5.4, against -0.6 for the beam's.
    """

    supported_options = frozenset({"alternatives", "repetition_penalty", "no_repeat_ngram_size"})

    def __init__(
        self,
        bundle: Bundle,
        name: str | None = None,
        *,
        inter_threads: int = 1,
        intra_threads: int = 1,
        max_batch_tokens: int = 1024,
    ) -> None:
        super().__init__(bundle)
        engine = bundle.engine(name)
        limits = bundle.manifest.decoding
        check_ctranslate2(
            bundle.engine_path(engine.name),
            pieces(self._tokenizer),
            bundle.manifest.special_tokens,
            positions=max(limits.max_input_tokens + 1, limits.max_output_tokens),
        )
        self._max_batch_tokens = max_batch_tokens
        self._use_vmap = engine.shortlist
        self._translator = ctranslate2.Translator(
            str(bundle.engine_path(engine.name)),
            compute_type=engine.compute,
            inter_threads=inter_threads,
            intra_threads=intra_threads,
        )

    def decode(
        self, sources: list[list[str]], limit: int, options: TranslateOptions
    ) -> list[Decoded]:
        results = self._translator.translate_batch(
            sources,
            max_batch_size=self._max_batch_tokens,
            batch_type="tokens",
            beam_size=options.search_width,
            num_hypotheses=options.search_width if options.alternatives else 1,
            repetition_penalty=options.repetition_penalty,
            no_repeat_ngram_size=options.no_repeat_ngram_size,
            return_scores=options.return_scores,
            max_input_length=0,
            max_decoding_length=limit,
            disable_unk=True,
            suppress_sequences=NEVER,
            use_vmap=self._use_vmap,
        )
        return [
            Decoded(
                tokens=result.hypotheses[0],
                score=result.scores[0] if options.return_scores else None,
                truncated=len(result.hypotheses[0]) >= limit,
                alternatives=tuple(result.hypotheses[1:]),
            )
            for result in results
        ]
