"""Arguments and options of `quickstudy bench`, as Typer reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
        metavar="NAME=CHECKPOINT",
        help="Another student to measure in torch, by a name of your own; may be repeated.",
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
