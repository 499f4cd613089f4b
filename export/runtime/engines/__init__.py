"""Engines: they translate sentences with what lies in a bundle; no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.runtime.bundle import Bundle
from export.runtime.engines.base import (
    Engine,
    TranslateOptions,
    Translation,
    padded_tokens,
    unsupported_option,
)
from export.runtime.engines.ctranslate2_engine import CTranslate2Engine
from export.runtime.manifest import BundleError, EngineEntry

if TYPE_CHECKING:
    from export.runtime.engines.onnx_engine import OnnxEngine

__all__ = [
    "Engine",
    "TranslateOptions",
    "Translation",
    "load_engine",
    "padded_tokens",
    "unsupported_option",
]


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
    BundleError, saying what to do, whatever lies in the engine's files.
    """
    engine = bundle.engine(name)
    try:
        return _load(bundle, engine, inter_threads, intra_threads, max_batch_tokens)
    except (BundleError, ImportError):
        raise
    except Exception as error:  # libraries have exceptions of their own
        raise BundleError(
            f"engine {engine.name} of {bundle.path} does not load ({error}): export it again, "
            "with the versions of its libraries that this environment has"
        ) from error


def _load(
    bundle: Bundle,
    engine: EngineEntry,
    inter_threads: int,
    intra_threads: int,
    max_batch_tokens: int,
) -> Engine:
    match engine.kind:
        case "ctranslate2":
            return CTranslate2Engine(
                bundle,
                engine.name,
                inter_threads=inter_threads,
                intra_threads=intra_threads,
                max_batch_tokens=max_batch_tokens,
            )
        case "onnx":
            return _onnx_engine(bundle, engine.name)(
                bundle,
                engine.name,
                inter_threads=inter_threads,
                intra_threads=intra_threads,
                max_batch_tokens=max_batch_tokens,
            )
    raise AssertionError(f"no engine is registered for {engine.kind!r}")


def _onnx_engine(bundle: Bundle, name: str) -> type[OnnxEngine]:
    """The class, if ONNX Runtime is there."""
    try:
        from export.runtime.engines.onnx_engine import OnnxEngine
    except ImportError as error:
        raise BundleError(
            f"engine {name} of {bundle.path} needs ONNX Runtime, which does not import ({error}): "
            "run `pip install onnxruntime`, or choose a ctranslate2 engine if the bundle has one"
        ) from error
    return OnnxEngine
