"""An engine without a model."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from export.runtime.engines import TranslateOptions, Translation
from export.runtime.manifest import FORMALITY, SEARCH_OPTIONS


class StubEngine:
    """Upper-cases; slow or failing on demand. `batches` are the sentences of every call."""

    max_input_tokens = 100
    runtime = "stub"
    reads_all_text = True

    def __init__(
        self,
        seconds: float = 0.0,
        fails: bool = False,
        supported_options: frozenset[str] = SEARCH_OPTIONS,
    ) -> None:
        self.seconds = seconds
        self.fails = fails
        self.supported_options = supported_options
        self.release = threading.Event()
        self.batches: list[list[str]] = []

    def count_tokens(self, sentence: str) -> int:
        return len(sentence.split())

    def unknown_spans(self, sentence: str) -> list[tuple[int, int]]:
        return []

    def output_limit(self, source_tokens: int) -> int:
        return 2 * source_tokens + 16

    def translate_batch(
        self, sentences: Sequence[str], options: TranslateOptions
    ) -> list[Translation]:
        if self.fails:
            raise RuntimeError("secret detail")
        self.batches.append(list(sentences))
        self.release.wait(self.seconds)
        return [Translation(sentence.upper(), 1, -1.0) for sentence in sentences]


class PoliteEngine(StubEngine):
    """Upper-cases, after the form of address that was asked for. `asked` are the forms of every
    call."""

    def __init__(self) -> None:
        super().__init__(supported_options=SEARCH_OPTIONS | {FORMALITY})
        self.asked: list[str | None] = []

    def translate_batch(
        self, sentences: Sequence[str], options: TranslateOptions
    ) -> list[Translation]:
        self.asked.append(options.formality)
        form = f"{options.formality} " if options.formality else ""
        return [
            Translation(form + one.text, one.tokens, one.score)
            for one in super().translate_batch(sentences, options)
        ]
