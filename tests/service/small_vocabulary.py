"""An engine whose vocabulary has gaps."""

from __future__ import annotations

from collections.abc import Sequence

from export.runtime.engines import TranslateOptions, Translation
from export.runtime.engines.unknown import UnknownFinder
from export.runtime.manifest import SEARCH_OPTIONS
from tests.export.vocabulary import tokenizer_without_bytes


class SmallVocabularyEngine:
    """Upper-cases all words but names, as its tokenizer reads them; shows `⁇` for what is unknown.

    `unread` are the sentences in which something was.
    """

    max_input_tokens = 200
    runtime = "stub"
    reads_all_text = False
    supported_options = SEARCH_OPTIONS

    def __init__(self) -> None:
        self._tokenizer = tokenizer_without_bytes()
        self.unknown_spans = UnknownFinder(self._tokenizer).spans
        self.sentences: list[str] = []
        self.unread: list[str] = []

    def count_tokens(self, sentence: str) -> int:
        return len(self._tokenizer.encode(sentence))

    def output_limit(self, source_tokens: int) -> int:
        return 2 * source_tokens + 16

    def translate_batch(
        self, sentences: Sequence[str], options: TranslateOptions
    ) -> list[Translation]:
        return [self._translate(sentence) for sentence in sentences]

    def _translate(self, sentence: str) -> Translation:
        ids = self._tokenizer.encode(sentence)
        self.sentences.append(sentence)
        if self._tokenizer.unk_id() in ids:
            self.unread.append(sentence)
        read = self._tokenizer.decode(ids).split()
        text = " ".join(word if word[0].isupper() else word.upper() for word in read)
        return Translation(text, len(ids), -0.5)
