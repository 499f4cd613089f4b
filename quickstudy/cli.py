"""The front door: one command that joins training, export, service and benchmarks.

Every part is imported only when it is used, so that serving never needs torch.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from typer.core import TyperGroup

from benchmarks.cli import bench_app
from export.cli import bundle_app
from quickstudy.errors import QuickstudyError, explain
from service.api_keys import keys_app

if TYPE_CHECKING:
    from training.config.recipe import Recipe
    from training.run import Run
    from training.stage import Stage

RESUMED = frozenset(
    ("run", "prepare", "tokenize", "teacher", "label", "student", "export", "evaluate", "study")
)
"""Commands that go on where they were stopped."""
INTERRUPTED = 130
"""Exit code of a program that Ctrl-C ended, as shells have it."""


class Commands(TyperGroup):
    """The commands; Ctrl-C ends each with one line that says what the same command does next."""

    def invoke(self, ctx):  # type: ignore[no-untyped-def]
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            again = (
                "what is done is kept, the same command goes on from there"
                if ctx.invoked_subcommand in RESUMED
                else "the same command begins again"
            )
            _end(f"interrupted: {again}", INTERRUPTED)


app = typer.Typer(
    cls=Commands,
    name="quickstudy",
    help="Fast translation students distilled from slow, strong teachers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
recipe_app = typer.Typer(help="Check recipes and show their schema.", no_args_is_help=True)
app.add_typer(recipe_app, name="recipe")
labels_app = typer.Typer(help="Look into label stores.", no_args_is_help=True)
app.add_typer(labels_app, name="labels")
app.add_typer(bundle_app, name="bundle")
app.add_typer(bench_app, name="bench")
app.add_typer(keys_app, name="keys")

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe, a YAML file.")]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder of the corpus files (corpus.root).")
]
RunsOption = Annotated[
    Path, typer.Option("--runs", envvar="QUICKSTUDY_RUNS", help="Folder that holds all runs.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override a field; may be repeated."),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Make it again even if it is done; the old is kept.")
]

TRAIN_EXTRA = "pip install 'quickstudy[train]'"


def main() -> None:
    """Run the command line; errors a user can mend end with exit code 1 and one message."""
    try:
        try:
            app()
        finally:
            # What is printed may come to the disk only here, and a full disk is worth a word.
            sys.stdout.flush()
    except ModuleNotFoundError as error:
        _end(f"{error.name} is not installed; try: {TRAIN_EXTRA}")
    except QuickstudyError as error:
        _end(str(error))
    except BrokenPipeError:
        _drop_output()
        raise SystemExit(1) from None
    except OSError as error:
        message = explain(error)
        if message is None:
            raise
        _end(message)


def _end(message: str, code: int = 1) -> NoReturn:
    print(f"quickstudy: {message}", file=sys.stderr)
    _drop_output()
    raise SystemExit(code) from None


def _drop_output() -> None:
    """Forget printed text that cannot be written, so that the interpreter's end does not try."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _recipe(path: Path, data: Path | None, assignments: list[str] | None) -> Recipe:
    from training.config.io import load_recipe

    return load_recipe(path, assignments, data)


def _run(path: Path, data: Path | None, runs: Path, assignments: list[str] | None) -> Run:
    from training.run import Run

    recipe = _recipe(path, data, assignments)
    return Run(recipe, runs / recipe.name)


def _stages(run: Run) -> dict[str, Stage]:
    """The stages of a run; what it is comes first, since the imports take seconds."""
    if os.environ.get("RANK", "0") == "0":
        print(f"{run.recipe.name}: results in {run.folder}", file=sys.stderr, flush=True)
    from quickstudy.pipeline import build_stages

    return build_stages(run)


def _do(run: Run, names: list[str], force: bool) -> None:
    from training.stage import run_stage

    stages = _stages(run)
    for name in names:
        if name not in stages:
            raise QuickstudyError(f"this recipe has no stage {name!r}: it has {', '.join(stages)}")
        run_stage(stages[name], stages, force)


@app.command("run")
def run_all(
    recipe: RecipeFile,
    data: DataOption = None,
    runs: RunsOption = Path("runs"),
    assignments: SetOption = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Go on with a teacher that translates next to nothing, and publish a bundle that "
            "breaks a limit of the export gate; what is done is not made again.",
        ),
    ] = False,
) -> None:
    """Do every stage that is not done yet: text in, a bundle and its scores out."""
    from dataclasses import replace

    run = _run(recipe, data, runs, assignments)
    stages = _stages(replace(run, publish_anyway=force, label_anyway=force))
    from training.stage import run_stage

    for stage in stages.values():
        run_stage(stage, stages)


def _stage_command(name: str, stage: str, text: str) -> None:
    def command(
        recipe: RecipeFile,
        data: DataOption = None,
        runs: RunsOption = Path("runs"),
        assignments: SetOption = None,
        force: ForceOption = False,
    ) -> None:
        _do(_run(recipe, data, runs, assignments), [stage], force)

    command.__doc__ = text
    app.command(name)(command)


_stage_command("prepare", "prepare", "Read, clean, normalise and shard the corpus.")
_stage_command("tokenize", "tokenize", "Make the SentencePiece model and encode the corpus.")
_stage_command("teacher", "teacher", "Train the teacher on the references.")
_stage_command("evaluate", "evaluate", "Measure quality and speed of teacher, students and bundle.")


@app.command()
def label(
    recipe: RecipeFile,
    workers: Annotated[
        str, typer.Option(metavar="N|ray", help="So many processes, or a Ray cluster.")
    ] = "1",
    data: DataOption = None,
    runs: RunsOption = Path("runs"),
    assignments: SetOption = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Label again even if it is done (the old is kept), and ask a teacher that "
            "translates next to nothing.",
        ),
    ] = False,
) -> None:
    """Ask the teacher once: translations and distributions."""
    from dataclasses import replace

    run = _run(recipe, data, runs, assignments)
    _do(replace(run, label_workers=workers, label_anyway=force), ["label"], force)


@app.command()
def export(
    recipe: RecipeFile,
    data: DataOption = None,
    runs: RunsOption = Path("runs"),
    assignments: SetOption = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Export again even if it is done, and publish a bundle that breaks a limit of "
            "the export gate; the failure is recorded in it.",
        ),
    ] = False,
) -> None:
    """Write the student's bundle for serving, unless it translates worse than the student."""
    from dataclasses import replace

    run = _run(recipe, data, runs, assignments)
    _do(replace(run, publish_anyway=force), ["export"], force)


@app.command()
def student(
    recipe: RecipeFile,
    baseline: Annotated[
        str | None, typer.Option(help="Train this baseline of the recipe instead.")
    ] = None,
    data: DataOption = None,
    runs: RunsOption = Path("runs"),
    assignments: SetOption = None,
    force: ForceOption = False,
) -> None:
    """Train the student (or a baseline) by its objective."""
    run = _run(recipe, data, runs, assignments)
    if baseline is not None and baseline not in run.recipe.baselines:
        known = ", ".join(run.recipe.baselines) or "none"
        raise QuickstudyError(f"this recipe has no baseline {baseline!r}; it has: {known}")
    _do(run, [baseline or "student"], force)


@app.command()
def study(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="Study, a YAML file.")],
    data: DataOption = None,
    runs: RunsOption = Path("runs"),
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of results and report.", show_default="runs/study-NAME"),
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Students trained side by side.")] = None,
    max_minutes: Annotated[
        float | None, typer.Option(min=0, help="Stop after so many minutes; resumable.")
    ] = None,
    report_only: Annotated[
        bool, typer.Option("--report", help="Only write the report of the results so far.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Go on with a teacher that translates next to nothing.")
    ] = False,
) -> None:
    """Compare distillation methods: train a grid of students, test them, report what holds."""
    from benchmarks.study.config import load_study

    loaded = load_study(study)
    folder = out or runs / f"study-{loaded.name}"
    print(f"{loaded.name}: results in {folder}", file=sys.stderr, flush=True)
    from benchmarks.study.report import write_report
    from benchmarks.study.run import StudyBench, run_study

    bench = StudyBench(loaded, study, data, runs, force)
    done = report_only or run_study(bench, folder, jobs, max_minutes)
    print(write_report(loaded, folder))
    if not done:
        raise QuickstudyError("the study is not finished: run the same command again to go on")


@app.command()
def translate(
    bundle: Annotated[
        Path | None, typer.Argument(help="Bundle folder.", show_default="models/en-de")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="Engine of the bundle.")] = None,
    beam_size: Annotated[int, typer.Option(min=1, max=8, help="1 is greedy.")] = 1,
) -> None:
    """Translate standard input to standard output, line by line."""
    from export.runtime.bundle import load_bundle
    from export.runtime.engines import TranslateOptions, load_engine
    from service.settings import find_bundle
    from service.text import join_parts, split_text

    opened = load_bundle(bundle or find_bundle())
    translator = load_engine(opened, engine)
    options = TranslateOptions(beam_size=beam_size)
    language = opened.manifest.source_lang
    for line in sys.stdin:
        text = line.rstrip("\n")
        parts = split_text(text, language, translator.count_tokens, translator.max_input_tokens)
        sentences = [part.text for part in parts if part.translate]
        found = translator.translate_batch(sentences, options) if sentences else []
        print(join_parts(parts, [one.text for one in found]), flush=True)


@app.command()
def download(
    src: Annotated[str, typer.Argument(help="Source language.")],
    trg: Annotated[str, typer.Argument(help="Target language.")],
    datasets: Annotated[list[str], typer.Argument(metavar="DATASET…", help="mtdata's names.")],
    out: Annotated[Path, typer.Option(help="Folder for the text.")] = Path("data"),
) -> None:
    """Fetch public parallel text with mtdata (needs a network and the `download` extra)."""
    from training.data.prepare import download as fetch

    fetch(src, trg, datasets, out)


@app.command()
def recombine(
    texts: Annotated[list[Path], typer.Argument(metavar="TEXT…", help="Source text, by lines.")],
    out: Annotated[Path, typer.Option(help="File for the new sentences; packed if *.gz.")],
    sentences: Annotated[int, typer.Option(min=1, help="How many.")] = 100_000,
    without: Annotated[
        list[Path] | None,
        typer.Option(help="Source text that must not come out, such as a test set; repeatable."),
    ] = None,
    order: Annotated[int, typer.Option(min=2, help="Longest n-gram, in words.")] = 4,
    overlap: Annotated[
        int, typer.Option(min=1, help="Words that go on as they do in the text, at least.")
    ] = 2,
    longest: Annotated[int, typer.Option(min=1, help="Longest sentence, in words.")] = 30,
    seed: Annotated[int, typer.Option(help="Another gives other sentences.")] = 1,
) -> None:
    """Make new source sentences of a text's own words, for the teacher to translate."""
    from training.data.synthetic import recombine_files

    if overlap >= order:
        raise QuickstudyError(f"--overlap {overlap} must be below --order {order}")
    recombine_files(
        texts,
        out,
        sentences,
        without or (),
        order=order,
        overlap=overlap,
        longest=longest,
        seed=seed,
    )


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 3000,
    show_settings: Annotated[
        bool, typer.Option("--show-settings", help="Print every setting instead, and stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the settings as JSON.")] = False,
) -> None:
    """Serve translations over HTTP (the same as `make serve`), by settings `QUICKSTUDY_*`."""
    if as_json and not show_settings:
        raise QuickstudyError("--json is for --show-settings: give both, or neither")
    from service.settings import read_settings
    from service.settings import show_settings as show

    if show_settings:
        show(as_json)
        return
    read_settings()
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    command = [sys.executable, "-m", "service.supervisor"]
    os.execv(sys.executable, [*command, "--host", host, "--port", str(port)])


@labels_app.command("inspect")
def labels_inspect(
    where: Annotated[
        Path, typer.Argument(metavar="RECIPE_OR_FOLDER", help="Recipe, run folder or label store.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    bleu_pairs: Annotated[
        int, typer.Option(min=1, help="Pairs that the teacher's BLEU is measured on at most.")
    ] = 2000,
    samples: Annotated[int, typer.Option(min=0, help="Translations shown.")] = 3,
    runs: RunsOption = Path("runs"),
    assignments: SetOption = None,
) -> None:
    """Show what the teacher said: sizes, tail mass, lengths, BLEU and a few translations."""
    from training.distill import reports

    folder = where if where.is_dir() else _run(where, None, runs, assignments).folder
    found = reports.inspect_labels(folder, bleu_pairs, samples)
    print(reports.as_json(found) if as_json else reports.render(found))


@recipe_app.command("check")
def recipe_check(
    recipe: RecipeFile, data: DataOption = None, assignments: SetOption = None
) -> None:
    """Report every fault of a recipe at once, missing text too; exit code 1 if there is any."""
    from training.config.io import check_recipe

    checked = check_recipe(recipe, assignments, data)
    print(f"{recipe}: ok ({checked.name})")


@recipe_app.command("schema")
def recipe_schema() -> None:
    """Print the JSON Schema of a recipe, with a description and unit for every field."""
    from training.config.io import recipe_schema

    print(recipe_schema())


@recipe_app.command("reference")
def recipe_reference() -> None:
    """Print every field of a recipe as Markdown: docs/recipes.md is this."""
    from training.config.io import recipe_reference

    print(recipe_reference(), end="")


if __name__ == "__main__":
    main()
