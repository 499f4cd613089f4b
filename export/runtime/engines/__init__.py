"""Engines: they translate sentences with what lies in a bundle; no torch."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from functools import cache
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
from export.runtime.engines.native_engine import NativeEngine
from export.runtime.manifest import BundleError, EngineEntry
from export.runtime.native.library import NativeUnavailable, library

if TYPE_CHECKING:
    from export.runtime.engines.onnx_engine import OnnxEngine

__all__ = [
    "Engine",
    "TranslateOptions",
    "Translation",
    "compiled_engine",
    "expected_runtime",
    "load_engine",
    "padded_tokens",
    "unsupported_option",
    "usable_default",
]

logger = logging.getLogger("quickstudy")


def load_engine(
    bundle: Bundle,
    name: str | None = None,
    *,
    inter_threads: int = 1,
    intra_threads: int = 1,
    max_batch_tokens: int = 1024,
    prefer_native: bool = False,
) -> Engine:
    """The bundle's engine of that name, or its default one, ready to translate.

    Make it in the process that uses it. Up to `inter_threads` calls run at the same time, each
    with `intra_threads`; `max_batch_tokens` bounds the padded source tokens of a batch.
    `prefer_native`: the compiled engine computes a CTranslate2 engine in 7 bits and an ONNX engine
    in int8 where it can, and CTranslate2 a native one where the compiled engine was not built.
    Raises BundleError, saying what to do, whatever lies in the engine's files.
    """
    engine = bundle.engine(name)
    threads = Threads(inter_threads, intra_threads, max_batch_tokens)
    try:
        return (_load_preferred if prefer_native else _load)(bundle, engine, threads)
    except (BundleError, ImportError):
        raise
    except Exception as error:  # libraries have exceptions of their own
        raise BundleError(
            f"engine {engine.name} of {bundle.path} does not load ({error}): export it again, "
            "with the versions of its libraries that this environment has"
        ) from error


@dataclass(frozen=True)
class Threads:
    """How much of the machine an engine may use."""

    inter_threads: int
    intra_threads: int
    max_batch_tokens: int


def _load(bundle: Bundle, engine: EngineEntry, threads: Threads) -> Engine:
    match engine.kind:
        case "ctranslate2":
            return CTranslate2Engine(bundle, engine.name, **asdict(threads))
        case "native":
            return NativeEngine(bundle, engine.name, **asdict(threads))
        case "onnx":
            return _onnx_engine(bundle, engine.name)(bundle, engine.name, **asdict(threads))
    raise AssertionError(f"no engine is registered for {engine.kind!r}")


def _load_library(bundle: Bundle, engine: EngineEntry, threads: Threads) -> Engine:
    """The library that an engine's folder is made for, not the compiled engine."""
    if engine.kind == "native":
        return CTranslate2Engine(bundle, engine.name, **asdict(threads))
    return _load(bundle, engine, threads)


def _library_of(bundle: Bundle, engine: EngineEntry) -> str | None:
    """The library that reads an engine's folder; None where only the compiled engine does."""
    if engine.kind == "onnx":
        return "ONNX Runtime"
    own = engine.kind == "native" and not bundle.manifest.shares_ctranslate2(engine)
    return None if own else CTranslate2Engine.runtime


def _load_preferred(bundle: Bundle, engine: EngineEntry, threads: Threads) -> Engine:
    """As `_load`, by the compiled engine where it computes the same weights."""
    other = _library_of(bundle, engine)
    if other is None or not bundle.manifest.compiled_computes(engine):
        return _load(bundle, engine, threads)
    try:
        return NativeEngine(bundle, engine.name, **asdict(threads))
    except BundleError as error:  # not built, or a model that it does not do
        _say_once(str(error), other)
        return _load_library(bundle, engine, threads)


def compiled_engine(bundle: Bundle, engine: EngineEntry) -> NativeEngine | None:
    """The compiled engine, where it is preferred to the library that computes an engine; None where
    it is not, or does not load."""
    if engine.kind == "native" or not bundle.manifest.compiled_computes(engine):
        return None
    try:
        return NativeEngine(bundle, engine.name)
    except BundleError:
        return None


def expected_runtime(bundle: Bundle, engine: EngineEntry) -> str:
    """What would compute an engine here for the service; the compiled engine is tried."""
    other = _library_of(bundle, engine)
    if not bundle.manifest.compiled_computes(engine):
        return str(other)
    try:
        return NativeEngine(bundle, engine.name).runtime
    except NativeUnavailable:
        return other or "nothing: the native engine is not built"
    except BundleError as error:
        return other or f"nothing: {error}"


def usable_default(bundle: Bundle) -> str:
    """The name of a bundle's default engine; where that one is the compiled engine's own and it was
    not built here, the first other one, if there is any."""
    manifest = bundle.manifest
    default = bundle.engine()
    others = [engine.name for engine in manifest.engines if engine.kind != "native"]
    if default.kind != "native" or manifest.shares_ctranslate2(default) or not others:
        return default.name
    try:
        library()
    except NativeUnavailable as error:
        _say_once(str(error), others[0])
        return others[0]
    return default.name


@cache
def _say_once(reason: str, instead: str = "CTranslate2") -> None:
    logger.warning("%s translates instead of the faster native engine: %s", instead, reason)


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
