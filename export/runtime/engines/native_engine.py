"""Our compiled int8 engine: greedy decoding, beam search, and the same output in any batch.

It reads the folder of a CTranslate2 engine in 7 bits, that of an ONNX engine in int8, or
`native.safetensors`. A batch is not padded, and its sums do not depend on what shares it, so
sentences of all lengths share a call.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from export.runtime.bundle import Bundle, pieces
from export.runtime.ctranslate2_format import check_ctranslate2
from export.runtime.engines.base import (
    Decoded,
    SentenceEngine,
    TranslateOptions,
    source_prefix_ids,
)
from export.runtime.manifest import NATIVE_FILE, SEARCH_OPTIONS, BundleError
from export.runtime.native.ctranslate2_weights import read_ctranslate2
from export.runtime.native.library import MOST_BEAM, NativeModel, Translated
from export.runtime.native.onnx_weights import read_onnx_weights
from export.runtime.native.safetensors import read_native
from export.runtime.native.weights import NativeSource, model_bytes
from export.runtime.onnx_format import GREEDY_FILE
from export.runtime.shortlist import SHORTLIST_FILE, read_shortlist

EOS = 3
MOST_ROWS = 512
"""Of a call, whose memory grows with them."""
MOST_TOKENS = 384
"""Of a call: beyond, activations and shortlists leave the second cache. On an AMD EPYC with 512 KB
of it, calls of 1,024 tokens were a tenth (en-de) to a fifth (en-pt) slower. A beam has as many
fewer, so that its hypotheses need no more memory; calls of 48 to 384 tokens differ by 3 % at most
with a beam of 5."""


class NativeEngine(SentenceEngine):
    """A bundle's engine, computed by the compiled library, with every option of a search.

    Up to `inter_threads` calls run at the same time, each on one thread, of at most
    `max_batch_tokens` source tokens, and MOST_TOKENS. Raises NativeUnavailable where the library
    was not built, BundleError if the bundle has no such engine or its files do not fit the
    manifest.
    """

    token_type = int

    def __init__(
        self,
        bundle: Bundle,
        name: str | None = None,
        *,
        inter_threads: int = 1,
        intra_threads: int = 1,
        max_batch_tokens: int = 1024,
        kernel: str | None = None,
    ) -> None:
        super().__init__(bundle, name)
        self._supported_options |= SEARCH_OPTIONS
        self._max_batch_tokens = max_batch_tokens
        self._prefix = source_prefix_ids(bundle, self._source_tokenizer)
        self._added_tokens = 1 + len(self._prefix)
        folder = bundle.engine_path(self._entry.name)
        self._shortlist = (
            read_shortlist(
                folder / SHORTLIST_FILE,
                self._source_tokenizer.get_piece_size(),
                bundle.manifest.vocab_size,
            )
            if self._entry.shortlist
            else None
        )
        try:
            data = model_bytes(self._checked_source(bundle))
        except ValueError as error:
            raise BundleError(
                f"{folder} is no model of the compiled engine ({error}): use another engine, or "
                "export or import the bundle again"
            ) from error
        self._model = NativeModel(data, inter_threads, kernel)
        self._threads = ThreadPoolExecutor(inter_threads)
        self.runtime = f"native ({self._model.kernel})"

    def _checked_source(self, bundle: Bundle) -> NativeSource:
        """The weights, once the files are known to be sound and to fit the manifest."""
        folder, manifest = bundle.engine_path(self._entry.name), bundle.manifest
        limits = manifest.decoding
        positions = max(limits.max_input_tokens + self._added_tokens, limits.max_output_tokens)
        shortlisted = self._entry.shortlist
        if self._entry.kind == "onnx":
            source = read_onnx_weights(folder / GREEDY_FILE, shortlisted=shortlisted)
        elif (folder / NATIVE_FILE).is_file():
            source = read_native(folder / NATIVE_FILE, shortlisted=shortlisted)
        elif shortlisted or manifest.keeps_original_folder:
            raise ValueError("it has a shortlist of CTranslate2, or is another toolkit's")
        else:
            check_ctranslate2(folder, pieces(self._tokenizer), manifest.special_tokens, positions)
            return read_ctranslate2(folder)
        _check_sizes(source, bundle, positions)
        return source

    def _check(self, options: TranslateOptions) -> None:
        super()._check(options)
        if options.search_width > MOST_BEAM:
            raise ValueError(f"a beam of {options.search_width}: set it to {MOST_BEAM} at most")

    def _decode_all(
        self, sources: list[list[int]], options: TranslateOptions
    ) -> Iterator[tuple[list[int], list[Decoded]]]:
        rows = [row for row, source in enumerate(sources) if source]
        limits = [self.output_limit(len(sources[row])) for row in rows]
        yield rows, self._decode([sources[row] for row in rows], limits, options)

    def decode(
        self, sources: list[list[int]], limit: int, options: TranslateOptions
    ) -> list[Decoded]:
        return self._decode(sources, [limit] * len(sources), options)

    def _decode(
        self, sources: list[list[int]], limits: list[int], options: TranslateOptions
    ) -> list[Decoded]:
        """As `decode`, with a limit for each source."""
        ended = [[*self._prefix, *source, EOS] for source in sources]

        def run(rows: range) -> list[list[Translated]]:
            return self._call([ended[row] for row in rows], [limits[row] for row in rows], options)

        most = min(self._max_batch_tokens, MOST_TOKENS) // options.search_width
        calls = list(_calls([len(source) for source in ended], most))
        apply = self._threads.map if len(calls) > 1 else map  # one needs no other thread
        translated = chain.from_iterable(apply(run, calls))
        return [_decoded_of(one, options) for one in translated]

    def _call(
        self, sources: list[list[int]], limits: list[int], options: TranslateOptions
    ) -> list[list[Translated]]:
        """The hypotheses that are wanted of each source, best first."""
        candidates, width = self._candidates(sources), options.search_width
        if width > 1:
            return self._model.search(
                sources,
                limits,
                beam_size=width,
                n_best=width if options.alternatives else 1,
                candidates=candidates,
                repetition_penalty=options.repetition_penalty,
                no_repeat_ngram=options.no_repeat_ngram_size,
            )
        translated = self._model.translate(
            sources,
            limits,
            candidates=candidates,
            scored=options.return_scores,
            repetition_penalty=options.repetition_penalty,
            no_repeat_ngram=options.no_repeat_ngram_size,
        )
        return [[one] for one in translated]

    def _candidates(self, sources: list[list[int]]) -> list[NDArray[np.int64]] | None:
        if self._shortlist is None:
            return None
        return [self._shortlist.within(source, self._manifest.vocab_size) for source in sources]


def _decoded_of(hypotheses: list[Translated], options: TranslateOptions) -> Decoded:
    best, *others = hypotheses
    counted = len(best.ids) + best.ended
    return Decoded(
        best.ids,
        best.score / counted if options.return_scores else None,
        truncated=not best.ended,
        alternatives=tuple(one.ids for one in others),
    )


def _calls(lengths: list[int], max_tokens: int) -> Iterator[range]:
    """Rows of calls of at most so many tokens and MOST_ROWS rows each, or of one row."""
    start = tokens = 0
    for row, length in enumerate(lengths):
        if row > start and (tokens + length > max_tokens or row - start == MOST_ROWS):
            yield range(start, row)
            start, tokens = row, 0
        tokens += length
    if start < len(lengths):
        yield range(start, len(lengths))


def _check_sizes(source: NativeSource, bundle: Bundle, positions: int) -> None:
    """Raise ValueError where a model's file does not fit the manifest."""
    dims, manifest = source.dims, bundle.manifest
    sizes = dims.vocab_size, dims.source_vocab_size or dims.vocab_size
    wanted = manifest.vocab_size, manifest.source_vocab_size or manifest.vocab_size
    if sizes != wanted:
        raise ValueError(f"its vocabularies are {sizes}, the manifest's {wanted}")
    if dims.positions < positions:
        raise ValueError(f"it has room for {dims.positions} tokens, {positions} are needed")
