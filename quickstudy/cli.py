"""The command line: `quickstudy`.

Commands import what they use when they run: serving never needs torch, and `--help` is quick.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer
from typer.core import TyperGroup

from benchmarks.cli import bench_app
from export.cli import bundle_app
from quickstudy.errors import QuickstudyError, explain
from service.api_keys import keys_app
from service.suggestions import suggestions_app

if TYPE_CHECKING:
    from training.config.recipe import Recipe
    from training.run import Run
    from training.stage import Stage

TRAIN_EXTRA = "pip install 'quickstudy[train]'"
RESUMABLE = frozenset(
    ("run", "prepare", "tokenize", "teacher", "label", "student", "export", "evaluate", "study")
)
"""Commands that continue where they were stopped."""
TextFormat = Literal["text", "html", "markdown"]
TEXT_FORMATS: tuple[TextFormat, ...] = ("text", "html", "markdown")
INTERRUPTED = 130
"""Exit code of a program that Ctrl-C ended, as in shells."""
CONTINUE = "finished work is kept; run the same command again to continue"


# --- entry point and errors ---------------------------------------------------------------------


def main() -> None:
    """Run the command line; an error that the user can correct is one message and exit code 1."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # here a full disk raises an OSError, not at the interpreter's end
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is not installed; try: {TRAIN_EXTRA}")
    except QuickstudyError as error:
        _fail(str(error))
    except BrokenPipeError:
        _discard_output()
        raise SystemExit(1) from None
    except OSError as error:
        message = explain(error)
        if message is None:
            raise
        _fail(message)


def _fail(message: str, code: int = 1) -> NoReturn:
    print(f"quickstudy: {message}", file=sys.stderr)
    _discard_output()
    raise SystemExit(code) from None


def _discard_output() -> None:
    """Drop printed text that cannot be written, so that the interpreter does not try at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("w") as null:
            os.dup2(null.fileno(), sys.stdout.fileno())


class InterruptibleGroup(TyperGroup):
    """Commands that Ctrl-C ends with one line, which says what the same command does next."""

    def invoke(self, ctx):  # type: ignore[no-untyped-def]
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            advice = (
                CONTINUE
                if ctx.invoked_subcommand in RESUMABLE
                else "run the same command again to start over"
            )
            _fail(f"interrupted: {advice}", INTERRUPTED)


def text_format(value: str) -> TextFormat:
    """A format of texts. Raises BadParameter, which says of documents where they are translated."""
    for name in TEXT_FORMATS:
        if value == name:
            return name
    raise typer.BadParameter(
        f"{value!r} is not one of {', '.join(TEXT_FORMATS)}. Documents (docx, odt, po, xliff, "
        "srt, …) are translated by the service: run `quickstudy serve`, and give them to its "
        "page or to POST /v1/translate/file."
    )


app = typer.Typer(
    cls=InterruptibleGroup,
    name="quickstudy",
    help="Train, export, serve and measure fast translation models distilled from slow ones.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
recipe_app = typer.Typer(help="Check a recipe; print the schema of recipes.", no_args_is_help=True)
labels_app = typer.Typer(help="Inspect the teacher's labels.", no_args_is_help=True)
app.add_typer(recipe_app, name="recipe")
app.add_typer(labels_app, name="labels")
app.add_typer(bundle_app, name="bundle")
app.add_typer(bench_app, name="bench")
app.add_typer(keys_app, name="keys")
app.add_typer(suggestions_app, name="suggestions")

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe, a YAML file.")]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder of the corpus files (corpus.root).")
]
RunsOption = Annotated[
    Path, typer.Option("--runs", envvar="QUICKSTUDY_RUNS", help="Folder of all runs.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override a field; repeatable."),
]
ForceOption = Annotated[
    bool,
    typer.Option("--force", help="Run the stage again if it is done; the old result is kept."),
]


# --- runs: all stages, or one -------------------------------------------------------------------


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
            help="Continue with a teacher that learned next to nothing, and publish a bundle that "
            "fails the quality gate; finished stages are not run again.",
        ),
    ] = False,
) -> None:
    """Run every stage that is not done yet, from text to a bundle and its scores."""
    run = _load_run(recipe, data, runs, assignments)
    stages = _stages(replace(run, publish_anyway=force, label_anyway=force))
    from training.stage import run_stage

    for stage in stages.values():
        run_stage(stage, stages)


def _add_stage_command(name: str, description: str) -> None:
    def command(
        recipe: RecipeFile,
        data: DataOption = None,
        runs: RunsOption = Path("runs"),
        assignments: SetOption = None,
        force: ForceOption = False,
    ) -> None:
        _run_stage(_load_run(recipe, data, runs, assignments), name, force)

    command.__doc__ = description
    app.command(name)(command)


_add_stage_command("prepare", "Read, clean, normalise and shard the corpus.")
_add_stage_command("tokenize", "Train the SentencePiece model and encode the corpus.")
_add_stage_command("teacher", "Train the teacher on the references.")
_add_stage_command("evaluate", "Measure quality and speed of teacher, students and bundle.")


@app.command()
def label(
    recipe: RecipeFile,
    workers: Annotated[
        str, typer.Option(metavar="N|ray", help="Number of processes, or `ray` for a cluster.")
    ] = "1",
    data: DataOption = None,
    runs: RunsOption = Path("runs"),
    assignments: SetOption = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Label again if it is done (the old labels are kept), and label with a teacher "
            "that learned next to nothing.",
        ),
    ] = False,
) -> None:
    """Label the corpus with the teacher's translations and distributions."""
    run = _load_run(recipe, data, runs, assignments)
    _run_stage(replace(run, label_workers=workers, label_anyway=force), "label", force)


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
    """Train the student, or a baseline."""
    run = _load_run(recipe, data, runs, assignments)
    if baseline is not None and baseline not in run.recipe.baselines:
        names = ", ".join(run.recipe.baselines) or "none"
        raise QuickstudyError(f"this recipe has no baseline {baseline!r}; it has: {names}")
    _run_stage(run, baseline or "student", force)


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
            help="Export again if it is done, and publish a bundle that fails the quality gate; "
            "its manifest records the failure.",
        ),
    ] = False,
) -> None:
    """Write the student's bundle for serving, if it passes the quality gate."""
    run = _load_run(recipe, data, runs, assignments)
    _run_stage(replace(run, publish_anyway=force), "export", force)


def _load_run(path: Path, data: Path | None, runs: Path, assignments: list[str] | None) -> Run:
    from training.config.io import load_recipe
    from training.run import Run

    recipe = load_recipe(path, assignments, data)
    return Run(recipe, runs / recipe.name)


def _stages(run: Run) -> dict[str, Stage]:
    """A run's stages; the run's folder is printed first, since the imports take seconds."""
    if os.environ.get("RANK", "0") == "0":
        print(f"{run.recipe.name}: results in {run.folder}", file=sys.stderr, flush=True)
    from quickstudy.pipeline import build_stages

    return build_stages(run)


def _run_stage(run: Run, name: str, force: bool) -> None:
    from training.stage import run_stage

    stages = _stages(run)
    if name not in stages:
        raise QuickstudyError(f"this recipe has no stage {name!r}; it has: {', '.join(stages)}")
    run_stage(stages[name], stages, force)


# --- studies ------------------------------------------------------------------------------------


@app.command()
def study(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="Study, a YAML file.")],
    data: DataOption = None,
    runs: RunsOption = Path("runs"),
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of results and report.", show_default="runs/study-NAME"),
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Students to train at a time.")] = None,
    max_minutes: Annotated[
        float | None, typer.Option(min=0, help="Stop after this many minutes; resumable.")
    ] = None,
    report_only: Annotated[
        bool, typer.Option("--report", help="Only write the report of the results so far.")
    ] = False,
    others: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            metavar="RESULTS",
            help="results.jsonl of a study of another corpus, for one table of both; repeatable.",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Continue with a teacher that learned next to nothing."),
    ] = False,
) -> None:
    """Compare distillation methods: train a grid of students, test them, write a report."""
    from benchmarks.study.config import load_study

    loaded = load_study(study)
    folder = out or runs / f"study-{loaded.name}"
    print(f"{loaded.name}: results in {folder}", file=sys.stderr, flush=True)
    from benchmarks.study.report import write_report
    from benchmarks.study.run import StudyBench, run_study

    bench = StudyBench(loaded, study, data, runs, force)
    done = report_only or run_study(bench, folder, jobs, max_minutes)
    print(write_report(loaded, folder, others or []))
    if not done:
        raise QuickstudyError("the study is not finished: run the same command again to continue")


# --- training text ------------------------------------------------------------------------------


@app.command()
def download(
    src: Annotated[str, typer.Argument(help="Source language.")],
    trg: Annotated[str, typer.Argument(help="Target language.")],
    datasets: Annotated[list[str], typer.Argument(metavar="DATASET…", help="Names of mtdata.")],
    out: Annotated[Path, typer.Option(help="Folder for the text.")] = Path("data"),
) -> None:
    """Download public parallel text with mtdata (needs the `download` extra)."""
    from training.data.prepare import download as download_datasets

    download_datasets(src, trg, datasets, out)


@app.command()
def recombine(
    texts: Annotated[
        list[Path], typer.Argument(metavar="TEXT…", help="Source text, one sentence a line.")
    ],
    out: Annotated[Path, typer.Option(help="File for the new sentences; *.gz is compressed.")],
    sentences: Annotated[int, typer.Option(min=1, help="Number of new sentences.")] = 100_000,
    without: Annotated[
        list[Path] | None,
        typer.Option(help="Source text to leave out, such as a test set; repeatable."),
    ] = None,
    order: Annotated[int, typer.Option(min=2, help="Longest n-gram, in words.")] = 4,
    overlap: Annotated[
        int, typer.Option(min=1, help="Any OVERLAP + 1 words in a row occur in the text.")
    ] = 2,
    longest: Annotated[int, typer.Option(min=1, help="Longest sentence, in words.")] = 30,
    seed: Annotated[int, typer.Option(help="Seed of the random numbers.")] = 1,
) -> None:
    """Generate new source sentences from a text's n-grams, for the teacher to translate."""
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


@app.command("word-pairs")
def word_pairs(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="SRC TRG…", help="Translated text, one sentence a line; file pairs."
        ),
    ],
    out: Annotated[Path, typer.Option(help="TSV to write; *.gz is compressed.")],
    least_count: Annotated[
        int, typer.Option(min=1, help="How often each word must stand in the text.")
    ] = 4,
) -> None:
    """Find single words that translate each other, for a student to learn them alone."""
    from training.data.word_pairs import write_word_pairs

    if len(files) % 2:
        raise QuickstudyError(f"{len(files)} files: give them in pairs, SRC TRG SRC TRG …")
    count = write_word_pairs(files[::2], files[1::2], out, least_count)
    print(f"{out}: {count:,} lines", file=sys.stderr)


@app.command("grammar-pairs")
def grammar_pairs(
    grammar: Annotated[
        Path, typer.Argument(help="Rules: a symbol in brackets, lines `source | target` below it.")
    ],
    out: Annotated[Path, typer.Option(help="TSV to write; *.gz is compressed.")],
    sentences: Annotated[int, typer.Option(min=1, help="Number of pairs.")] = 10_000,
    without: Annotated[
        list[Path] | None,
        typer.Option(help="Source text to leave out, such as a test set; repeatable."),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="How often the same sentence may come.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the random numbers.")] = 1,
) -> None:
    """Generate translated sentences from a grammar of both languages."""
    from training.data.grammar import write_grammar_pairs

    write_grammar_pairs(grammar, out, sentences, seed, without or (), repeats)


# --- translating and serving --------------------------------------------------------------------


# Groups of options, as --help shows them.
FILES = "Files"
TRANSLATION = "Translation"


@app.command()
def translate(
    context: typer.Context,
    bundle: Annotated[
        Path | None, typer.Argument(help="Bundle folder.", show_default="models/en-de")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Bundle folder, as the argument.",
            envvar="QUICKSTUDY_MODEL",
            rich_help_panel=TRANSLATION,
        ),
    ] = None,
    input: Annotated[
        Path | None,
        typer.Option(
            help="File to translate.", show_default="standard input", rich_help_panel=FILES
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="File to write; resumable.", show_default="standard output", rich_help_panel=FILES
        ),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="Engine of the bundle.", rich_help_panel=TRANSLATION)
    ] = None,
    beam_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=8,
            help="1 is greedy.",
            show_default="the bundle's own",
            rich_help_panel=TRANSLATION,
        ),
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            parser=text_format,
            metavar=f"[{'|'.join(TEXT_FORMATS)}]",
            help="Lines of text are translated one by one, HTML and Markdown as one document; "
            "of JSONL and Parquet each field.",
            rich_help_panel=TRANSLATION,
        ),
    ] = "text",
    formality: Annotated[
        Literal["formal", "informal"] | None,
        typer.Option(
            help="Form of address.", show_default="the bundle's own", rich_help_panel=TRANSLATION
        ),
    ] = None,
    records: Annotated[
        Literal["auto", "lines", "jsonl", "parquet"],
        typer.Option(
            help="How texts stand in the input; `auto` goes by the file's name.",
            rich_help_panel=FILES,
        ),
    ] = "auto",
    field: Annotated[
        str, typer.Option(help="Field or column of the text.", rich_help_panel=FILES)
    ] = "text",
    output_field: Annotated[
        str, typer.Option(help="Field or column for the translation.", rich_help_panel=FILES)
    ] = "translation",
    report: Annotated[
        Path | None,
        typer.Option(
            help="File for what may be wrong, JSONL with line numbers.", rich_help_panel=FILES
        ),
    ] = None,
    fallback: Annotated[
        bool,
        typer.Option(
            "--fallback/--no-fallback",
            help="Decode again what looks wrong; without it quicker, and worse.",
            rich_help_panel=TRANSLATION,
        ),
    ] = True,
    shard_lines: Annotated[
        int,
        typer.Option(
            min=1, help="Lines that are kept at a time with --output.", rich_help_panel=FILES
        ),
    ] = 5000,
    threads: Annotated[
        int | None, typer.Option(min=1, max=256, show_default="one per core", help="Threads.")
    ] = None,
    workers: Annotated[
        str | None, typer.Option(metavar="ray", help="`ray` translates on a Ray cluster.")
    ] = None,
) -> None:
    """Translate a file, or standard input to standard output as it comes; `-` names those too.

    With --output, the same command continues where it was stopped.
    """
    from quickstudy.bulk.command import BulkCommand
    from quickstudy.bulk.workers import TranslateConfig

    source = context.get_parameter_source("model")
    if bundle is not None and source is not None and source.name == "COMMANDLINE":
        raise QuickstudyError("the bundle is given twice: leave out --model or the argument")
    config = TranslateConfig(
        bundle or model, engine, text_format(format), beam_size, fallback, threads, formality
    )
    input, output = (None if path == Path("-") else path for path in (input, output))
    command = BulkCommand(
        config, input, output, records, field, output_field, report, shard_lines, workers
    )
    try:
        command.run()
    except KeyboardInterrupt:
        if not command.is_resumable:
            raise
        _fail(f"interrupted: {CONTINUE}", INTERRUPTED)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=1, max=65535, envvar="PORT", help="Port to listen on.")
    ] = 3000,
    show_settings: Annotated[
        bool, typer.Option("--show-settings", help="Print every setting and exit.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the settings as JSON.")] = False,
) -> None:
    """Serve translations over HTTP; variables `QUICKSTUDY_*` are its settings."""
    if as_json and not show_settings:
        raise QuickstudyError("--json needs --show-settings: add it, or leave --json out")
    from service import settings

    if show_settings:
        settings.show_settings(as_json)
        return
    settings.read_settings()  # errors are shown before a process is started
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    command = [sys.executable, "-m", "service.supervisor"]
    os.execv(sys.executable, [*command, "--host", host, "--port", str(port)])


# --- recipes and labels -------------------------------------------------------------------------


@recipe_app.command("check")
def recipe_check(
    recipe: RecipeFile, data: DataOption = None, assignments: SetOption = None
) -> None:
    """Report every error of a recipe at once, missing text included; exit code 1 if any."""
    from training.config.io import check_recipe

    checked: Recipe = check_recipe(recipe, assignments, data)
    print(f"{recipe}: ok ({checked.name})")


@recipe_app.command("schema")
def recipe_schema() -> None:
    """Print the JSON Schema of recipes, with a description and unit for every field."""
    from training.config.io import recipe_schema

    print(recipe_schema())


@recipe_app.command("reference")
def recipe_reference() -> None:
    """Print every field of a recipe as Markdown, as in docs/recipes.md."""
    from training.config.io import recipe_reference

    print(recipe_reference(), end="")


@labels_app.command("inspect")
def labels_inspect(
    where: Annotated[
        Path, typer.Argument(metavar="RECIPE_OR_FOLDER", help="Recipe, run folder or label store.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    bleu_pairs: Annotated[
        int, typer.Option(min=1, help="Most pairs to measure the teacher's BLEU on.")
    ] = 2000,
    samples: Annotated[int, typer.Option(min=0, help="Translations to show.")] = 3,
    runs: RunsOption = Path("runs"),
    assignments: SetOption = None,
) -> None:
    """Describe a label store: sizes, tail mass, lengths, BLEU and sample translations."""
    from training.distill import label_report

    folder = where if where.is_dir() else _load_run(where, None, runs, assignments).folder
    report = label_report.inspect_labels(folder, bleu_pairs, samples)
    print(label_report.as_json(report) if as_json else label_report.render(report))
