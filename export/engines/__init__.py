"""Engines: they translate sentences with what lies in a bundle; no torch."""

from __future__ import annotations

from export.bundle import Bundle
from export.engines.base import Engine, TranslateOptions, Translation, padded_tokens
from export.engines.on_ctranslate2 import CTranslate2Engine

__all__ = ["Engine", "TranslateOptions", "Translation", "load_engine", "padded_tokens"]


def load_engine(
    bundle: Bundle,
    name: str | None = None,
    *,
    inter_threads: int = 1,
    intra_threads: int = 1,
    max_batch_tokens: int = 1024,
) -> Engine:
    """The bundle's engine of that name, or its default one, ready to translate.

    Make it in the process that uses it. Up to `inter_threads` calls run at the same time, each
    with `intra_threads`; `max_batch_tokens` bounds the padded source tokens of a batch. Raises
    BundleError, saying what to do.
    """
    match bundle.engine(name).kind:
        case "ctranslate2":
            return CTranslate2Engine(
                bundle,
                name,
                inter_threads=inter_threads,
                intra_threads=intra_threads,
                max_batch_tokens=max_batch_tokens,
            )
    raise AssertionError(f"no engine is registered for {bundle.engine(name).kind!r}")
