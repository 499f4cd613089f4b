"""A bundle written anew from its own weights: another format, other engines. Needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from export.bundle import Bundle, BundleError, load_bundle
from export.exporter import now, own_version, write_engines
from export.from_ctranslate2 import from_ctranslate2
from export.gate import GateResult
from export.manifest import FORMAT_VERSION, BundleInfo, EngineEntry
from export.writers import chosen_writers


def upgrade_bundle(
    path: Path,
    out: Path,
    engines: Sequence[str] | None = None,
    judged: GateResult | None = None,
) -> Bundle:
    """Write a bundle in today's format at `out`, which may be `path`, with the engines named.

    The weights are those of its CTranslate2 engine, float32 where it has one, else 7-bit; the first
    engine is the default one; default: the engines it has. Scores of engines that stay are kept.
    Raises BundleError where it has no CTranslate2 engine and for an unknown engine, GateError where
    an engine is worse than the weights in torch.
    """
    bundle = load_bundle(path)
    former = bundle.manifest
    names = list(engines or (engine.name for engine in former.engines))
    writers = chosen_writers(names)
    fields = {name: getattr(former, name) for name in BundleInfo.model_fields}
    info = BundleInfo(
        **{
            **fields,
            "format_version": FORMAT_VERSION,
            "created": now(),
            "quickstudy_version": own_version(),
            "engines": tuple(writer.entry for writer in writers),
            "default_engine": names[0],
            "gate": None,
        }
    )
    return write_engines(
        from_ctranslate2(weights_of(bundle)),
        bundle.tokenizer_path,
        (bundle.path / former.recipe).read_text(encoding="utf-8"),
        Path(out),
        info,
        judged,
    )


def reference_of(path: Path) -> str:
    """What the engines of an upgraded bundle are held against, in words."""
    source = _source(load_bundle(path))
    return "the former bundle's " + ("float32" if source.exact else "7-bit") + " weights"


def weights_of(bundle: Bundle) -> Path:
    """The folder of the CTranslate2 model whose weights are nearest to the model's.

    Raises BundleError where there is none.
    """
    return bundle.path / _source(bundle).path


def _source(bundle: Bundle) -> EngineEntry:
    """The engine whose weights are nearest to the model's."""
    usable = [engine for engine in bundle.manifest.engines if engine.kind == "ctranslate2"]
    if not usable:
        raise BundleError(
            f"{bundle.path} has no CTranslate2 engine to take the weights from: "
            "export it from its checkpoint"
        )
    return min(usable, key=lambda engine: not engine.exact)
