"""Transfer from a pretrained model to another target language: what a student starts with, and what
it keeps at first.

The student has the pretrained model's source vocabulary and a target vocabulary of its own (Zoph et
al. 2016; Kocmi & Bojar 2018). What it has learnt of the source need not change while the new target
embeddings are noise, so the encoder can be frozen for a share of the run (Howard & Ruder 2018,
gradual unfreezing).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.checkpoint import (
    EVENLY,
    CheckpointError,
    LayerChoice,
    build_model,
    copy_layers,
    load_checkpoint,
    start_indices,
)
from training.config.model import FreezeConfig
from training.config.recipe import RecipeError
from training.data.adopted_tokenizer import SPECIAL
from training.data.batching import Batch
from training.data.cleaning import plain_characters
from training.data.tokenizer import pieces_of
from training.model.transformer import PAD, LayerSize, Transformer
from training.pretrained.base import PretrainedModel
from training.pretrained.reader import read_pretrained
from training.pruning import prune

# --- start -------------------------------------------------------------------------------------


Calibration = Callable[[], Sequence[Batch]]
"""Gives text of the run, for what is cut out of a model."""


def to_transformer(model: PretrainedModel) -> Transformer:
    """A pretrained model in torch, in float32, for evaluation."""
    table = model.state.get("source_embedding.weight")
    transformer = build_model(
        model.config,
        len(model.state["embedding.weight"]),
        None if table is None else len(table),
    )
    transformer.load_state_dict({name: torch.from_numpy(w) for name, w in model.state.items()})
    return transformer.eval()


def whole_pretrained(
    folder: Path, tokenizer: Path, source_tokenizer: Path | None, seed: int
) -> Transformer:
    """A pretrained model whole, with the vocabularies of the tokenizers given: the embeddings of
    pieces that stand in both are its own (`copy_words`), the others drawn by `seed`."""
    pretrained = read_pretrained(folder)
    theirs = Pieces.of(pretrained.tokenizer, pretrained.source_tokenizer)
    return _in_pieces(to_transformer(pretrained), theirs, tokenizer, source_tokenizer, seed)


def whole_checkpoint(
    folder: Path, tokenizer: Path, source_tokenizer: Path | None, seed: int
) -> Transformer:
    """The same of a checkpoint."""
    checkpoint = load_checkpoint(folder)
    own = checkpoint.source_tokenizer
    theirs = Pieces.of(checkpoint.tokenizer.read_bytes(), own.read_bytes() if own else None)
    return _in_pieces(checkpoint.model, theirs, tokenizer, source_tokenizer, seed)


def known_pieces(
    theirs: tuple[bytes, bytes | None], tokenizer: Path, source_tokenizer: Path | None
) -> tuple[Tensor, Tensor]:
    """Which pieces of a run's source [V'] and target [V] vocabularies a model has learnt, bool.

    `theirs` are the model's own SentencePiece models, of the target or both sides and of the
    source.
    """
    own = Pieces.of(*theirs)
    ours = Pieces.of(
        tokenizer.read_bytes(), source_tokenizer.read_bytes() if source_tokenizer else None
    )
    source, target = set(own.source), set(own.target)
    return (
        torch.tensor([piece in source for piece in ours.source]),
        torch.tensor([piece in target for piece in ours.target]),
    )


def _in_pieces(
    model: Transformer,
    theirs: Pieces,
    tokenizer: Path,
    source_tokenizer: Path | None,
    seed: int,
) -> Transformer:
    ours = Pieces.of(
        tokenizer.read_bytes(), source_tokenizer.read_bytes() if source_tokenizer else None
    )
    whole = copy.deepcopy(model)
    whole.embedding = nn.Embedding(len(ours.target), model.width, padding_idx=PAD)
    whole.output_bias = nn.Parameter(torch.zeros(len(ours.target)))
    whole.source_embedding = None
    if source_tokenizer is not None:
        whole.source_embedding = nn.Embedding(len(ours.source), model.width, padding_idx=PAD)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        copy_words(whole, model, theirs, ours)
    return whole


def copy_start(
    student: Transformer,
    whole: Transformer,
    choice: LayerChoice = EVENLY,
    calibration: Calibration = tuple,
) -> None:
    """Copy a model of the same vocabularies into a student: embeddings and chosen layers.

    For a student whose layers have fewer heads or feed-forward units the others are cut out on the
    text that `calibration` gives (`training.pruning`). Raises CheckpointError where the dimensions
    differ.
    """
    encoder = _sizes(student.encoder_sizes, whole.encoder_sizes, choice.encoder)
    decoder = _sizes(student.decoder_sizes, whole.decoder_sizes, choice.decoder)
    if (encoder, decoder) != (whole.encoder_sizes, whole.decoder_sizes):
        whole = copy.deepcopy(whole)
        prune(whole, encoder, decoder, calibration())
    copy_layers(student, whole, choice)
    try:
        with torch.no_grad():
            student.embedding.load_state_dict(whole.embedding.state_dict())
            student.output_bias.copy_(whole.output_bias)
            student.source_table.load_state_dict(whole.source_table.state_dict())
    except RuntimeError as error:
        raise CheckpointError(f"the student cannot start from that model: {error}") from None


def _sizes(
    student: Sequence[LayerSize], whole: Sequence[LayerSize], chosen: tuple[int, ...] | None
) -> list[LayerSize]:
    """What each of a model's layers is cut down to for a student that starts from chosen ones.
    Raises CheckpointError where two of the student's layers, of different sizes, start from one."""
    sizes: dict[int, LayerSize] = {}
    for size, index in zip(student, start_indices(len(student), len(whole), chosen), strict=True):
        if sizes.setdefault(index, size) != size:
            raise CheckpointError(
                f"two layers of the student start from layer {index + 1}, as {sizes[index]} and as "
                f"{size}: give them the same size in student.model"
            )
    return [sizes.get(index, size) for index, size in enumerate(whole)]


@dataclass(frozen=True)
class Pieces:
    """The vocabularies of a model in the order of their ids."""

    target: list[str]
    source: list[str]

    @classmethod
    def of(cls, tokenizer: bytes, source_tokenizer: bytes | None) -> Pieces:
        """Those of its SentencePiece models."""
        target = pieces_of(tokenizer)
        return cls(target, pieces_of(source_tokenizer) if source_tokenizer else target)


SAME_LANGUAGE = 0.9
"""Least share of a vocabulary's pieces, bytes apart, that another holds, to be taken for its
language's."""
BYTE = re.compile(r"<0x[0-9A-F]{2}>")


@torch.no_grad()
def copy_words(student: Transformer, other: Transformer, theirs: Pieces, ours: Pieces) -> None:
    """Copy the embeddings of the pieces that stand in both vocabularies, of either side.

    Typographic signs that the other lacks start as the plain ones. The rest is random, normal with
    the spread of the other's. Output biases, which say how frequent a piece is, are copied where
    the target's vocabularies are of one language, and the lowest of them given to the rest; else
    they stay zero. A student with a source table of its own may start from a model without.
    """
    copied = _table(other.embedding.weight, theirs.target, ours.target)
    student.embedding.weight.copy_(copied)
    if student.source_embedding is not None:
        student.source_embedding.weight.copy_(
            _table(other.source_table.weight, theirs.source, ours.source)
        )
    shared, rows = _shared(theirs.target, ours.target)
    text = sum(not BYTE.fullmatch(piece) for piece in ours.target)
    if len(shared) < SAME_LANGUAGE * text:
        return
    bias = other.output_bias[rows]
    writable = bias[len(SPECIAL) :]
    student.output_bias.fill_(float(writable.min()) if len(writable) else 0.0)
    student.output_bias[shared] = bias


def _shared(theirs: list[str], ours: list[str]) -> tuple[Tensor, Tensor]:
    """Ids of the pieces in both vocabularies: in ours, in theirs."""
    ids = {piece: index for index, piece in enumerate(theirs)}
    pairs = [(index, ids[piece]) for index, piece in enumerate(ours) if piece in ids]
    mine, other = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    return mine, other


def _table(table: Tensor, theirs: list[str], ours: list[str]) -> Tensor:
    """Embeddings [V, D] of our pieces: the other model's [V', D] where it has the piece, or its
    plain form, such as `-` for `–`."""
    fresh = torch.empty(len(ours), table.shape[1]).normal_(std=float(table.std()))
    for known in ([plain_characters(piece).strip() for piece in ours], ours):
        mine, other = _shared(theirs, known)
        fresh[mine] = table[other]
    return fresh


# --- freezing ----------------------------------------------------------------------------------


class Freezing:
    """The parts of a model that do not learn before their share of the run is done."""

    def __init__(self, model: Transformer, config: FreezeConfig | None) -> None:
        """Raises RecipeError where source embeddings are to be frozen that the target shares."""
        self._config = config or FreezeConfig()
        if self._config.source_embedding and model.source_embedding is None:
            raise RecipeError("student.freeze.source_embedding: the source has no table of its own")
        self._parts: list[tuple[float, list[nn.Parameter]]] = [
            (
                self._config.encoder,
                [*model.encoder.parameters(), *model.encoder_norm.parameters()],
            )
        ]
        if model.source_embedding is not None:
            own = list(model.source_embedding.parameters())
            self._parts.append((self._config.source_embedding, own))
        tied = [*model.embedding.parameters(), model.output_bias]
        self._parts.append((self._config.embedding, tied))

    def groups(self, modules: list[nn.Module]) -> list[dict[str, Any]]:
        """The modules' parameters for an optimiser, in groups with their `rate`, a share of the
        learning rate; in one group where nothing freezes."""
        everything = [p for module in modules for p in module.parameters()]
        parts = [part for until, part in self._parts if until]
        slow = {id(p) for part in parts for p in part}
        rest = [p for p in everything if id(p) not in slow]
        return [
            {"params": rest, "rate": 1.0},
            *({"params": part, "rate": self._config.rate} for part in parts),
        ]

    def apply(self, share: float) -> bool:
        """Let learn what is to learn once `share` of the run is done, and nothing else; → whether
        that is a change."""
        changed = False
        for until, parameters in self._parts:
            learns = share >= until
            for parameter in parameters:
                changed |= parameter.requires_grad != learns
                parameter.requires_grad_(learns)
        return changed
