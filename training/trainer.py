"""The one training loop, with its learning rate.

Teachers, students and baselines differ in the loss it is given.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric, seed_everything
from safetensors.torch import load_file
from torch import Tensor, nn

from training.checkpoint import (
    EVENLY,
    LayerChoice,
    RunState,
    average_states,
    build_model,
    load_run_state,
    optimizer_tensors,
    part_of,
    restore_optimizer,
    save_checkpoint,
    save_run_state,
    save_tensors,
)
from training.config.losses import ObjectiveConfig, learns_from_held_out
from training.config.model import FreezeConfig
from training.config.recipe import ModelConfig, RecipeError, TrainingConfig
from training.data.batching import Batch, map_table
from training.data.dataset import ParallelDataset
from training.data.tokenizer import Tokenizer
from training.distill.label_store import LabelStore
from training.distill.losses import Loss, LossOutput, build_loss
from training.distill.sampled_softmax import scored_words
from training.distributed import ParentWatch, TrainingError, launch, precision, process_count
from training.logging import Monitor, clock
from training.model.transformer import Transformer, parameter_count
from training.pruning import CALIBRATION_PAIRS
from training.quantization_aware import QuantizationAware
from training.stage import say
from training.transfer import (
    Freezing,
    copy_start,
    known_pieces,
    whole_checkpoint,
    whole_pretrained,
)
from training.validation import HeldOutText, Pair, Validator, split_validation
from training.warm_start import own_tokenizers

CLOCK_EVERY = 5
WARM = 2
"""The first step that takes as long as later ones."""
GATE = "objective."
"""In front of the names of a learned gate's weights, beside those of the model."""
BATCHES = "batches."
"""In front of what a mean is of, in how many batches it was."""
SOON = 10.0
"""Seconds without a log line that need no announcement."""


# --- learning rate and limits ------------------------------------------------------------------


def done_share(config: TrainingConfig, step: int, epochs: float, seconds: float) -> float:
    """Share of the nearest limit that is used up; 1 or more ends the run."""
    shares = [
        step / config.max_steps if config.max_steps else 0.0,
        epochs / config.max_epochs if config.max_epochs else 0.0,
        seconds / (60 * config.max_minutes) if config.max_minutes else 0.0,
    ]
    return max(shares)


def spent_clock(config: TrainingConfig) -> float:
    """Seconds from an arbitrary moment, by the clock that max_minutes counts; CPU time is this
    process's, its ended children's included."""
    return sum(os.times()[:4]) if config.clock == "cpu" else time.perf_counter()


def learning_rate(config: TrainingConfig, step: int, share: float) -> float:
    """Rate of a step (from 1): linear warm-up, then inverse square root (Vaswani et al. 2017).

    `share` of the run is done; in its last `cooldown` the rate also falls linearly to a tenth.
    """
    rate = min(step / config.warmup_steps, (config.warmup_steps / step) ** 0.5)
    if config.cooldown and share > 1 - config.cooldown:
        left = max(1 - share, 0.0) / config.cooldown
        rate *= 0.1 + 0.9 * left
    return config.learning_rate * rate


# --- the loop ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingRun:
    """What one run of the loop is given; plain data, so that processes can be spawned with it."""

    name: str
    folder: Path
    model: ModelConfig
    training: TrainingConfig
    objective: ObjectiveConfig
    token_shards: list[Path]
    labels: Path | None
    tokenizer: Path
    validation: Path
    seed: int
    recipe_text: str
    start: Path | None = None
    """Checkpoint of a teacher whose layers the model starts from."""
    source_tokenizer: Path | None = None
    """The source's, where it has one of its own."""
    pretrained: Path | None = None
    """Folder of a pretrained model that the model starts from; without either, at random."""
    whole: Path | None = None
    """Folder of the pretrained model that `start` was cut out of, which teaches in its place."""
    freeze: FreezeConfig | None = None
    """What does not learn at first."""
    start_layers: LayerChoice = EVENLY
    """Which layers of the model that it starts from are copied."""
    own: Path | None = None
    """Store of what the student wrote in the last on-policy round."""
    until: float = 1.0
    """Share of the run after which it pauses: its state is saved, and it goes on from there."""
    spent: float = 0.0
    """Seconds that on-policy rounds took, which count like those of training."""

    @property
    def checkpoint(self) -> Path:
        """Where the finished checkpoint goes."""
        return self.folder / "checkpoint"

    def validation_text(self) -> tuple[list[Pair], list[Pair]]:
        """The pairs that choose checkpoints, and those that a gate learns from."""
        chooses, gate = split_validation(self.validation, learns_from_held_out(self.objective))
        return chooses[: self.training.validation_pairs], gate


def train(run: TrainingRun) -> None:
    """Train, or go on training, until a limit; then write `run.checkpoint`, unless the run only
    pauses (`run.until`). Does nothing where that is there already.

    Raises RecipeError for what a recipe gets wrong and TrainingError for a non-finite loss.
    """
    if (run.checkpoint / "checkpoint.json").exists():
        return
    run.folder.mkdir(parents=True, exist_ok=True)
    _say_what_starts(run)
    launch(run.training, _worker, run)


def _say_what_starts(run: TrainingRun) -> None:
    """Say how much text is used and on which device, before the processes start."""
    pairs = sum(len(map_table(shard)) for shard in run.token_shards)
    validation = len(run.validation_text()[0])
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "the CPU"
    say(
        f"{run.name}: training on {pairs:,} pairs, validated on {validation:,}; "
        f"{process_count(run.training)} process(es) on {device}, starting"
    )


def _worker(fabric: Fabric, run: TrainingRun) -> None:
    Trainer(fabric, run).fit()


class DistillationModule(nn.Module):
    """Model and loss as one module, so that gradients of both are averaged together."""

    def __init__(self, model: Transformer, loss: Loss, sampled: int | None = None) -> None:
        """With `sampled` the output layer scores what a batch needs and that many drawn words."""
        super().__init__()
        self.model = model
        self.loss = loss
        self.sampled = sampled

    def forward(self, batch: Batch) -> LossOutput:
        batch = self.loss.prepared(batch)
        if self.sampled is None:
            return self.loss(self.model, batch)
        scored = scored_words(batch, len(self.model.embedding.weight), self.sampled)
        return self.loss(self.model.scoring(*scored), scored.relabelled(batch))


class Trainer:
    """One process of a run."""

    def __init__(self, fabric: Fabric, run: TrainingRun) -> None:
        self.fabric = fabric
        self.run = run
        self.config = run.training
        self.parent = ParentWatch()
        seed_everything(run.seed, verbose=False)
        self.tokenizer = Tokenizer(run.tokenizer)
        source = Tokenizer(run.source_tokenizer) if run.source_tokenizer else None
        labels = LabelStore(run.labels) if run.labels is not None else None
        own = LabelStore(run.own) if run.own is not None else None
        self.data = ParallelDataset(run.token_shards, labels, own)
        chooses, teaches_gate = run.validation_text()
        self.validator = Validator(chooses, self.tokenizer, run.model.max_length, source)
        self.model = build_model(run.model, len(self.tokenizer), len(source) if source else None)
        self.loss = build_loss(run.objective, run.model.width)
        if self.loss.needs_held_out:
            self.loss.held_out = self._held_out(teaches_gate, source)
        self.freezing = Freezing(self.model, run.freeze)
        self.optimizer = torch.optim.AdamW(
            self.freezing.groups([self.model, self.loss]),
            lr=self.config.learning_rate,
            betas=self.config.betas,
            eps=1e-9,
            weight_decay=self.config.weight_decay,
            fused=True,
        )
        self.state = RunState(kept=[])
        moments = self._restore()
        self.quantization = QuantizationAware(self.model) if self._rounds_at(1.0) else None
        self._batches_an_epoch = self._count_batches()
        self.freezing.apply(self._share())
        self._set_up()
        # After the setup, so that the moments go where the weights are.
        restore_optimizer(self.optimizer, moments)
        self.monitor = Monitor(run.folder, run.name, self.state.step, fabric.is_global_zero)
        self._tokens = 0
        self._since = time.perf_counter()
        self._saved_at = self.state.seconds

    def _held_out(self, pairs: list[Pair], source: Tokenizer | None) -> Callable[[int], Batch]:
        """Batches of what a gate learns from, other ones for each process."""
        run, rank, world = self.run, self.fabric.global_rank, self.fabric.world_size
        longest, budget = run.model.max_length, self.config.batch_tokens
        text = HeldOutText(pairs, self.tokenizer, source, longest, budget, run.seed)
        return lambda number: text(number * world + rank)

    def _set_up(self) -> None:
        """Wrap model and optimiser, which must be done again when other weights learn."""
        self.module, self.wrapped_optimizer = self.fabric.setup(
            DistillationModule(self.model, self.loss, self.config.sampled_softmax),
            self.optimizer,
        )

    # --- state -------------------------------------------------------------------------------

    def _restore(self) -> dict[str, Tensor]:
        """Restore the newest saved state, if any; → its tensors, including the optimiser's."""
        rank, world = self.fabric.global_rank, self.fabric.world_size
        # Weights start equal everywhere; dropout then differs by process.
        torch.manual_seed(self.run.seed * 1000 + rank + 1)
        saved = load_run_state(self.run.folder)
        whole = self._whole_start() if saved is None or self.loss.needs_start else None
        if whole is not None and saved is None:
            copy_start(self.model, whole, self.run.start_layers, self._calibration)
        if whole is not None and self.loss.needs_start:
            self._teach(whole)  # which takes it to the device
        if saved is None:
            return {}
        tensors, self.state = saved
        if "batches" in self.state.sums:  # as earlier versions counted, for all values alike
            self.state.sums = {}
        saved_world = tensors["rng"].shape[0]
        self.model.load_state_dict(part_of(tensors, "model"))
        row = rank if saved_world == world else 0
        objective = {name: value[row] for name, value in part_of(tensors, "objective").items()}
        self.loss.load_state_dict(objective)
        if saved_world == world:
            # A clone: torch's generator cannot be set from a view into a larger tensor.
            self._set_rng_state(tensors["rng"][rank].clone())
        else:
            # Another process count: the epoch's batches are shared anew.
            self.state.batches_done = self.state.batches_done * saved_world // world
        return tensors

    def _whole_start(self) -> Transformer | None:
        """The model that the student starts from, of the run's vocabularies; None: at random."""
        run = self.run
        given = (run.tokenizer, run.source_tokenizer, run.seed)
        if run.start is not None:
            return whole_checkpoint(run.start, *given)
        return None if run.pretrained is None else whole_pretrained(run.pretrained, *given)

    def _teach(self, start: Transformer) -> None:
        """Let the model teach that the student starts from, or that this was cut out of."""
        run, teacher = self.run, start
        if run.whole is not None:
            teacher = whole_pretrained(run.whole, run.tokenizer, run.source_tokenizer, run.seed)
        folder = run.whole or run.start or run.pretrained
        assert folder is not None
        known = known_pieces(own_tokenizers(folder), run.tokenizer, run.source_tokenizer)
        self.loss.teach_by(teacher.to(self.fabric.device), known)

    def _calibration(self) -> list[Batch]:
        """The first pairs of the text, the same in every process."""
        batches, pairs = [], 0
        for batch in self._epoch(0, rank=0, world_size=1):
            batches.append(batch)
            pairs += len(batch.ids)
            if pairs >= CALIBRATION_PAIRS:
                break
        return batches

    def _rng_state(self) -> Tensor:
        """State of the generator that dropout draws from."""
        if self.fabric.device.type == "cuda":
            return torch.cuda.get_rng_state(self.fabric.device)
        return torch.get_rng_state()

    def _set_rng_state(self, state: Tensor) -> None:
        if self.fabric.device.type == "cuda":
            torch.cuda.set_rng_state(state, self.fabric.device)
        else:
            torch.set_rng_state(state)

    def _gather(self, tensor: Tensor) -> Tensor:
        """One row a process."""
        if self.fabric.world_size == 1:
            return tensor[None]
        gathered = self.fabric.all_gather(tensor.to(self.fabric.device))
        assert isinstance(gathered, Tensor)
        return gathered.cpu()

    def _save(self) -> None:
        """Save what a resumed run needs; then drop weights that no saved state lists any more."""
        started = time.perf_counter()
        objective = {
            f"objective.{name}": self._gather(value.detach())
            for name, value in self.loss.state_dict().items()
        }
        rng = self._gather(self._rng_state())
        if self.fabric.is_global_zero:
            model = {f"model.{name}": v for name, v in self.model.state_dict().items()}
            tensors = {"rng": rng, **objective, **model, **optimizer_tensors(self.optimizer)}
            save_run_state(self.run.folder, tensors, self.state)
            kept = {self._weights(step) for _, step in self.state.kept or []}
            for path in self._weights(0).parent.glob("step-*"):
                if path not in kept:
                    path.unlink(missing_ok=True)
        self.fabric.barrier()
        self._saved_at = self.state.seconds
        self._since += time.perf_counter() - started

    # --- the run -----------------------------------------------------------------------------

    def _share(self) -> float:
        batches = max(self._batches_an_epoch, 1)
        epochs = self.state.epoch + self.state.batches_done / batches
        seconds = self.state.seconds + self.run.spent
        return done_share(self.config, self.state.step, epochs, seconds)

    def _rounds_at(self, share: float) -> bool:
        """Whether steps are taken with rounded weights when `share` of the run is done."""
        aware = self.config.quantization_aware
        return aware > 0 and share >= 1 - aware

    def _goes_on(self, until: float = 1.0) -> bool:
        return self._share() < until and self.state.stale < self.config.patience

    def fit(self) -> None:
        """Train until a limit or until patience runs out, then write the checkpoint; or until the
        run pauses."""
        try:
            self._fit()
        finally:
            self.monitor.stop_bar()

    def _fit(self) -> None:
        if self._batches_an_epoch < self.config.accumulate:
            raise RecipeError(
                f"{self.run.name}: the text makes too few batches for {self.fabric.world_size} "
                "process(es): lower training.batch_tokens, accumulate or processes"
            )
        self._announce()
        started = spent_clock(self.config) - self.state.seconds
        self.module.train()
        done = 0
        while self._goes_on(self.run.until):
            for batches in self._steps_of_epoch():
                began = time.perf_counter()
                self._step(batches)
                done += 1
                if done == WARM:
                    self._say_pace(time.perf_counter() - began)
                if self.state.step % CLOCK_EVERY == 0:
                    self._tick(started)
                if self.state.step % self.config.log_every == 0:
                    self._log()
                if self.state.step % self.config.validate_every == 0:
                    self._validate()
                if self.state.seconds - self._saved_at > 60 * self.config.checkpoint_minutes:
                    self._save()
                if not self._goes_on(self.run.until):
                    break
            else:
                self.state.epoch += 1
                self.state.batches_done = 0
        if self._goes_on():
            self._save()
            self.monitor.close()
        else:
            self._finish()

    def _announce(self) -> None:
        resumed = f", resumed at step {self.state.step}" if self.state.step else ""
        self.monitor.say(
            f"{parameter_count(self.model):,} parameters, {len(self.data):,} pairs, "
            f"{self.fabric.world_size} process(es), {torch.get_num_threads()} thread(s) each, "
            f"{precision(self.config)}{resumed}"
        )

    def _say_pace(self, seconds: float) -> None:
        """Say when the next log line comes, unless soon; the first step is unusually slow."""
        steps = self.config.log_every - self.state.step % self.config.log_every
        if seconds * steps > SOON:
            self.monitor.say(
                f"step {self.state.step} took {seconds:.1f} s; the next line comes in about "
                f"{clock(seconds * steps)}"
            )

    def _count_batches(self) -> int:
        return self.data.batch_count(
            self.run.seed, self.config.batch_tokens, self.loss.paths, self.fabric.world_size
        )

    def _epoch(self, number: int, rank: int, world_size: int, start: int = 0) -> Iterator[Batch]:
        return self.data.epoch(
            number=number,
            seed=self.run.seed,
            budget=self.config.batch_tokens,
            paths=self.loss.paths,
            distributions=self.loss.needs_distributions,
            rank=rank,
            world_size=world_size,
            start=start,
        )

    def _steps_of_epoch(self):  # type: ignore[no-untyped-def]
        """Lists of `accumulate` batches, from where the state stands; a last short list is left
        out."""
        rank, world = self.fabric.global_rank, self.fabric.world_size
        batches = self._epoch(self.state.epoch, rank, world, self.state.batches_done)
        group: list[Batch] = []
        for batch in batches:
            group.append(batch.to(self.fabric.device))
            if len(group) == self.config.accumulate:
                yield group
                group = []

    def _step(self, batches: list[Batch]) -> None:
        step = self.state.step + 1
        self.loss.progress = self._share()
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * learning_rate(self.config, step, self.loss.progress)
        if self.freezing.apply(self.loss.progress):
            self._set_up()
            self.monitor.say(f"step {step}: more weights learn from here")
        sizes = [self.loss.size(batch) for batch in batches]
        mean_size = self._mean_over_processes(sum(sizes))
        with self._rounding():
            for index, (batch, size) in enumerate(zip(batches, sizes, strict=True)):
                last = index == len(batches) - 1
                with self.fabric.no_backward_sync(self.module, enabled=not last):
                    output = self.module(batch)
                    self._check_finite("loss", output.loss, [batch], step)
                    # Processes' gradients are averaged: so each word of the step weighs the same.
                    self.fabric.backward(output.loss * (size / max(mean_size, 1.0)))
                self._count(output, batch)
        norm = self.fabric.clip_gradients(
            self.module,
            self.wrapped_optimizer,
            max_norm=self.config.clip_norm,
            error_if_nonfinite=False,
        )
        assert isinstance(norm, Tensor)
        self._check_finite("norm of the gradient", norm, batches, step)
        self.wrapped_optimizer.step()
        self.wrapped_optimizer.zero_grad()
        self.state.step = step
        self.state.batches_done += len(batches)

    def _rounding(self) -> AbstractContextManager[None]:
        if self.quantization is None or not self._rounds_at(self.loss.progress):
            return nullcontext()
        return self.quantization.rounding()

    def _mean_over_processes(self, value: float) -> float:
        if self.fabric.world_size == 1:
            return value
        mine = torch.tensor(value, dtype=torch.float64, device=self.fabric.device)
        agreed = self.fabric.all_reduce(mine, reduce_op="mean")
        assert isinstance(agreed, Tensor)
        return float(agreed)

    def _check_finite(self, what: str, value: Tensor, batches: list[Batch], step: int) -> None:
        if not bool(torch.isfinite(value)):
            ids = [number for batch in batches for number in batch.ids.tolist()]
            raise TrainingError(
                f"{self.run.name}: the {what} is {value.item()} at step {step}, in the batch of "
                f"pairs {ids[:20]}{'…' if len(ids) > 20 else ''}. Look at those pairs (column `id` "
                "of the prepared corpus) or lower training.learning_rate; the run resumes from its "
                "last checkpoint"
            )

    def _count(self, output: LossOutput, batch: Batch) -> None:
        self._tokens += batch.ntokens
        for name, value in {"loss": output.loss.detach(), **output.logs}.items():
            # What some batches lack, as before an on-policy round, is a mean over the others.
            for key, more in ((name, float(value)), (f"{BATCHES}{name}", 1.0)):
                self.state.sums[key] = self.state.sums.get(key, 0.0) + more

    def _tick(self, started: float) -> None:
        """Agree on the time spent: the slowest process's."""
        self.parent.check()
        mine = torch.tensor(spent_clock(self.config) - started, dtype=torch.float64)
        agreed = self.fabric.all_reduce(mine.to(self.fabric.device), reduce_op="max")
        assert isinstance(agreed, Tensor)
        self.state.seconds = float(agreed)

    def _log(self) -> None:
        counts = part_of(self.state.sums, BATCHES.rstrip("."))
        now = time.perf_counter()
        tokens = self._tokens * self.fabric.world_size
        values = {name: self.state.sums[name] / count for name, count in counts.items()}
        values["tokens_per_second"] = round(tokens / max(now - self._since, 1e-9))
        values["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        values["epoch"] = self.state.epoch
        self._tokens, self._since = 0, now
        self.state.sums = {}
        self.monitor.log(self.state.step, self._share(), self.state.seconds, values)

    # --- selection ---------------------------------------------------------------------------

    def _weights(self, step: int) -> Path:
        return self.run.folder / "weights" / f"step-{step:08d}.safetensors"

    def _validate(self) -> None:
        """Measure BLEU; keep the weights where they are among the best `average`."""
        started = time.perf_counter()
        bleu = self.validator.bleu(self.model, self.fabric)
        state = self.state
        state.validations += 1
        state.stale = 0 if bleu > state.best_bleu else state.stale + 1
        state.best_bleu = max(bleu, state.best_bleu)
        ranked = sorted([*(state.kept or []), (bleu, state.step)], reverse=True)
        state.kept = ranked[: self.config.average]
        if self.fabric.is_global_zero and (bleu, state.step) in state.kept:
            self._weights(state.step).parent.mkdir(exist_ok=True)
            gate = {f"{GATE}{name}": value for name, value in self.loss.named_parameters()}
            save_tensors(self._weights(state.step), {**self.model.state_dict(), **gate})
        self.fabric.barrier()
        self._since += time.perf_counter() - started
        values = {"validation_bleu": bleu, "best_bleu": state.best_bleu}
        self.monitor.log(state.step, self._share(), state.seconds, values)

    def _finish(self) -> None:
        """Average the best weights; write whichever of average and best validates higher."""
        state = self.state
        if not any(step == state.step for _, step in state.kept or []):
            self._validate()
        self._save()
        kept = [(bleu, step) for bleu, step in state.kept or []]
        states = [load_file(self._weights(step)) for _, step in kept]
        self._load_weights(average_states(states))
        averaged = self.validator.bleu(self.model, self.fabric)
        if averaged < kept[0][0]:
            self._load_weights(states[0])
        chosen = max(averaged, kept[0][0])
        self.monitor.say(
            f"validation BLEU: best checkpoint {kept[0][0]:.2f} (step {kept[0][1]}), average of "
            f"{len(kept)} {averaged:.2f}; kept {chosen:.2f}"
        )
        if self.fabric.is_global_zero:
            self._write_checkpoint(chosen)
            for leftover in (self.run.folder / "weights", *self.run.folder.glob("resume-*")):
                shutil.rmtree(leftover, ignore_errors=True)
        self.fabric.barrier()
        self.monitor.close()

    def _load_weights(self, state: dict[str, Tensor]) -> None:
        """Of the model, and of a learned gate where it was kept beside them."""
        gate = {name: value for name, value in state.items() if name.startswith(GATE)}
        self.model.load_state_dict({k: v for k, v in state.items() if k not in gate})
        with torch.no_grad():
            for name, parameter in self.loss.named_parameters():
                if (value := gate.get(f"{GATE}{name}")) is not None:
                    parameter.copy_(value)

    def _write_checkpoint(self, bleu: float) -> None:
        metrics = {
            "validation_bleu": bleu,
            "steps": self.state.step,
            "seconds": round(self.state.seconds + self.run.spent, 1),
            "parameters": parameter_count(self.model),
            "objective": self.run.objective.model_dump(),
            "processes": self.fabric.world_size,
            "precision": precision(self.config),
        }
        save_checkpoint(
            self.run.checkpoint,
            self.model.state_dict(),
            self.run.model,
            self.run.tokenizer,
            self.run.recipe_text,
            metrics,
            self.loss.state_dict() or None,
            self.run.source_tokenizer,
        )
