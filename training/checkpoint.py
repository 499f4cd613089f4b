"""Checkpoints: the contract between training and everything after it, and what a run resumes from.

A checkpoint folder holds `model.safetensors`, `checkpoint.json` (dimensions, vocabulary, metrics),
`tokenizer.model`, the `recipe.yaml` that made it, `source_tokenizer.model` where the source has a
vocabulary of its own and, after gated distillation, `objective.safetensors`. Nothing in it is code:
loading a stranger's checkpoint runs none.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from quickstudy.atomic import atomic_folder
from training.config.model import ModelConfig
from training.config.recipe import RecipeError
from training.model.transformer import (
    SSRU,
    CrossAttention,
    FeedForward,
    SelfAttention,
    Transformer,
)
from training.teacher_files import SOURCE_TOKENIZER

FORMAT = 1
Value = TypeVar("Value")


class CheckpointError(RecipeError):
    """A checkpoint that cannot be loaded."""


def build_model(
    config: ModelConfig, vocab_size: int, source_vocab_size: int | None = None
) -> Transformer:
    """The Transformer of these dimensions, freshly initialised; with `source_vocab_size` the
    source has a table of its own."""
    return Transformer(
        vocab_size=vocab_size, source_vocab_size=source_vocab_size, **config.model_dump()
    )


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint; `objective` holds a learned gate's weights, if any."""

    folder: Path
    model: Transformer
    config: ModelConfig
    metrics: dict[str, Any]
    objective: dict[str, Tensor]

    @property
    def tokenizer(self) -> Path:
        return self.folder / "tokenizer.model"

    @property
    def source_tokenizer(self) -> Path | None:
        """The source's SentencePiece model, where it has one of its own."""
        path = self.folder / SOURCE_TOKENIZER
        return path if path.exists() else None

    @property
    def recipe_text(self) -> str:
        return (self.folder / "recipe.yaml").read_text(encoding="utf-8")


def contiguous(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors wants them."""
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file, whole or not at all. Raises OSError where the file system
    refuses."""
    draft = path.with_suffix(".tmp")
    try:
        save_file(contiguous(tensors), draft)
        draft.replace(path)
    except SafetensorError as error:
        match = re.search(r"\(os error (\d+)\)", str(error))
        if match is None:
            raise
        number = int(match[1])
        raise OSError(number, os.strerror(number), str(path)) from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def save_checkpoint(
    folder: Path,
    model_state: dict[str, Tensor],
    config: ModelConfig,
    tokenizer: Path,
    recipe_text: str,
    metrics: dict[str, Any],
    objective_state: dict[str, Tensor] | None = None,
    source_tokenizer: Path | None = None,
) -> None:
    """Write a checkpoint folder atomically."""
    about = {
        "format": FORMAT,
        "model": config.model_dump(),
        "vocab_size": model_state["embedding.weight"].shape[0],
        "metrics": metrics,
    }
    if (table := model_state.get("source_embedding.weight")) is not None:
        about["source_vocab_size"] = len(table)
    with atomic_folder(folder) as draft:
        save_tensors(draft / "model.safetensors", model_state)
        if objective_state:
            save_tensors(draft / "objective.safetensors", objective_state)
        (draft / "checkpoint.json").write_text(json.dumps(about, indent=2))
        (draft / "recipe.yaml").write_text(recipe_text, encoding="utf-8")
        shutil.copyfile(tokenizer, draft / "tokenizer.model")
        if source_tokenizer is not None:
            shutil.copyfile(source_tokenizer, draft / SOURCE_TOKENIZER)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint folder. Raises CheckpointError where it is not one or does not fit."""
    try:
        about = json.loads((folder / "checkpoint.json").read_text())
        state = load_file(folder / "model.safetensors")
        extra = folder / "objective.safetensors"
        objective = load_file(extra) if extra.exists() else {}
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: not a checkpoint, {error.filename} is missing") from None
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: damaged checkpoint: {error}") from None
    if about.get("format") != FORMAT:
        raise CheckpointError(f"{folder}: format {about.get('format')} is not known here")
    try:
        config = ModelConfig.model_validate(about["model"])
        own = about.get("source_vocab_size")
        model = build_model(config, int(about["vocab_size"]), None if own is None else int(own))
        model.load_state_dict(state)
    except (KeyError, ValueError, RuntimeError, ValidationError) as error:
        raise CheckpointError(f"{folder}: weights and dimensions do not fit: {error}") from None
    return Checkpoint(folder, model.eval(), config, about.get("metrics", {}), objective)


def average_states(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of several models' weights, tensor by tensor, in float64 and back."""
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
        for name, value in states[0].items()
    }


def chosen_layers(count: int, available: int) -> list[int]:
    """Which of another model's layers a student of `count` starts from, in order.

    A shallower student takes evenly spaced ones, the first and the last among them (Shleifer & Rush
    2020, shrink and fine-tune); a single one is the first. A deeper one takes all, then the last
    again for every layer more (Gong et al. 2019, stacking).
    """
    if count > available:
        return [*range(available), *[available - 1] * (count - available)]
    if count == 1:
        return [0]
    return [round(index * (available - 1) / (count - 1)) for index in range(count)]


def _silence(layer: nn.Module) -> None:
    """Zero a layer's projections onto the residual stream: it then computes the identity."""
    for module in layer.modules():
        if isinstance(module, SSRU):
            nn.init.zeros_(module.candidate.weight)
            continue
        if isinstance(module, SelfAttention | CrossAttention):
            projection = module.out
        elif isinstance(module, FeedForward):
            projection = module.outer
        else:
            continue
        nn.init.zeros_(projection.weight)
        nn.init.zeros_(projection.bias)


@dataclass(frozen=True)
class LayerChoice:
    """Which of another model's layers a student starts from, counted from 1, in order; None: evenly
    spaced ones."""

    encoder: tuple[int, ...] | None = None
    decoder: tuple[int, ...] | None = None


EVENLY = LayerChoice()


def start_indices(count: int, available: int, chosen: tuple[int, ...] | None) -> list[int]:
    """From which of a model's `available` layers, from 0, a student's `count` start. Raises
    CheckpointError where the choice names others."""
    if chosen is None:
        return chosen_layers(count, available)
    if max(chosen) > available:
        raise CheckpointError(
            f"student.start chooses layer {max(chosen)} of a model that has {available}"
        )
    return [number - 1 for number in chosen]


def copy_layers(student: Transformer, other: Transformer, choice: LayerChoice) -> None:
    """Copy another model's norms and chosen layers into a student of the same width.

    Layers that the student has beyond the other's start as the identity: what they add to the
    residual stream is projected to zero, so that a deeper student begins by computing what the
    other computes (Chen, Goodfellow & Shlens 2016, Net2Net); behind the sum of a post-norm layer
    stands a norm, so that none computes the identity there. Raises CheckpointError where
    vocabularies or dimensions differ, or a post-norm student is deeper.
    """
    deeper = len(student.encoder) > len(other.encoder) or len(student.decoder) > len(other.decoder)
    if deeper and student.post_norm:
        raise CheckpointError(
            "the student cannot start from that model: with post-norm it must not be deeper"
        )
    try:
        student.encoder_norm.load_state_dict(other.encoder_norm.state_dict())
        student.decoder_norm.load_state_dict(other.decoder_norm.state_dict())
        for mine, theirs, chosen in (
            (student.encoder, other.encoder, choice.encoder),
            (student.decoder, other.decoder, choice.decoder),
        ):
            indices = start_indices(len(mine), len(theirs), chosen)
            for layer, index in zip(mine, indices, strict=True):
                layer.load_state_dict(theirs[index].state_dict())
            for layer in mine[len(theirs) :]:
                _silence(layer)
    except RuntimeError as error:
        raise CheckpointError(f"the student cannot start from that model: {error}") from None


@dataclass
class RunState:
    """Where a training run stands, beside its tensors."""

    step: int = 0
    epoch: int = 0
    batches_done: int = 0
    """Of this epoch, by this process."""
    seconds: float = 0.0
    best_bleu: float = -1.0
    stale: int = 0
    """Validations since the best one."""
    kept: list[tuple[float, int]] | None = None
    """(validation BLEU, step) of the weights kept for averaging."""
    validations: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    """What the next log line is the mean of (first process)."""


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Adam's moments, flat by name."""
    return {
        f"optimizer.{index}.{name}": value.detach().cpu()
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put `optimizer_tensors` back; nothing where there are none."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    if not state:
        return
    content = optimizer.state_dict()
    content["state"] = state
    optimizer.load_state_dict(content)


def save_run_state(folder: Path, tensors: dict[str, Tensor], state: RunState) -> None:
    """Write `<folder>/resume-STEP` atomically, then drop the older ones."""
    name = f"resume-{state.step:08d}"
    with atomic_folder(folder / name) as draft:
        save_tensors(draft / "state.safetensors", tensors)
        (draft / "state.json").write_text(json.dumps(state.__dict__))
    for older in folder.glob("resume-????????"):
        if older.name != name:
            shutil.rmtree(older, ignore_errors=True)


def load_run_state(folder: Path) -> tuple[dict[str, Tensor], RunState] | None:
    """The newest state to resume from, or None."""
    folders = sorted(folder.glob("resume-????????"))
    if not folders:
        return None
    state = RunState(**json.loads((folders[-1] / "state.json").read_text()))
    if state.kept is not None:
        state.kept = [(float(bleu), int(step)) for bleu, step in state.kept]
    return load_file(folders[-1] / "state.safetensors"), state


def part_of(values: dict[str, Value], prefix: str) -> dict[str, Value]:
    """One part of a saved state, by the names within it."""
    return {
        name.removeprefix(f"{prefix}."): value
        for name, value in values.items()
        if name.startswith(f"{prefix}.")
    }
