"""What a bundle is, as JSON and as tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Set
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from export.bundle import Bundle
from export.limits import printable
from export.manifest import MANIFEST_FILE, GateRecord, Manifest


def as_json(bundle: Bundle) -> str:
    """The manifest and the size of each engine, as JSON."""
    manifest = bundle.manifest
    found: dict[str, Any] = manifest.model_dump(mode="json")
    for engine, entry in zip(found["engines"], manifest.engines, strict=True):
        engine["bytes"] = manifest.engine_bytes(entry)
    return json.dumps({"path": str(bundle.path), **found}, indent=2, ensure_ascii=True)


def show(bundle: Bundle, console: Console) -> None:
    """Print what the bundle is; texts of strangers cannot steer the terminal."""
    manifest = bundle.manifest
    sections: list[RenderableType] = [_facts(bundle), _engines(manifest)]
    if manifest.metrics:
        sections.append(_metrics(manifest))
    sections.append(_gate(manifest.gate))
    sections.append(_files(manifest))
    for section in sections:
        console.print(Group(section, ""))


def _facts(bundle: Bundle) -> Table:
    manifest = bundle.manifest
    decoding = manifest.decoding
    search = "greedy" if decoding.beam_size == 1 else f"beam {decoding.beam_size}"
    tokens = manifest.special_tokens
    facts = {
        "bundle": f"{manifest.name}, version {manifest.version}",
        "translates": f"{manifest.source_lang} → {manifest.target_lang}",
        "description": manifest.description or "–",
        "made": f"{manifest.created:%Y-%m-%d %H:%M %Z} by quickstudy {manifest.quickstudy_version}",
        "parameters": f"{manifest.parameters:,}",
        "vocabulary": f"{manifest.vocab_size:,} pieces",
        "special pieces": f"{tokens.pad} {tokens.unk} {tokens.bos} {tokens.eos}",
        "decoding": f"{search}; up to {decoding.max_input_tokens} tokens in, "
        f"{decoding.max_output_ratio:g} n + {decoding.max_output_constant} out for n "
        f"({decoding.max_output_tokens} at most)",
        "licence": manifest.licence,
        "attribution": manifest.attribution or "–",
        "size": f"{manifest.total_bytes / 1e6:.2f} MB in {len(manifest.files)} files",
    }
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        table.add_row(Text(name, style="bold"), _text(value))
    return table


def _engines(manifest: Manifest) -> Table:
    head = ("engine", "kind", "weights", "products", "shortlist", "MB")
    rows = [
        (
            engine.name + (" (default)" if engine.name == manifest.default_engine else ""),
            engine.kind,
            engine.precision,
            engine.compute,
            "yes" if engine.shortlist else "no",
            f"{manifest.engine_bytes(engine) / 1e6:.2f}",
        )
        for engine in manifest.engines
    ]
    return _table(head, rows, numbers={"MB"})


def _metrics(manifest: Manifest) -> Table:
    head = ("system", "engine", "precision", "decoding", "test set", "metric", "score")
    rows = [
        (
            metric.system,
            metric.engine or "–",
            metric.precision or "–",
            metric.decoding,
            metric.dataset,
            metric.metric,
            f"{metric.score:.2f}",
        )
        for metric in manifest.metrics
    ]
    return _table(head, rows, numbers={"score"})


def _gate(gate: GateRecord | None) -> RenderableType:
    if gate is None:
        return Text("Export gate: not run; its engines were not compared with torch.")
    head = ("export gate", "identical", "BLEU", "less torch's", "chrF2 less torch's", "result")
    rows = [
        (
            check.engine,
            f"{check.identical:.1%}",
            f"{check.bleu:.2f}",
            f"{check.bleu_difference:+.2f}",
            f"{check.chrf_difference:+.2f}",
            "; ".join(check.faults) or "passed",
        )
        for check in gate.engines
    ]
    said = f"{gate.sentences} sentences of {gate.dataset}, torch {gate.torch_bleu:.2f} BLEU"
    forced = ["Published by force, although it broke a limit."] if gate.forced else []
    numbers = {"identical", "BLEU", "less torch's", "chrF2 less torch's"}
    return Group(_table(head, rows, numbers), _text(said), *map(_text, forced))


def _files(manifest: Manifest) -> Table:
    rows = [(name, f"{entry.bytes:,}", entry.sha256[:12]) for name, entry in manifest.files.items()]
    return _table((f"file (and {MANIFEST_FILE})", "bytes", "SHA-256"), rows, numbers={"bytes"})


def _table(
    head: tuple[str, ...], rows: Iterable[tuple[str, ...]], numbers: Set[str] = frozenset()
) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in head:
        table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_text, row))
    return table


def _text(value: str) -> Text:
    return Text(printable(value))
