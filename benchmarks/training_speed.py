"""What a distillation step costs, and how fast the training loop is against others.

    python -m benchmarks.training_speed --json benchmarks/results/training-speed.json

Three measurements, all on the same model and batches: the step of every objective against `nll`;
target tokens a second of our loop against a plain torch loop and Marian; and the share of the
machine's matrix products that each loop reaches. Everything takes turns in rounds, each trainer in
a fresh process. Run it with nothing else running.

A step of an objective is: make the batch, with its labels where the objective reads them; forward;
backward; clip; optimiser. Every objective runs along the teacher's translations, on the same rows.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import torch
import typer
from torch import nn

from benchmarks.roofline import flops_per_target_token, gemm_gflops
from benchmarks.speed import ratios, spread
from benchmarks.trainers import (
    BETAS,
    CLIP_NORM,
    LEARNING_RATE,
    BaselineTrainer,
    MarianTrainer,
    Ours,
    Plain,
    Task,
    TrainerUnavailable,
    in_fresh_process,
    use_cores,
    write_labels,
    write_text,
    write_tokenizer,
    write_validation,
)
from quickstudy.atomic import atomic_write
from quickstudy.machine import describe_machine, usable_cores
from training.checkpoint import build_model
from training.config.losses import (
    ConstantGateConfig,
    CorpusGateConfig,
    GateConfig,
    HybridObjective,
    ObjectiveConfig,
    SentenceGateConfig,
    TargetSource,
)
from training.config.recipe import ModelConfig, RecipeError
from training.data.batching import Batch, token_batches
from training.data.dataset import ParallelDataset
from training.data.tokenizer import Tokenizer
from training.distill.label_store import LabelStore
from training.distill.losses import Loss, build_loss
from training.distill.losses.scale import EARLY, LossScale, ScaleName
from training.distributed import keep_memory
from training.model.transformer import Transformer, parameter_count

# --- objectives -----------------------------------------------------------------------------------

BASELINE = "nll"


@dataclass(frozen=True)
class ObjectiveSpeeds:
    """Milliseconds a step of each objective, one value a round; why others were left out."""

    milliseconds: dict[str, list[float]]
    skipped: dict[str, str] = field(default_factory=dict)


def every_objective() -> dict[str, Any]:
    """A config of every kind that recipes know, gates one by one, along the hypothesis path."""
    configs: dict[str, Any] = {}
    for kind in get_args(get_args(ObjectiveConfig)[0]):
        fields = kind.model_fields
        common = {"path": "hypothesis"} if "path" in fields else {}
        if "gate" not in fields:
            configs[fields["kind"].default] = kind(**common)
            continue
        for gate in get_args(get_args(GateConfig)[0]):
            name = f"{fields['kind'].default}, {gate.model_fields['kind'].default} gate"
            # The one gate that learns nothing under the default scale.
            scale = {"scale": "excess"} if gate is CorpusGateConfig else {}
            configs[name] = kind(**common, **scale, gate=gate())
    for scale_name in get_args(ScaleName):
        constant = HybridObjective(gate=ConstantGateConfig(), scale=scale_name)
        configs[f"hybrid, scale {scale_name}"] = constant
    held_out = SentenceGateConfig(learns_from="held-out")
    configs["hybrid, sentence gate from held-out text"] = HybridObjective(gate=held_out)
    return configs


class Learner:
    """One objective with an optimiser of its own, around a model that all of them share."""

    def __init__(self, objective: Loss, model: Transformer, bf16: bool) -> None:
        self.objective = objective
        self.model = model
        self.bf16 = bf16
        scale = getattr(objective, "scale", None)
        if isinstance(scale, LossScale) and scale.kind == "gradient":
            # As in most of a run: gradients are measured more often in its first batches.
            scale.batches.fill_(EARLY)
        self.parameters = [*model.parameters(), *objective.parameters()]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=LEARNING_RATE, betas=BETAS, eps=1e-9, fused=True
        )

    def batch(self, data: ParallelDataset, rows: np.ndarray) -> Batch:
        """The rows along the hypothesis, which stands for every other path too."""
        distributions: tuple[TargetSource, ...] = (
            ("hypothesis",) if self.objective.needs_distributions else ()
        )
        batch = data.batch(rows, ("hypothesis",), distributions)
        taught = batch.hypothesis
        return batch._replace(reference=taught, closest=taught, drawn=taught, student=taught)

    def step(self, data: ParallelDataset, rows: np.ndarray) -> None:
        batch = self.batch(data, rows)
        self.objective.held_out = lambda _: batch
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.objective(self.model, batch).loss
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()


def objective_speeds(task: Task, rounds: int, bf16: bool) -> ObjectiveSpeeds:
    """Time every objective on one thread, as training does it, in interleaved rounds.

    Run it in a process of its own: it sets the number of threads and keeps freed memory.
    """
    keep_memory()
    use_cores(1)
    torch.manual_seed(task.seed)
    store = LabelStore(task.labels)
    data = ParallelDataset(task.tokens, store)
    generator = np.random.default_rng(task.seed)
    lengths = data.src.lengths, store.hypotheses.lengths
    batches = token_batches(*lengths, task.batch_tokens, generator)
    model = build_model(task.model, len(Tokenizer(task.tokenizer)))
    learners = {
        name: Learner(build_loss(config, task.model.width), model, bf16)
        for name, config in every_objective().items()
    }
    skipped = _warm_up(learners, data, batches[: task.warm_up])
    times: dict[str, list[float]] = {name: [] for name in learners if name not in skipped}
    for number in range(rounds):
        start = number * task.steps % max(len(batches) - task.steps, 1)
        chosen = batches[start : start + task.steps]
        for name in times:
            started = time.perf_counter()
            for rows in chosen:
                learners[name].step(data, rows)
            times[name].append(1000 * (time.perf_counter() - started) / len(chosen))
    return ObjectiveSpeeds(times, skipped)


def _warm_up(
    learners: dict[str, Learner], data: ParallelDataset, batches: list[np.ndarray]
) -> dict[str, str]:
    """Some untimed steps of each; → those that cannot run on these labels, and why."""
    skipped: dict[str, str] = {}
    for name, learner in learners.items():
        try:
            for rows in batches:
                learner.step(data, rows)
        except ValueError as error:
            skipped[name] = str(error)
    return skipped


# --- trainers -------------------------------------------------------------------------------------

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
    turns = Rounds()
    for number in range(1, rounds + 1):
        for name, value in _gemm().items():
            turns.gemm.setdefault(name, []).append(value)
        for trainer in trainers:
            if trainer.name in turns.skipped:
                continue
            try:
                value = trainer.tokens_per_second(task)
            except TrainerUnavailable as error:
                turns.skipped[trainer.name] = str(error)
                say(f"{trainer.name}: skipped: {error}")
                continue
            turns.trainers.setdefault(trainer.name, []).append(value)
            say(f"round {number}: {trainer.name}: {value:,.0f} target tokens/s")
    return turns


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


def trainer_rows(turns: Rounds, flops: float) -> list[dict[str, Any]]:
    """Speed of every trainer, against the plain loop and against the machine's products."""
    plain = turns.trainers[REFERENCE.name]
    gemm = spread(turns.gemm["float32, all cores"])["median"]
    return [
        {
            "trainer": name,
            "target_tokens_per_second": spread(values, 0),
            "ratio_to_plain": ratios(values, plain),
            "gflops": round(spread(values)["median"] * flops / 1e9, 1),
            "share_of_float32_products": round(spread(values)["median"] * flops / 1e9 / gemm, 3),
            "rounds": [round(value) for value in values],
        }
        for name, values in turns.trainers.items()
    ]


def measure(
    task: Task, trainers: list[BaselineTrainer], rounds: int, text: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """The whole report, as JSON holds it."""
    signature = describe_machine(PACKAGES)
    data = ParallelDataset(task.tokens)
    vocab_size = len(Tokenizer(task.tokenizer))
    flops = flops_per_target_token(task.model, vocab_size, data.src.lengths, data.trg.lengths)
    short = replace(task, steps=max(task.steps // 10, 1), warm_up=max(task.warm_up // 5, 1))
    objectives = {}
    for name, bf16 in (("32-true", False), ("bf16-mixed", True)):
        speeds = in_fresh_process(objective_speeds, short, rounds, bf16)
        objectives[name] = {"rows": objective_rows(speeds), "skipped": speeds.skipped}
        say(f"objectives in {name}: done")
    turns = take_turns(task, trainers, rounds, say)
    return {
        "machine": signature,
        "cores_used": usable_cores(),
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
        "trainers": trainer_rows(turns, flops),
        "skipped": turns.skipped,
        "gemm_gflops": {name: spread(values, 1) for name, values in turns.gemm.items()},
    }


# --- report ---------------------------------------------------------------------------------------


def _range(value: dict[str, float], digits: int = 2) -> str:
    """`median (least – most)`."""
    median, least, most = (f"{value[key]:,.{digits}f}" for key in ("median", "least", "most"))
    return f"{median} ({least} – {most})"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _setting(report: dict[str, Any]) -> str:
    model, machine = report["model"], report["machine"]
    lengths = report["mean_tokens"]
    return (
        f"{machine['processor']}, {report['cores_used']} cores ({machine['instructions']}), load "
        f"{machine['load_1min']} at the start, torch {machine['torch']}. Model: width "
        f"{model['width']}, heads {model['heads']}, ffn {model['ffn']}, "
        f"{model['encoder_layers']}-{model['decoder_layers']} layers, {report['vocabulary']:,} "
        f"pieces, dropout {model['dropout']}, {report['parameters']:,} parameters. "
        f"{report['text'].capitalize()} text of {lengths['source']} source and "
        f"{lengths['target']} target tokens a sentence; batches of {report['batch_tokens']:,} "
        f"target tokens. Medians of {report['rounds']} rounds that took turns (least – most)."
    )


def _trainers(report: dict[str, Any]) -> str:
    rows = [
        [
            row["trainer"],
            _range(row["target_tokens_per_second"], 0),
            _range(row["ratio_to_plain"]),
            f"{row['gflops']:,.0f}",
            f"{row['share_of_float32_products']:.0%}",
        ]
        for row in report["trainers"]
    ]
    head = ["trainer", "target tokens/s", "× plain torch loop", "GFLOP/s", "of float32 products"]
    return _table(head, rows)


def _objectives(report: dict[str, Any]) -> str:
    precisions = list(report["objectives"])
    by_name: dict[str, list[str]] = {}
    for precision in precisions:
        for row in report["objectives"][precision]["rows"]:
            cells = by_name.setdefault(row["objective"], [])
            cells += [
                _range(row["milliseconds_a_step"], 1),
                _range(row["ratio_to_nll"]),
            ]
    head = ["objective"]
    for precision in precisions:
        head += [f"ms a step, {precision}", "× nll"]
    return _table(head, [[name, *cells] for name, cells in by_name.items()])


def _skipped(report: dict[str, Any]) -> list[str]:
    reasons = dict(report["skipped"])
    for part in report["objectives"].values():
        reasons.update(part["skipped"])
    return [f"Not measured: {name}: {reason}" for name, reason in reasons.items()]


def markdown(report: dict[str, Any]) -> str:
    """What goes under `How fast`: setting, trainers, objectives, the machine's limit."""
    products = "; ".join(
        f"{name} {_range(value, 0)}" for name, value in report["gemm_gflops"].items()
    )
    limit = (
        f"A target token costs {report['flops_per_target_token'] / 1e6:.1f} million floating-point "
        f"operations in matrix products, its source tokens and the backward pass included. Matrix "
        f"products alone reach, in GFLOP/s: {products}."
    )
    parts = [
        "### Measured",
        _setting(report),
        _trainers(report),
        limit,
        "A step of each objective, on one thread, with its batch and labels read:",
        _objectives(report),
        *_skipped(report),
    ]
    return "\n\n".join(parts)


# --- command --------------------------------------------------------------------------------------


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
