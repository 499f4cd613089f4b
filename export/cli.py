"""`quickstudy bundle …`: look into bundles, check them, write them anew, push and pull them.

Proof that a bundle works: every engine loads and translates, in the way it is served.

What a bundle is, as JSON and as tables.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from export.runtime.bundle import Bundle, load_bundle, load_tokenizer
from export.runtime.engines import TranslateOptions, load_engine
from export.runtime.manifest import MANIFEST_FILE, BundleError, GateRecord, Manifest, printable

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
    from rich.console import Console

    pass
    from export.runtime.bundle import load_bundle

    bundle = load_bundle(path)
    if as_json:
        print(bundle_json(bundle))
    else:
        show_bundle(bundle, Console(highlight=False))


@bundle_app.command()
def verify(path: BundlePath) -> None:
    """Check every file, and translate with every engine; exit code 1 if there is a fault."""
    from export.runtime.manifest import printable

    pass

    faults = 0
    for check in checks(path):
        faults += check.fault is not None
        print("ok   " if check.fault is None else "FAULT", end=" ")
        print(f"{check.name}: {printable(check.fault or check.seen)}", flush=True)
    if faults:
        raise typer.Exit(1)


@bundle_app.command()
def card(path: BundlePath) -> None:
    """Print a bundle's model card."""
    from export.runtime.bundle import load_bundle
    from export.runtime.manifest import CARD_FILE, printable

    text = (load_bundle(path).path / CARD_FILE).read_text(encoding="utf-8", errors="replace")
    print("\n".join(printable(line) for line in text.splitlines()))


@bundle_app.command()
def schema() -> None:
    """Print the JSON Schema of a bundle's manifest.json."""
    import json

    from export.runtime.manifest import Manifest

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
    from dataclasses import replace

    from export.exporter import reference_of, upgrade_bundle
    from export.quality_gate import EvalSet, GateSettings
    from export.runtime.manifest import BundleError
    from training.config.recipe import GateLimits

    if (src is None) != (ref is None):
        raise BundleError("give both --src and --ref, or neither")
    gate_settings = None
    if src is not None and ref is not None:
        text = EvalSet.read(src, ref)
        text = replace(text, dataset=dataset or text.dataset)
        gate_settings = GateSettings(text, GateLimits(), force, reference_of(path))
    bundle = upgrade_bundle(path, out or path, engine, gate_settings)
    print(f"{bundle.path}: {', '.join(one.name for one in bundle.manifest.engines)}")


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


SAMPLES = ("Hello.", "This is a test of a somewhat longer sentence, with a comma.", "42 %")
ENGINE_SECONDS = 120.0
"""Until an engine that is tried in a process of its own is given up."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what was seen, or the fault."""

    name: str
    seen: str = ""
    fault: str | None = None


def check_translates(bundle: Bundle) -> None:
    """Translate a few sentences with every engine. Raises BundleError if one does not."""
    load_tokenizer(bundle)
    for engine in bundle.manifest.engines:
        check_engine(bundle, engine.name)


def check_engine(bundle: Bundle, name: str) -> None:
    """Translate a few sentences with one engine. Raises BundleError if it does not."""
    options = TranslateOptions(beam_size=bundle.manifest.decoding.beam_size)
    try:
        loaded = load_engine(bundle, name)
        sentences = [one for one in SAMPLES if loaded.count_tokens(one) <= loaded.max_input_tokens]
        texts = loaded.translate_batch(sentences, options)
    except (OSError, RuntimeError, ValueError) as error:
        raise BundleError(
            f"engine {name} does not translate ({error}): "
            "export it again, with the versions of its libraries that this environment has"
        ) from error
    if len(texts) != len(sentences):
        raise BundleError(f"engine {name} gave {len(texts)} of {len(sentences)} translations")


def checks(path: Path) -> Iterator[Check]:
    """Look at everything in the bundle at `path`, one thing after another.

    Each engine is tried in a process of its own, so that one that crashes or hangs is a fault
    like any other. What cannot be looked at after a fault is left out.
    """
    try:
        bundle = load_bundle(path)
    except BundleError as error:
        yield Check("files", fault=str(error))
        return
    manifest = bundle.manifest
    yield Check("manifest", f"{manifest.name} {manifest.version}, all of its fields make sense")
    yield Check("files", f"{len(manifest.files)} of {manifest.total_bytes:,} bytes, unchanged")
    try:
        load_tokenizer(bundle)
    except BundleError as error:
        yield Check("tokenizer", fault=str(error))
        return
    yield Check("tokenizer", f"{manifest.vocab_size:,} pieces, as the manifest says")
    for engine in manifest.engines:
        fault = _try_apart(path, engine.name)
        yield Check(f"engine {engine.name}", "loads and translates", fault)


Attempt = Callable[[Path, str, Connection], None]


def _try_apart(path: Path, name: str, attempt: Attempt | None = None) -> str | None:
    """The fault of an engine that is tried in another process, or None."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=attempt or _try_engine, args=(path, name, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(ENGINE_SECONDS):
            return f"engine {name} did not translate within {ENGINE_SECONDS:.0f} s"
        fault: str | None = ours.recv()
        return fault
    except EOFError:
        process.join()
        return f"engine {name} ended its process (exit code {process.exitcode}): do not use it"
    finally:
        process.kill()
        process.join()
        ours.close()


def _try_engine(path: Path, name: str, answer: Connection) -> None:
    try:
        check_engine(load_bundle(path), name)
    except (BundleError, ImportError) as error:
        answer.send(str(error))
    else:
        answer.send(None)


def bundle_json(bundle: Bundle) -> str:
    """The manifest and the size of each engine, as JSON."""
    manifest = bundle.manifest
    found: dict[str, Any] = manifest.model_dump(mode="json")
    for engine, entry in zip(found["engines"], manifest.engines, strict=True):
        engine["bytes"] = manifest.engine_bytes(entry)
    return json.dumps({"path": str(bundle.path), **found}, indent=2, ensure_ascii=True)


def show_bundle(bundle: Bundle, console: Console) -> None:
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
