"""`quickstudy bench RECIPE_OR_BUNDLE`, and the commands that read its results."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from benchmarks.plan import BenchPlan, BenchRequest, DomainFiles
    from benchmarks.quality import Comet
    from benchmarks.results import Results
    from benchmarks.run import Options


JsonFile = Annotated[Path, typer.Argument(metavar="RESULTS.json", help="Results of a run.")]
Subject = Annotated[
    Path, typer.Argument(metavar="RECIPE_OR_BUNDLE", help="Recipe, or a bundle folder.")
]
Out = Annotated[
    Path | None, typer.Option(help="Folder of results and report.", show_default="bench-NAME")
]
Src = Annotated[Path | None, typer.Option(help="Test sentences, one a line (a bundle has none).")]
Ref = Annotated[Path | None, typer.Option(help="Their references.")]
Teacher = Annotated[
    Path | None, typer.Option(help="Checkpoint of the teacher; default: the run's.")
]
Student = Annotated[
    Path | None, typer.Option(help="Checkpoint of the student; default: the run's.")
]
Baselines = Annotated[
    list[str] | None,
    typer.Option(
        "--baseline",
        metavar="NAME=FOLDER",
        help="Another student's checkpoint, measured in torch, or another bundle, such as an "
        "imported one, by a name of your own; may be repeated.",
    ),
]
Domains = Annotated[
    list[str] | None,
    typer.Option(
        "--domain",
        metavar="NAME=SRC,REF",
        help="A test set of one domain by a name of your own: sentences and their references, "
        "plain or .gz; may be repeated. Every system is scored on each. Speed is that on the first "
        "test set: a recipe's own or --src, else the first domain.",
    ),
]
Quick = Annotated[
    bool,
    typer.Option(
        "--quick",
        help="Everything on a few sentences, to see that it works; what else is given counts.",
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Systems whose name fits; may be repeated."),
]
Peers = Annotated[
    str, typer.Option(metavar="all|none|NAMES", help="Systems from elsewhere, by comma.")
]
Parts = Annotated[str, typer.Option(help="What is measured, by comma.")]
Rounds = Annotated[
    int | None,
    typer.Option(min=1, help="Turns of every system.", show_default="5, with --quick 2"),
]
Batches = Annotated[
    str | None,
    typer.Option(
        help="Batch sizes, by comma; 0: the whole file at once.",
        show_default="1,8,32,64,0, with --quick 1,8,0",
    ),
]
Threads = Annotated[
    str | None, typer.Option(help="Numbers of threads, by comma.", show_default="1 and all cores")
]
Beams = Annotated[
    str | None,
    typer.Option(
        help="Beam sizes of the bundle's engines.", show_default="1,2,5, with --quick 1,2"
    ),
]
Service = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="Results of benchmarks.service_load, to be in the report.",
    ),
]
CometCheckpoint = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="Checkpoint of COMET on this disk, to score by it too; nothing is downloaded. It is a "
        "pickle, which runs code when it is loaded: give one that you trust.",
    ),
]
CometPython = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="Python that has unbabel-comet.",
        show_default="this one",
    ),
]
Data = Annotated[Path | None, typer.Option(help="Folder of the corpus files.")]
Runs = Annotated[Path, typer.Option(envvar="QUICKSTUDY_RUNS", help="Folder that holds all runs.")]


RUN = "run"
NOTHING_COMPARED = 2
"""Exit code of `compare` for results without a figure in common."""


class RunByDefault(TyperGroup):
    """A group whose first argument may be left out where it is `run`."""

    def parse_args(self, ctx, args):  # type: ignore[no-untyped-def]
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = [RUN, *args]
        return super().parse_args(ctx, args)


bench_app = typer.Typer(
    cls=RunByDefault,
    no_args_is_help=True,
    help="Measure speed and quality: `quickstudy bench RECIPE_OR_BUNDLE` runs everything, the "
    "commands below read its results.",
)


@bench_app.command(RUN)
def run(
    subject: Subject,
    out: Out = None,
    src: Src = None,
    ref: Ref = None,
    domain: Domains = None,
    teacher: Teacher = None,
    student: Student = None,
    baseline: Baselines = None,
    quick: Quick = False,
    only: Only = None,
    peers: Peers = "all",
    parts: Parts = "quality,speed,limit,profile,growth",
    rounds: Rounds = None,
    batches: Batches = None,
    threads: Threads = None,
    beams: Beams = None,
    service: Service = None,
    comet: CometCheckpoint = None,
    comet_python: CometPython = None,
    data: Data = None,
    runs: Runs = Path("runs"),
) -> None:
    """Measure quality and speed of a run or a bundle, and write results and report.

    Run it with nothing else running: `--quick` alone may be disturbed.
    """
    from benchmarks.report import markdown_table, write_report
    from benchmarks.run import measure
    from benchmarks.tables import domain_tables

    scorer = _comet(comet, comet_python)
    options = _options(quick, parts, rounds, batches, threads, beams, scorer)
    request = _request(options, peers, only, student, teacher, src, ref)
    request = replace(request, baselines=_baselines(baseline or []), domains=_domains(domain or []))
    load = _service_load(service)  # before hours of measuring, in case it cannot be read
    with tempfile.TemporaryDirectory(prefix="quickstudy-bench-") as name:
        plan = _plan(subject, request, Path(name), data, runs)
        folder = out or Path(f"bench-{plan.name}")

        def keep(results: Results) -> Path:
            """Write what there is, so that a run that is cut off leaves its first parts."""
            return write_report(results.model_copy(update={"service": load}), folder)

        def say(line: str) -> None:
            print(f"bench: {line}", file=sys.stderr)

        results = measure(plan, options, say, keep)
    for table in domain_tables(results):
        print(f"\n{table.title}\n\n{markdown_table(table)}\n", file=sys.stderr)
    print(keep(results))


@bench_app.command()
def compare(
    before: Annotated[Path, typer.Argument(metavar="A.json", help="Results of before.")],
    after: Annotated[Path, typer.Argument(metavar="B.json", help="Results of after.")],
    limit: Annotated[
        float, typer.Option(min=0, help="Per cent of speed, latency or memory that may be lost.")
    ] = 10.0,
    bleu_limit: Annotated[
        float, typer.Option(min=0, help="BLEU that may be lost, if it is no chance.")
    ] = 0.5,
) -> None:
    """Show what changed between two results, noise taken into account.

    Exit code 1 on a regression, 2 where the two have no figure in common.
    """
    from benchmarks.report import compare_results, render
    from benchmarks.results import load_results

    comparison = compare_results(load_results(before), load_results(after), limit / 100, bleu_limit)
    print(render(comparison))
    if not comparison.changes:
        raise typer.Exit(NOTHING_COMPARED)
    if comparison.regressions:
        raise typer.Exit(1)


@bench_app.command()
def report(
    results: JsonFile,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report.", show_default="beside the results")
    ] = None,
    service: Service = None,
) -> None:
    """Write the report of results again, as HTML and Markdown."""
    from benchmarks.report import write_report
    from benchmarks.results import load_results

    loaded = load_results(results)
    if service is not None:
        loaded = loaded.model_copy(update={"service": _service_load(service)})
    print(write_report(loaded, out or results.parent, results.stem))


@bench_app.command()
def readme(
    results: JsonFile,
    page: Annotated[Path, typer.Option(help="Page with the markers.")] = Path("README.md"),
    picture: Annotated[Path, typer.Option(help="Where its picture goes.")] = Path(
        "docs/images/bench.svg"
    ),
) -> None:
    """Write table and picture between the markers of a page, from results."""
    from benchmarks.report import update_page
    from benchmarks.results import load_results

    update_page(load_results(results), page, picture)
    print(page)


@bench_app.command()
def card(
    results: JsonFile,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle they are of.")],
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Systems beside the shipped one whose name fits; may be repeated.",
            show_default="all",
        ),
    ] = None,
) -> None:
    """Write the quality by domain into a bundle's manifest and model card, from results."""
    from benchmarks.domains import write_to_card
    from benchmarks.results import load_results

    written = write_to_card(load_results(results), bundle, tuple(only or ()))
    names = ", ".join(domain.name for domain in written.manifest.domains)
    print(f"{bundle}: quality by domain: {names}")


def _service_load(path: Path | None) -> dict[str, Any] | None:
    """What a load run wrote. Raises BadParameter where it is none."""
    if path is None:
        return None
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        report["services"].values()
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise typer.BadParameter(
            f"{path}: {error!r}: give the JSON file that `python -m benchmarks.service_load` wrote",
            param_hint="--service",
        ) from None
    return dict(report)


def _comet(checkpoint: Path | None, python: Path | None) -> Comet | None:
    from benchmarks.quality import Comet

    if checkpoint is None:
        return None
    return Comet(checkpoint, str(python or sys.executable))


def _options(
    quick: bool,
    parts: str,
    rounds: int | None,
    batches: str | None,
    threads: str | None,
    beams: str | None,
    comet: Comet | None,
) -> Options:
    """Options that are set count, with --quick too; the rest is as usual or as quick."""
    from benchmarks.run import Options

    chosen = _known_parts(tuple(part.strip() for part in parts.split(",") if part.strip()))
    usual = Options.quickly(chosen) if quick else Options(parts=chosen)
    given: dict[str, Any] = {"comet": comet}
    if rounds is not None:
        given["rounds"] = rounds
    for field, option, text, least in (
        ("batch_sizes", "--batches", batches, 0),
        ("threads", "--threads", threads, 1),
        ("beams", "--beams", beams, 1),
    ):
        if text is not None:
            given[field] = _numbers(option, text, least)
    return replace(usual, **given)


def _request(
    options: Options,
    peers: str,
    only: list[str] | None,
    student: Path | None,
    teacher: Path | None,
    src: Path | None,
    ref: Path | None,
) -> BenchRequest:
    from benchmarks.plan import BenchRequest, all_peers

    known = all_peers()
    names = {"all": known, "none": ()}.get(peers, tuple(peers.split(",")))
    if unknown := [name for name in names if name not in known]:
        raise typer.BadParameter(
            f"{', '.join(unknown)}: choose of {', '.join(known) or 'none'}", param_hint="--peers"
        )
    if (src is None) != (ref is None):
        raise typer.BadParameter("give both --src and --ref", param_hint="--src")
    return BenchRequest(options.beams, names, tuple(only or ()), student, teacher, src, ref)


def _baselines(given: list[str]) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for text in given:
        name, _, folder = text.partition("=")
        files = [Path(folder) / file for file in ("checkpoint.json", "manifest.json")]
        if not name or not any(file.is_file() for file in files):
            raise typer.BadParameter(
                f"{text!r}: give a name and the folder of a checkpoint or bundle, as in "
                "former=runs/old/student/checkpoint or firefox=models/en-pt",
                param_hint="--baseline",
            )
        if name in folders:
            raise typer.BadParameter(f"{name!r} is there twice", param_hint="--baseline")
        folders[name] = Path(folder)
    return folders


MAX_NAME_CHARS = 60


def _domains(given: list[str]) -> tuple[DomainFiles, ...]:
    from benchmarks.plan import DomainFiles

    domains: dict[str, DomainFiles] = {}
    for text in given:
        name, _, rest = text.partition("=")
        name, files = name.strip(), rest.split(",")
        if not name or len(files) != 2 or not all(files):
            raise typer.BadParameter(
                f"{text!r}: give a name, the file of the sentences and that of the references, as "
                "in medicine=medicine.en,medicine.de.gz (no commas in the files' names)",
                param_hint="--domain",
            )
        if len(name) > MAX_NAME_CHARS or not name.isprintable():
            raise typer.BadParameter(
                f"{name[:MAX_NAME_CHARS]!r}: a name has {MAX_NAME_CHARS} visible characters at "
                "most",
                param_hint="--domain",
            )
        if name in domains:
            raise typer.BadParameter(f"{name!r} is there twice", param_hint="--domain")
        domains[name] = DomainFiles(name, Path(files[0]), Path(files[1]))
    return tuple(domains.values())


def _plan(
    subject: Path, request: BenchRequest, folder: Path, data: Path | None, runs: Path
) -> BenchPlan:
    from benchmarks.plan import plan_bundle, plan_run

    if subject.is_dir():
        return plan_bundle(subject, request, folder)
    from training.config.io import load_recipe
    from training.run import Run

    recipe = load_recipe(subject, None, data)
    return plan_run(Run(recipe, runs / recipe.name), request, folder)


def _numbers(option: str, text: str, least: int) -> tuple[int, ...]:
    try:
        numbers = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise typer.BadParameter(f"{text!r}: numbers, by comma", param_hint=option) from None
    if min(numbers) < least:
        raise typer.BadParameter(f"{text!r}: {least} or more", param_hint=option)
    return numbers


def _known_parts(parts: tuple[str, ...]) -> tuple[str, ...]:
    from benchmarks.run import PARTS

    if unknown := [part for part in parts if part not in PARTS]:
        raise typer.BadParameter(
            f"{', '.join(unknown)}: choose of {', '.join(PARTS)}", param_hint="--parts"
        )
    return parts
