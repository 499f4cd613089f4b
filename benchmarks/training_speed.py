"""What a distillation step costs, and how fast the training loop is against others.

    python -m benchmarks.training_speed --json benchmarks/results/training-speed.json

Three measurements, each of a model and batches that are the same for all: the step of every
objective against `nll`; target tokens a second of our loop against a plain torch loop and Marian;
and the share of the machine's matrix products that each loop reaches. Everything takes turns in
rounds, each trainer in a fresh process. Run it with nothing else running.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.flops import flops_per_target_token, gemm_gflops
from benchmarks.objective_speed import BASELINE, ObjectiveSpeeds, objective_speeds
from benchmarks.speed import machine, ratios, spread
from benchmarks.trainers.marian import MarianTrainer
from benchmarks.trainers.ours import Ours
from benchmarks.trainers.plain import Plain
from benchmarks.trainers.task import BaselineTrainer, Task, TrainerUnavailable, in_fresh_process
from benchmarks.trainers.text import write_labels, write_text, write_tokenizer, write_validation
from benchmarks.training_report import markdown
from training.atomic import atomic_write
from training.checkpoint import build_model
from training.data import ParallelDataset
from training.launch import available_cores
from training.model import parameter_count
from training.recipe import ModelConfig, RecipeError
from training.tokenizer import Tokenizer

MODEL = ModelConfig(
    width=128, heads=4, ffn=256, encoder_layers=4, decoder_layers=4, dropout=0.2, max_length=128
)
VOCAB_SIZE = 6000
PAIRS = 20_000
PACKAGES = ("lightning-fabric", "numpy", "pymarian")
REFERENCE = Plain()


@dataclass
class Rounds:
    """One value a round of everything that takes turns, and what could not run."""

    trainers: dict[str, list[float]] = field(default_factory=dict)
    gemm: dict[str, list[float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def synthetic_task(folder: Path, model: ModelConfig, vocab_size: int, pairs: int) -> Task:
    """A task on made-up text, written into `folder`."""
    shard = folder / "00000.arrow"
    write_text(shard, pairs, vocab_size, model.max_length)
    write_tokenizer(folder / "tokenizer.model", vocab_size)
    return _complete(folder, model, [shard], folder / "tokenizer.model", None)


def real_task(folder: Path, model: ModelConfig, tokens: Path, labels: Path | None) -> Task:
    """A task on the `tokens` (and `labels`) folders of a run; labels are made up where None.

    Raises RecipeError where there are no token shards.
    """
    shards = sorted((tokens / "train").glob("*.arrow"))
    if not shards:
        raise RecipeError(f"{tokens}: no token shards; give the `tokens` folder of a run")
    return _complete(folder, model, shards, tokens / "tokenizer.model", labels)


def _complete(
    folder: Path, model: ModelConfig, shards: list[Path], tokenizer: Path, labels: Path | None
) -> Task:
    if labels is None:
        labels = folder / "labels"
        write_labels(shards, labels, len(Tokenizer(tokenizer)))
    write_validation(folder / "validation.arrow")
    return Task(model, tokenizer, shards, labels, folder / "validation.arrow", folder / "work")


def take_turns(
    task: Task, trainers: list[BaselineTrainer], rounds: int, say: Callable[[str], None]
) -> Rounds:
    """Matrix products and every trainer, one after another, again and again."""
    found = Rounds()
    for number in range(1, rounds + 1):
        for name, value in _gemm().items():
            found.gemm.setdefault(name, []).append(value)
        for trainer in trainers:
            if trainer.name in found.skipped:
                continue
            try:
                value = trainer.tokens_per_second(task)
            except TrainerUnavailable as error:
                found.skipped[trainer.name] = str(error)
                say(f"{trainer.name}: skipped: {error}")
                continue
            found.trainers.setdefault(trainer.name, []).append(value)
            say(f"round {number}: {trainer.name}: {value:,.0f} target tokens/s")
    return found


def _gemm() -> dict[str, float]:
    """10⁹ operations a second by precision and threads."""
    return {
        f"{precision}, {'1 thread' if threads == 1 else 'all cores'}": in_fresh_process(
            gemm_gflops, precision, threads
        )
        for precision in ("float32", "bfloat16")
        for threads in (1, None)
    }


def objective_rows(speeds: ObjectiveSpeeds) -> list[dict[str, Any]]:
    """Time and ratio to `nll` of every objective."""
    return [
        {
            "objective": name,
            "milliseconds_a_step": spread(values),
            "ratio_to_nll": ratios(values, speeds.milliseconds[BASELINE]),
            "rounds": [round(value, 2) for value in values],
        }
        for name, values in speeds.milliseconds.items()
    ]


def trainer_rows(found: Rounds, flops: float) -> list[dict[str, Any]]:
    """Speed of every trainer, against the plain loop and against the machine's products."""
    plain = found.trainers[REFERENCE.name]
    gemm = spread(found.gemm["float32, all cores"])["median"]
    return [
        {
            "trainer": name,
            "target_tokens_per_second": spread(values, 0),
            "ratio_to_plain": ratios(values, plain),
            "gflops": round(spread(values)["median"] * flops / 1e9, 1),
            "share_of_float32_products": round(spread(values)["median"] * flops / 1e9 / gemm, 3),
            "rounds": [round(value) for value in values],
        }
        for name, values in found.trainers.items()
    ]


def measure(
    task: Task, trainers: list[BaselineTrainer], rounds: int, text: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """The whole report, as JSON holds it."""
    signature = machine(PACKAGES)
    data = ParallelDataset(task.tokens)
    vocab_size = len(Tokenizer(task.tokenizer))
    flops = flops_per_target_token(task.model, vocab_size, data.src.lengths, data.trg.lengths)
    short = replace(task, steps=max(task.steps // 10, 1), warm_up=max(task.warm_up // 5, 1))
    objectives = {}
    for name, bf16 in (("32-true", False), ("bf16-mixed", True)):
        speeds = in_fresh_process(objective_speeds, short, rounds, bf16)
        objectives[name] = {"rows": objective_rows(speeds), "skipped": speeds.skipped}
        say(f"objectives in {name}: done")
    found = take_turns(task, trainers, rounds, say)
    return {
        "machine": signature,
        "cores_used": available_cores(),
        "text": text,
        "model": task.model.model_dump(),
        "vocabulary": vocab_size,
        "parameters": parameter_count(build_model(task.model, vocab_size)),
        "mean_tokens": {
            "source": round(float(np.mean(data.src.lengths)), 1),
            "target": round(float(np.mean(data.trg.lengths)), 1),
        },
        "batch_tokens": task.batch_tokens,
        "steps": {"warm_up": task.warm_up, "timed": task.steps, "objectives": short.steps},
        "rounds": rounds,
        "flops_per_target_token": round(flops),
        "objectives": objectives,
        "trainers": trainer_rows(found, flops),
        "skipped": found.skipped,
        "gemm_gflops": {name: spread(values, 1) for name, values in found.gemm.items()},
    }


def main(
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the report here.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each.")] = 5,
    steps: Annotated[int, typer.Option(min=10, help="Timed steps a turn.")] = 100,
    warm_up: Annotated[int, typer.Option(min=1, help="Untimed steps before them.")] = 40,
    batch_tokens: Annotated[int, typer.Option(min=32, help="Target tokens a batch.")] = 1024,
    tokens: Annotated[
        Path | None, typer.Option(help="`tokens` folder of a run instead of made-up text.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="`labels` folder of the same run (labels.paths: hypothesis)."),
    ] = None,
    marian: Annotated[bool, typer.Option(help="Measure Marian too.")] = True,
) -> None:
    """Measure, print Markdown and write JSON."""
    trainers: list[BaselineTrainer] = [REFERENCE, Ours("32-true"), Ours("auto")]
    if marian:
        trainers.append(MarianTrainer())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if tokens is None:
            task = synthetic_task(folder, MODEL, VOCAB_SIZE, PAIRS)
        else:
            task = real_task(folder, MODEL, tokens, labels)
        task = replace(task, steps=steps, warm_up=warm_up, batch_tokens=batch_tokens)
        text = "made-up" if tokens is None else "real"
        report = measure(task, trainers, rounds, text, lambda line: print(line, file=sys.stderr))
    if json_out is not None:
        atomic_write(json_out, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    print(markdown(report))


if __name__ == "__main__":
    typer.run(main)
