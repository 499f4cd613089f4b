"""`quickstudy bundle …`: look into bundles, check them, write them anew, push and pull them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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

    from export import inspect
    from export.bundle import load_bundle

    bundle = load_bundle(path)
    if as_json:
        print(inspect.as_json(bundle))
    else:
        inspect.show(bundle, Console(highlight=False))


@bundle_app.command()
def verify(path: BundlePath) -> None:
    """Check every file, and translate with every engine; exit code 1 if there is a fault."""
    from export.limits import printable
    from export.verify import checks

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
    from export.bundle import load_bundle
    from export.limits import printable
    from export.manifest import CARD_FILE

    text = (load_bundle(path).path / CARD_FILE).read_text(encoding="utf-8", errors="replace")
    print("\n".join(printable(line) for line in text.splitlines()))


@bundle_app.command()
def schema() -> None:
    """Print the JSON Schema of a bundle's manifest.json."""
    import json

    from export.manifest import Manifest

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

    from export.errors import BundleError
    from export.gate import EvalSet, GateResult
    from export.upgrade import reference_of, upgrade_bundle
    from training.export_config import GateLimits

    if (src is None) != (ref is None):
        raise BundleError("give both --src and --ref, or neither")
    judged = None
    if src is not None and ref is not None:
        text = EvalSet.read(src, ref)
        text = replace(text, dataset=dataset or text.dataset)
        judged = GateResult(text, GateLimits(), force, reference_of(path))
    bundle = upgrade_bundle(path, out or path, engine, judged)
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
