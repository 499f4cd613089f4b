"""What the HTTP shapes call: texts in, translated texts out. Also when the service is ready."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from export.bundle import Bundle, load_bundle, sha256_of
from export.engines import Engine, TranslateOptions, Translation, load_engine
from export.manifest import MANIFEST_FILE, Manifest
from service.metrics import QUEUE_SENTENCES
from service.pipeline import Pipeline
from service.settings import Settings
from service.text import Part, join_parts, split_text

logger = logging.getLogger("quickstudy.service")

THREAD_ABOVE_CHARS = 2000
"""Texts longer than this are cut into sentences in a thread, off the event loop."""
PROOF = "A small test."


@dataclass(frozen=True)
class TranslatedText:
    """A text's translation.

    `score` is the mean log-probability of its tokens (nats), None where there are none or it was
    not asked for. `truncated` says that the output limit cut a sentence off.
    """

    text: str
    score: float | None = None
    truncated: bool = False


class Translator:
    """A bundle, its engine and the queue before it. Make it in the process that serves."""

    def __init__(self, bundle: Bundle, engine: Engine, settings: Settings) -> None:
        self.bundle = bundle
        self.engine = engine
        self.settings = settings
        self.engine_name = bundle.engine(settings.engine).name
        self.pipeline = Pipeline(settings)
        self.batcher = self.pipeline.batcher
        QUEUE_SENTENCES.set_function(lambda: self.batcher.waiting)
        self._proven = False

    @classmethod
    def load(cls, settings: Settings) -> Translator:
        """Check and load the bundle that the settings name. Raises BundleError."""
        bundle = load_bundle(settings.model)
        engine = load_engine(
            bundle,
            settings.engine,
            inter_threads=settings.inter_threads,
            intra_threads=settings.intra_threads,
            max_batch_tokens=settings.max_batch_tokens,
        )
        return cls(bundle, engine, settings)

    @property
    def identity(self) -> str:
        """What tells this model from others: the manifest's hash, hence all files', and engine."""
        return f"{sha256_of(self.bundle.path / MANIFEST_FILE)}:{self.engine_name}"

    @property
    def manifest(self) -> Manifest:
        return self.bundle.manifest

    async def ready(self) -> bool:
        """Whether a translation has succeeded; tries one until it does."""
        if not self._proven:
            try:
                await self.translate([PROOF], TranslateOptions())
            except Exception:
                logger.exception("the first translation failed: the service is not ready")
        return self._proven

    async def translate(
        self, texts: Sequence[str], options: TranslateOptions
    ) -> list[TranslatedText]:
        """Translate texts, in order, keeping their lines, spaces and blank lines.

        Raises QueueFullError when too much waits. Cancelling it drops what still waits.
        """
        if sum(map(len, texts)) > THREAD_ABOVE_CHARS:
            split = await asyncio.to_thread(self._split, texts)
        else:
            split = self._split(texts)
        sentences = [part.text for parts in split for part in parts if part.translate]
        checked = await self.pipeline.translate(self, sentences, options)
        translations = iter([one.translation for one in checked])
        self._proven = self._proven or bool(sentences)
        return [
            _together(parts, [next(translations) for part in parts if part.translate])
            for parts in split
        ]

    async def close(self) -> None:
        """Finish what is here, within the settings' time, and stop translating."""
        await self.pipeline.close(self.settings.grace_s)

    def _split(self, texts: Sequence[str]) -> list[list[Part]]:
        language = self.manifest.source_lang
        limit = self.engine.max_input_tokens
        return [split_text(text, language, self.engine.count_tokens, limit) for text in texts]


def _together(parts: list[Part], translations: list[Translation]) -> TranslatedText:
    scored = [t for t in translations if t.score is not None and t.tokens]
    tokens = sum(t.tokens for t in scored)
    mean = sum((t.score or 0.0) * t.tokens for t in scored) / tokens if tokens else None
    return TranslatedText(
        text=join_parts(parts, [t.text for t in translations]),
        score=mean,
        truncated=any(t.truncated for t in translations),
    )
