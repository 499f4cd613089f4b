"""`quickstudy bundle …`: inspect, verify, upgrade, push and pull bundles."""

from __future__ import annotations

import json
from collections.abc import Iterable, Set
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from export.runtime.bundle import Bundle, load_bundle
from export.runtime.engines import expected_runtime, usable_default
from export.runtime.manifest import (
    CARD_FILE,
    MANIFEST_FILE,
    BundleError,
    GateRecord,
    Manifest,
    printable,
)
from export.verify import checks

bundle_app = typer.Typer(
    help="Look into bundles, check, upgrade, push and pull them.", no_args_is_help=True
)

BundlePath = Annotated[Path, typer.Argument(metavar="PATH", help="Bundle folder.")]
TagOption = Annotated[
    str | None, typer.Option(help="Name of the bundle there; its own name and version by default.")
]
PLACE = "bentoml:NAME[:TAG], or a path or URL that fsspec reaches, #TAG at its end."


@bundle_app.command()
def inspect(
    path: BundlePath, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Show what a bundle is: languages, engines, quality, the export gate, licence, files."""
    bundle = load_bundle(path)
    if as_json:
        print(bundle_json(bundle))
    else:
        show_bundle(bundle, Console(highlight=False))


@bundle_app.command()
def verify(path: BundlePath) -> None:
    """Check every file, and translate with every engine; exit code 1 if there is a fault."""
    failures = 0
    for check in checks(path):
        failures += check.fault is not None
        print("ok   " if check.fault is None else "FAULT", end=" ")
        print(f"{check.name}: {printable(check.fault or check.seen)}", flush=True)
    if failures:
        raise typer.Exit(1)


@bundle_app.command()
def card(path: BundlePath) -> None:
    """Print a bundle's model card."""
    text = (load_bundle(path).path / CARD_FILE).read_text(encoding="utf-8", errors="replace")
    print("\n".join(printable(line) for line in text.splitlines()))


@bundle_app.command()
def schema() -> None:
    """Print the JSON Schema of a bundle's manifest.json."""
    print(json.dumps(Manifest.model_json_schema(), indent=2))


@bundle_app.command()
def upgrade(
    path: BundlePath,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the new bundle.", show_default="PATH itself")
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help="Engine of the new bundle; may be repeated, the first is its default.",
            show_default="the engines it has",
        ),
    ] = None,
    src: Annotated[
        Path | None, typer.Option(help="Held-out sentences for the export gate, one a line.")
    ] = None,
    ref: Annotated[Path | None, typer.Option(help="Their references.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="What the sentences are.", show_default="the file's name")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Publish it even if it breaks a limit of the gate.")
    ] = False,
) -> None:
    """Write a bundle anew from its own weights: today's format, other engines. Needs torch."""
    from export.exporter import reference_of, upgrade_bundle
    from export.quality_gate import EvalSet, GateSettings
    from training.config.recipe import GateLimits

    if (src is None) != (ref is None):
        raise BundleError("give both --src and --ref, or neither")
    gate = None
    if src is not None and ref is not None:
        text = EvalSet.read(src, ref)
        text = replace(text, dataset=dataset or text.dataset)
        gate = GateSettings(text, GateLimits(), force, reference_of(path))
    bundle = upgrade_bundle(path, out or path, engine, gate)
    print(f"{bundle.path}: {', '.join(entry.name for entry in bundle.manifest.engines)}")


# Groups of options, as --help shows them.
UNTOLD = "What the model's files do not tell"
GATE = "The gate"


@bundle_app.command("import")
def import_(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="Folder of a Firefox, Bergamot, Marian, OPUS-MT or CTranslate2 model, an "
            ".argosmodel file, or a folder, wheel or zip archive of several.",
        ),
    ],
    source: Annotated[
        str | None, typer.Option(help="Source language.", rich_help_panel=UNTOLD)
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Target language.", rich_help_panel=UNTOLD)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Bundle folder to make; of several models the folder of theirs.",
            show_default="models/SOURCE-TARGET",
        ),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            help="Licence of the model, where its files do not tell.", rich_help_panel=UNTOLD
        ),
    ] = None,
    attribution: Annotated[
        str, typer.Option(help="Whom to credit, for the card.", rich_help_panel=UNTOLD)
    ] = "",
    name: Annotated[str | None, typer.Option(help="Name of the bundle.")] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help="onnx-int8, onnx-float32 or onnx-float32-shortlist; may be repeated, the first is "
            "the default.",
            show_default="onnx-int8",
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            help="Sentences for the gate, one a line.",
            show_default="200 built-in ones, of English and Portuguese",
            rich_help_panel=GATE,
        ),
    ] = None,
    ref: Annotated[
        Path | None, typer.Option(help="Their references.", rich_help_panel=GATE)
    ] = None,
    sentencepiece: Annotated[
        Path | None,
        typer.Option(
            help="SentencePiece model of a CTranslate2 folder.",
            show_default="the one in it",
            rich_help_panel=UNTOLD,
        ),
    ] = None,
    target_sentencepiece: Annotated[
        Path | None,
        typer.Option(
            help="That of its target side, where it has one of its own.", rich_help_panel=UNTOLD
        ),
    ] = None,
    source_prefix: Annotated[
        list[str] | None,
        typer.Option(help="Token before every source, such as >>por<<.", rich_help_panel=UNTOLD),
    ] = None,
    source_suffix: Annotated[
        list[str] | None,
        typer.Option(help="Token after every source, such as </s>.", rich_help_panel=UNTOLD),
    ] = None,
    target_prefix: Annotated[
        list[str] | None,
        typer.Option(help="Token that every translation starts with.", rich_help_panel=UNTOLD),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Publish it even if it breaks a limit of the gate.",
            rich_help_panel=GATE,
        ),
    ] = False,
) -> None:
    """Make a bundle of another toolkit's model, or one of each in a folder or archive."""
    from export.importing import ImportOptions, import_models

    options = ImportOptions(
        source=source,
        target=target,
        licence=licence,
        name=name,
        attribution=attribution,
        engines=tuple(engine or ()),
        sentencepiece=sentencepiece,
        target_sentencepiece=target_sentencepiece,
        source_prefix=tuple(source_prefix or ()),
        source_suffix=tuple(source_suffix or ()),
        target_prefix=tuple(target_prefix or ()),
        text=text,
        references=ref,
        force=force,
    )
    if ref is not None and text is None:
        raise BundleError("--ref needs --text: give the sentences too")
    made = []
    for bundle in import_models(path, out, options):
        print(_imported(bundle), flush=True)
        made.append(bundle.path)
    if all(path.parent == Path("models") for path in made):
        print("Serve it, with every other bundle in models: make serve")
    else:
        print(f"Serve it: QUICKSTUDY_MODELS={','.join(map(str, made))} make serve")


def _imported(bundle: Bundle) -> str:
    """A line on an imported bundle: languages, engines, what the gate found."""
    manifest = bundle.manifest
    engines = ", ".join(engine.name for engine in manifest.engines)
    line = (
        f"{bundle.path}: {manifest.source_lang} → {manifest.target_lang}, {engines}, "
        f"{manifest.total_bytes / 1e6:.1f} MB"
    )
    if (gate := manifest.gate) is None:
        return f"{line}; not compared with float32: give sentences with --text"
    shares = ", ".join(f"{check.engine} {check.identical:.1%}" for check in gate.engines)
    return f"{line}; lines as in float32, of {gate.sentences}: {shares}"


@bundle_app.command()
def push(
    path: BundlePath,
    destination: Annotated[str, typer.Argument(metavar="DEST", help=PLACE)],
    tag: TagOption = None,
) -> None:
    """Copy a bundle to a model store or folder; what is there already is not sent again."""
    from export import hub

    done = hub.push(path, destination, tag)
    print(f"pushed to {done.place}: {done}")


@bundle_app.command()
def pull(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=PLACE)],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Bundle folder to make.")],
    tag: TagOption = None,
    max_gib: Annotated[
        float, typer.Option(min=0, help="Refuse a bundle of more than so many GiB.")
    ] = 4.0,
) -> None:
    """Copy a bundle from a model store or folder, checked, in place of a former one at PATH."""
    from export import hub

    bundle, done = hub.pull(source, path, tag, int(max_gib * 2**30))
    print(f"pulled {done.place} to {bundle.path}: {done}")


# --- a bundle as JSON and as tables --------------------------------------------------------------


def bundle_json(bundle: Bundle) -> str:
    """The manifest and the size of each engine, as JSON."""
    manifest = bundle.manifest
    fields: dict[str, Any] = manifest.model_dump(mode="json")
    for engine, entry in zip(fields["engines"], manifest.engines, strict=True):
        engine["bytes"] = manifest.engine_bytes(entry)
    return json.dumps({"path": str(bundle.path), **fields}, indent=2, ensure_ascii=True)


def show_bundle(bundle: Bundle, console: Console) -> None:
    """Print what the bundle is; texts of strangers cannot steer the terminal."""
    manifest = bundle.manifest
    sections: list[RenderableType] = [_facts(bundle), _engines(manifest)]
    if manifest.metrics:
        sections.append(_metrics(manifest))
    if manifest.domains:
        sections.append(_domains(manifest))
    sections.append(_gate(manifest.gate, "torch" if manifest.origin is None else "reference"))
    sections.append(_files(manifest))
    for section in sections:
        console.print(Group(section, ""))


def _forms(manifest: Manifest) -> str:
    tags = manifest.formality
    if tags is None:
        return "–"
    return f"{', '.join(tags.by_form)}; {tags.default} unless asked for"


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
        "served here by": expected_runtime(bundle, bundle.engine(usable_default(bundle))),
        "parameters": f"{manifest.parameters:,}",
        "vocabulary": f"{manifest.vocab_size:,} pieces",
        "special pieces": f"{tokens.pad} {tokens.unk} {tokens.bos} {tokens.eos}",
        "decoding": f"{search}; up to {decoding.max_input_tokens} tokens in, "
        f"{decoding.max_output_ratio:g} n + {decoding.max_output_constant} out for n "
        f"({decoding.max_output_tokens} at most)",
        "formality": _forms(manifest),
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


def _domains(manifest: Manifest) -> Table:
    head = ("domain", "sentences", "system", "decoding", "BLEU", "chrF2", "length")
    rows = [
        (
            domain.name,
            f"{domain.sentences:,}",
            score.system,
            score.decoding,
            f"{score.bleu:.2f}",
            f"{score.chrf2:.2f}",
            "–" if score.length_ratio is None else f"{score.length_ratio:.3f}",
        )
        for domain in manifest.domains
        for score in domain.scores
    ]
    return _table(head, rows, numbers={"sentences", "BLEU", "chrF2", "length"})


def _gate(gate: GateRecord | None, reference: str) -> RenderableType:
    if gate is None:
        return Text("Export gate: not run; its engines were not compared with float32.")
    less = (f"less {reference}'s", f"chrF2 less {reference}'s")
    head = ("export gate", "identical", "BLEU", *less, "result")
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
    said = f"{gate.sentences} sentences of {gate.dataset}, {reference} {gate.torch_bleu:.2f} BLEU"
    forced = ["Published by force, although it broke a limit."] if gate.forced else []
    numbers = {"identical", "BLEU", *less}
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
