"""An engine of a bundle, as the service runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.systems.base import (
    Role,
    SystemInfo,
    batches,
    bytes_on_disk,
    side_by_side,
    versions_of,
)
from export.bundle import Bundle, load_bundle
from export.manifest import EngineEntry

if TYPE_CHECKING:
    from export.engines import Engine, TranslateOptions

STOCK = "ctranslate2-stock-int8"
"""Not an engine of bundles: CTranslate2's own int8, made from the float32 weights on loading."""
KINDS = {"ctranslate2": "CTranslate2", "onnx": "ONNX Runtime"}
PACKAGES = {"ctranslate2": ("ctranslate2",), "onnx": ("onnxruntime",)}
MAX_BATCH_TOKENS = 4096


def with_stock(bundle: Bundle) -> Bundle:
    """The bundle with CTranslate2's own int8 as one more engine, if it has float32 weights."""
    for engine in bundle.manifest.engines:
        if engine.kind == "ctranslate2" and engine.precision == "float32":
            stock = EngineEntry(**{**engine.model_dump(), "name": STOCK, "compute": "int8"})
            engines = (*bundle.manifest.engines, stock)
            return Bundle(bundle.path, bundle.manifest.model_copy(update={"engines": engines}))
    return bundle


@dataclass
class BundleEngine:
    """One engine, one beam size. Sentences longer than the model takes are cut as the service does
    it."""

    info: SystemInfo
    bundle: Path
    engine: str
    _loaded: Engine | None = None
    _threads: int = 1

    def load(self, threads: int) -> None:
        from export.engines import load_engine

        self._loaded = load_engine(
            with_stock(load_bundle(self.bundle)),
            self.engine,
            inter_threads=threads,
            max_batch_tokens=MAX_BATCH_TOKENS,
        )
        self._threads = threads

    def translate(self, sentences: Sequence[str], batch_size: int) -> list[str]:
        """Threads have a call each, as in the service. A whole file goes in a call a thread, which
        the engine sorts by length and batches by tokens."""
        size = batch_size or max(1, -(-len(sentences) // self._threads))
        threads = 1 if batch_size == 1 else self._threads
        return side_by_side(batches(sentences, size), self._call, threads)

    def close(self) -> None:
        self._loaded = None

    def _call(self, sentences: Sequence[str]) -> list[str]:
        from export.engines import TranslateOptions

        assert self._loaded is not None, "load() comes first"
        options = TranslateOptions(beam_size=self.info.beam_size)
        try:
            return [one.text for one in self._loaded.translate_batch(sentences, options)]
        except ValueError:  # one is too long; to count first would cost the others time
            return self._in_parts(sentences, options)

    def _in_parts(self, sentences: Sequence[str], options: TranslateOptions) -> list[str]:
        from service.text import join_parts, split_text

        engine = self._loaded
        assert engine is not None
        split = [
            split_text(text, self.info.source, engine.count_tokens, engine.max_input_tokens)
            for text in sentences
        ]
        pieces = [part.text for parts in split for part in parts if part.translate]
        found = iter(engine.translate_batch(pieces, options))
        return [
            join_parts(parts, [next(found).text for part in parts if part.translate])
            for parts in split
        ]


def bundle_systems(
    bundle: Bundle,
    beams: Sequence[int] = (1,),
    role: Role = "student",
    prefix: str = "student",
    stock: bool = False,
) -> list[BundleEngine]:
    """Every engine of a bundle with every beam size, greedy ones first."""
    found = []
    opened = with_stock(bundle) if stock else bundle
    for beam in beams:
        for engine in opened.manifest.engines:
            if beam > 1 and not _has_beam(opened, engine):
                continue
            found.append(
                BundleEngine(_info(opened, engine, beam, role, prefix), bundle.path, engine.name)
            )
    return found


def _has_beam(bundle: Bundle, engine: EngineEntry) -> bool:
    """Whether an engine has a beam search: a shortlist is made for greedy decoding."""
    if engine.kind == "onnx":
        return (bundle.path / engine.path / "beam.onnx").exists()
    return not engine.shortlist


def _info(bundle: Bundle, engine: EngineEntry, beam: int, role: Role, prefix: str) -> SystemInfo:
    manifest = bundle.manifest
    info = SystemInfo(
        name=f"{prefix} {engine.name}" + (f" beam {beam}" if beam > 1 else ""),
        role=role,
        engine=KINDS[engine.kind],
        precision="int8 (stock)" if engine.name == STOCK else engine.precision_label,
        beam_size=beam,
        source=manifest.source_lang,
        target=manifest.target_lang,
        parameters=manifest.parameters,
        bytes=bytes_on_disk(bundle.path / engine.path, bundle.tokenizer_path),
        versions=versions_of(*PACKAGES[engine.kind], "sentencepiece"),
    )
    if role == "student" and engine.name == manifest.default_engine and beam == 1:
        return replace(info, note="as shipped")
    return info
