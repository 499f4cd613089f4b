"""A finished run without its training: a recipe, its students, its teacher, its bundle."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import yaml

from tests.export import tiny
from training.checkpoint import save_checkpoint
from training.config.io import load_recipe
from training.run import Run, held_out

RECIPE = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
BASELINES = ("nll", "sentence", "token", "hybrid")


def make_run(folder: Path) -> tuple[Path, Run]:
    """The recipe's file and its run, in `folder`/runs, whose models all have the same weights."""
    recipe_path = folder / "made.yaml"
    recipe_path.write_text(yaml.safe_dump(_recipe()))
    recipe = load_recipe(recipe_path)
    run = Run(recipe, folder / "runs" / recipe.name)
    tokenizer = tiny.train_tokenizer(folder / "tokenizer.model")
    model = tiny.barely_trained_model(tokenizer)
    text = recipe_path.read_text()
    sizes = {run.teacher: recipe.teacher, **dict.fromkeys(_students(run), recipe.student)}
    for checkpoint, side in sizes.items():
        checkpoint.parent.mkdir(parents=True)
        save_checkpoint(checkpoint, model.state_dict(), side.model, tokenizer, text, {"steps": 1})
    for path in (run.validation, *held_out(run)):
        write_pairs(path, tiny.sentences()[:24])
    tiny.make_bundle(run.bundle, tokenizer, model=model, recipe_text=text)
    return recipe_path, run


def _students(run: Run) -> list[Path]:
    return [run.student_folder(name) / "checkpoint" for name in run.recipe.objectives()]


def _recipe() -> dict[str, object]:
    tree = yaml.safe_load(RECIPE.read_text())
    sizes = {"width": 32, "heads": 4, "ffn": 48, "encoder_layers": 2, "decoder_layers": 1}
    for side in ("teacher", "student"):
        tree[side]["model"] = {**sizes, "dropout": 0.0, "max_length": 64}
    tree["name"] = "made"
    tree["labels"]["paths"] = ["hypothesis", "reference"]
    tree["baselines"] = {name: {"kind": name} for name in BASELINES}
    tree["corpus"]["root"] = str(RECIPE.parent / "tiny")
    tree["export"] = {"engines": ["ctranslate2-int8"], "max_input_tokens": 40}
    return dict(tree)


def write_pairs(path: Path, sentences: list[str]) -> None:
    """Sentences that are their own references."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"src": sentences, "trg": sentences})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
